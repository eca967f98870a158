"""The halo of a network (enough, small, or none), and its memory, counted by hand."""

import os

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from evenslice.errors import BadInputError
from evenslice.model import tile_limits
from evenslice.model.spec import Model, Spec
from evenslice.model.tile_limits import (
    SLACK,
    UNSEEN,
    bytes_per_pixel,
    find_halo,
    free_memory,
    resident,
)
from evenslice.options import SegmentOptions
from evenslice.segmentation.plan import make_plan
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation


def run_of(module):
    def run(windows):
        with torch.inference_mode():
            return module(torch.from_numpy(windows)).numpy()

    return run


def halo_of(module, stride=1, largest=512, seed=0):
    torch.manual_seed(seed)
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return find_halo(run_of(module.eval()), 1, stride, largest=largest)


class Between(nn.Module):
    """A network with something between two convolutions."""

    def __init__(self, middle=None, stride=1, aligned=None):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, stride, 1)
        self.last = nn.Conv2d(2, 1, 3, padding=1)
        self.middle, self.aligned = middle or nn.Identity(), aligned

    def forward(self, x):
        y = self.middle(self.first(x))
        if self.aligned is not None:
            size = {"size": x.shape[-2:], "align_corners": self.aligned}
            y = functional.interpolate(y, mode="bilinear", **size)
        return self.last(y)


class Ramp(nn.Module):
    """Knows where it is."""

    def forward(self, x):
        return x + torch.linspace(0, 1, x.shape[-1])


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.weigh = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return x * self.weigh(x.relu().mean((2, 3), keepdim=True)).sigmoid()


class Attention(nn.Module):
    """Every patch of 32 attends to all of them."""

    def forward(self, x):
        tokens = functional.avg_pool2d(x, 32).flatten(2).transpose(1, 2)
        weights = (50 * tokens @ tokens.transpose(1, 2)).softmax(-1)
        sides = (x.shape[2] // 32, x.shape[3] // 32)
        mixed = (weights @ tokens).transpose(1, 2).unflatten(2, sides)
        return x + functional.interpolate(mixed, scale_factor=32)


@pytest.mark.parametrize(
    ("module", "stride", "halo"),
    [
        (nn.Conv2d(1, 1, 1), 1, 0),
        (nn.Conv2d(1, 1, 7, padding=3), 1, 3),
        (nn.Conv2d(1, 1, 7, padding=3), 8, 8),
        (nn.Conv2d(1, 1, 3, padding=9, dilation=9), 1, 9),
        (Between(), 1, 2),
    ],
    ids=["point", "7 x 7", "7 x 7 in eights", "dilated", "two layers"],
)
def test_the_halo_of_convolutions_is_their_receptive_field(module, stride, halo):
    assert halo_of(module, stride) == halo


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_a_network_that_shrinks_and_grows_has_a_small_halo(mode):
    grow = {"scale_factor": 4, "mode": mode}
    shrink = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.Conv2d(2, 2, 3, 2, 1), nn.Upsample(**grow))
    halo = halo_of(nn.Sequential(shrink, nn.Conv2d(2, 1, 3, padding=1)), 4)
    assert 4 <= halo <= 16
    assert halo % 4 == 0


@pytest.mark.parametrize(
    "middle",
    [Gate(), nn.GroupNorm(1, 2), nn.InstanceNorm2d(2), Attention(), Ramp()],
    ids=["gate", "group", "instance", "attention", "ramp"],
)
def test_where_every_pixel_changes_every_answer_there_is_none(middle):
    assert halo_of(Between(middle), largest=1024) is None


def test_aligned_corners_depend_on_the_size_of_the_image():
    assert halo_of(Between(stride=4, aligned=False), 4) in (4, 8, 12)
    assert halo_of(Between(stride=4, aligned=True), 4, largest=1024) is None


def test_a_wide_receptive_field_is_searched_in_a_larger_image():
    wide = nn.Conv2d(1, 1, 3, padding=200, dilation=200)
    assert halo_of(wide, largest=512) is None
    assert halo_of(wide, largest=1024) == 200
    assert halo_of(nn.Conv2d(1, 1, 1), largest=511) is None  # no image may be that large


def test_a_tile_with_the_halo_found_equals_the_whole():
    layers = nn.Conv2d(1, 2, 9, padding=4), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1)
    net = nn.Sequential(*layers)
    halo, run = halo_of(net), run_of(net)
    image = np.random.default_rng(5).normal(size=(1, 1, 90, 90)).astype(np.float32)
    whole, part = run(image)[..., 20:70, 20:70], run(image[..., 20:70, 20:70])
    inner = (..., slice(halo, 50 - halo), slice(halo, 50 - halo))
    np.testing.assert_allclose(part[inner], whole[inner], atol=1e-6)
    assert np.abs(part - whole).max() > 1e-3


