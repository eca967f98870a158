"""The halo of a network: enough, small, and none where every pixel changes every answer."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from evenslice.model.tile_limits import find_halo


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

    def __init__(self, middle, channels=2, stride=1, aligned=None):
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, stride, 1)
        self.last = nn.Conv2d(channels, 1, 3, padding=1)
        self.middle, self.aligned = middle, aligned

    def forward(self, x):
        y = self.middle(self.first(x))
        if self.aligned is not None:
            y = functional.interpolate(
                y, size=x.shape[-2:], mode="bilinear", align_corners=self.aligned
            )
        return self.last(y)


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.weigh = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return x * self.weigh(x.relu().mean((2, 3), keepdim=True)).sigmoid()


class Attention(nn.Module):
    """Every patch of 32 looks at all of them."""

    def forward(self, x):
        tokens = functional.avg_pool2d(x, 32).flatten(2).transpose(1, 2)
        weights = (50 * tokens @ tokens.transpose(1, 2)).softmax(-1)
        mixed = (
            (weights @ tokens).transpose(1, 2).unflatten(2, (x.shape[2] // 32, x.shape[3] // 32))
        )
        return x + functional.interpolate(mixed, scale_factor=32)


@pytest.mark.parametrize(
    ("module", "stride", "halo"),
    [
        (nn.Conv2d(1, 1, 1), 1, 0),
        (nn.Conv2d(1, 1, 7, padding=3), 1, 3),
        (nn.Conv2d(1, 1, 7, padding=3), 8, 8),
        (nn.Conv2d(1, 1, 3, padding=9, dilation=9), 1, 9),
        (
            nn.Sequential(nn.Conv2d(1, 2, 5, padding=2), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1)),
            1,
            3,
        ),
    ],
    ids=["point", "7 x 7", "7 x 7 in eights", "dilated", "two layers"],
)
def test_the_halo_of_convolutions_is_their_reach(module, stride, halo):
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
    [Gate(), nn.GroupNorm(1, 2), nn.InstanceNorm2d(2), Attention()],
    ids=["gate", "group", "instance", "attention"],
)
def test_where_every_pixel_changes_every_answer_there_is_none(middle):
    assert halo_of(Between(nn.Identity())) == 2
    assert halo_of(Between(middle), largest=1024) is None


def test_aligned_corners_depend_on_the_size_of_the_picture():
    assert halo_of(Between(nn.Identity(), stride=4, aligned=False), 4) in (4, 8, 12)
    assert halo_of(Between(nn.Identity(), stride=4, aligned=True), 4, largest=1024) is None


def test_a_wide_reach_is_looked_for_in_a_larger_picture():
    wide = nn.Conv2d(1, 1, 3, padding=200, dilation=200)
    assert halo_of(wide, largest=512) is None
    assert halo_of(wide, largest=1024) == 200
    assert halo_of(nn.Conv2d(1, 1, 1), largest=511) is None  # no picture may be that large


def test_a_network_that_knows_where_it_is_has_none():
    class Ramp(nn.Module):
        def forward(self, x):
            return x + torch.linspace(0, 1, x.shape[-1])

    assert halo_of(Ramp()) is None


def test_a_tile_with_the_halo_found_equals_the_whole():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 2, 9, padding=4), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1)
    ).eval()
    halo, run = halo_of(net), run_of(net)
    picture = np.random.default_rng(5).normal(size=(1, 1, 90, 90)).astype(np.float32)
    whole, part = run(picture), run(picture[..., 20:70, 20:70])
    inner = slice(halo, 50 - halo)
    np.testing.assert_allclose(
        part[..., inner, inner], whole[..., 20 + halo : 70 - halo, 20 + halo : 70 - halo], atol=1e-6
    )
    assert np.abs(part - whole[..., 20:70, 20:70]).max() > 1e-3
