"""How much memory a network takes: counted on networks whose tensors can be counted by hand."""

import os

import numpy as np
import pytest
from torch import nn

from evenslice.errors import BadInputError
from evenslice.model import tile_limits
from evenslice.model.spec import Model, Spec
from evenslice.model.tile_limits import SLACK, UNSEEN, bytes_per_pixel, free_memory, resident
from evenslice.segmentation.plan import PlanRequest, make_plan
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation

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


def test_what_is_free_and_held_is_a_number_of_bytes():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < free_memory() <= total
    before = resident()
    held = np.ones(2**28, np.uint8)  # too large to come from what was freed before
    assert 0 < before < total
    assert resident() - before > 0.8 * held.nbytes


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
    """Plan for a slice of 600 x 600 and a network of about 1000 bytes a pixel, with some memory for the network."""
    monkeypatch.setattr("evenslice.segmentation.plan.resident", lambda: 0)
    net = model_of(nn.Conv2d(1, 96, 3, padding=1), nn.ReLU(), nn.Conv2d(96, 1, 3, padding=1))
    volume = Volume(np.random.default_rng(0).random((1, 600, 600), np.float32))

    def plan(mb, model=net):
        everything = tuple(slice(0, n) for n in volume.shape)
        return make_plan(
            model, volume, everything, NORM, PlanRequest(memory=(mb * 1e6 + 3 * 64 * 2**20) / 1e9)
        )

    return plan


def test_memory_decides_between_tiles_and_whole_slices(plan_with):
    whole, tiled = plan_with(600), plan_with(300)
    assert (whole.cut.tile, whole.cut.halo, whole.tiles_differ) == ((600, 600), 0, None)
    assert 300 < tiled.cut.tile[0] < 600
    assert tiled.cut.halo == 2
    assert plan_with(290).cut.tile < tiled.cut.tile


def test_too_little_memory_is_said(plan_with):
    message = r"enough for tiles of \d+ pixels, expected \d+ or more; allow more GB with --memory"
    with pytest.raises(BadInputError, match=message):
        plan_with(1)
    with pytest.raises(BadInputError, match=message):
        plan_with(-100)  # not even enough for what is written