NORM = Normalisation((0.0,), (1.0,), "file")


def model_of(*layers, slices=1, **facts):
    return Model(nn.Sequential(*layers).eval(), Spec(slices=slices), NORM, stride=1, **facts)


class Keeping(nn.Module):
    """Holds three planes of the input's size at the same time, besides the input."""

    def forward(self, x):
        one = x + 1
        two = one * 2
        return one + two


@pytest.mark.parametrize(
    ("layers", "floats"),
    [
        ([nn.Conv2d(1, 8, 1), nn.Conv2d(8, 1, 1)], 8 + 1),
        ([nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 1, 1)], 8 + 8),
        ([nn.Conv2d(1, 8, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 1, 1)], 8 + 1),
        ([nn.Conv2d(1, 16, 1, stride=2), nn.Upsample(scale_factor=2), nn.Conv2d(16, 1, 1)], 4 + 16),
        ([nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 1, 1)], 8 + 8),
        ([Keeping()], 3),
    ],
    ids=["conv", "relu", "relu in place", "upsample", "a chain", "skip"],
)
def test_the_peak_by_hand(layers, floats):
    assert bytes_per_pixel(model_of(*layers)) == pytest.approx(4 * floats * SLACK, rel=0.15)


def test_more_is_needed_with_more_channels_and_for_an_ensemble():
    one = model_of(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 1, 1), slices=3)
    assert bytes_per_pixel(one.with_tta("reversal")) > bytes_per_pixel(one)


def test_what_cannot_be_counted_is_guessed_high():
    assert bytes_per_pixel(model_of(nn.Conv2d(1, 1, 1), size=(64, 64))) == UNSEEN


def test_free_and_resident_memory_are_numbers_of_bytes():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < free_memory() <= total
    before = resident()
    block = np.ones(2**28, np.uint8)  # too large to come from what was freed before
    assert 0 < before < total
    assert resident() - before > 0.8 * block.nbytes


def test_limits_of_the_process_and_of_its_group_count(monkeypatch):
    page = os.sysconf("SC_PAGE_SIZE")
    files = {"/sys/fs/cgroup/memory.max": "3000000\n", "/sys/fs/cgroup/memory.current": "1000000\n"}
    monkeypatch.setattr(tile_limits, "_read", lambda path: files.get(path, ""))
    assert free_memory() == 2_000_000 and resident() == 0
    files["/proc/meminfo"] = "MemTotal: 99 kB\nMemAvailable:    700 kB\n"
    assert free_memory() == 700 * 1024
    files["/sys/fs/cgroup/memory.max"] = "max"
    files["/proc/self/statm"] = "10 5 1"
    assert resident() == 5 * page
    files["/proc/self/limits"] = f"Max address space   {100 * page}   unlimited   bytes"
    assert free_memory() == 90 * page


def test_without_the_files_of_linux_all_memory_is_taken_to_be_free(monkeypatch):
    monkeypatch.setattr(tile_limits, "_read", lambda _: "")
    assert free_memory() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.delattr(os, "sysconf")
    assert free_memory() == tile_limits.FALLBACK_MEMORY and resident() == 0


@pytest.fixture
def plan_with(monkeypatch):
    """Plan for a slice of 600 x 600, with some memory for a network of 1000 bytes per pixel."""
    monkeypatch.setattr("evenslice.segmentation.plan.resident", lambda: 0)
    net = model_of(nn.Conv2d(1, 96, 3, padding=1), nn.ReLU(), nn.Conv2d(96, 1, 3, padding=1))
    volume = Volume(np.random.default_rng(0).random((1, 600, 600), np.float32))

    def plan(mb):
        whole = tuple(slice(0, n) for n in volume.shape)
        options = SegmentOptions(memory=(mb * 1e6 + 3 * 64 * 2**20) / 1e9)
        return make_plan(net, volume, whole, NORM, options, torch.device("cpu"))

    return plan


def test_memory_decides_between_tiles_and_whole_slices(plan_with):
    whole, tiled = plan_with(600), plan_with(300)
    assert (whole.cut.tile, whole.cut.halo, whole.tiles_differ) == ((600, 600), 0, None)
    assert 300 < tiled.cut.tile[0] < 600
    assert tiled.cut.halo == 2
    assert plan_with(290).cut.tile < tiled.cut.tile


@pytest.mark.parametrize("mb", [1, -100])  # -100: not even enough for what is written
def test_too_little_memory_is_refused(plan_with, mb):
    with pytest.raises(
        BadInputError, match=r"tiles of \d+ pixels, expected \d+ or more; .*--memory"
    ):
        plan_with(mb)
