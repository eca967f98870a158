"""Controls of the instrument."""

import numpy as np
import pytest
import scenes
import torch
from torch import nn

from evenslice.evidence.checks import randomised, run_checks
from evenslice.model.stem.find import find_stems
from evenslice.volume.normalisation import Normalisation


def scene_of(module, slices=3, normalisation=None):
    return scenes.scene_of(
        module, slices, normalisation or Normalisation((10.0,), (5.0,)), baseline=10.0
    )


@pytest.fixture
def windows():
    return [np.random.default_rng(n).normal(10, 5, (3, 32, 32)) for n in range(2)]


def test_a_leaning_model_has_even_twins_and_leans_on_identical_slices(windows):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 1, 3))
    network[0].weight.data[:, 0] *= 4
    found = run_checks(scene_of(network), windows)
    assert found["mirror_twin"].passed
    assert found["random_weights"].passed
    assert found["identical_slices"].value < -0.3
    assert found["stem_norms"].value > 1.0
    assert found["uniform_normalisation"].passed


def test_normalisation_that_differs_by_slot_fails_its_check(windows):
    network = nn.Conv2d(3, 1, 1)
    found = run_checks(
        scene_of(network, normalisation=Normalisation((1.0, 2.0, 4.0), (1.0, 1.0, 1.5))), windows
    )
    check = found["uniform_normalisation"]
    assert (check.passed, check.value) == (False, pytest.approx(3.5))


class Residual(nn.Module):
    """Normalises each channel by its own constants: no stem of it can be made even."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1))
        self.conv = nn.Conv2d(3, 1, 3)

    def forward(self, x):
        return self.conv(x - self.mean)


def test_a_model_without_an_even_twin_is_unmeasured_with_the_reason(windows):
    found = run_checks(scene_of(Residual()), windows)
    assert found["mirror_twin"].passed is None
    assert "no even twin" in found["mirror_twin"].reason


def test_one_slice_has_nothing_to_compare():
    found = run_checks(scene_of(nn.Conv2d(1, 1, 3), slices=1), [np.ones((1, 16, 16))])
    assert found["mirror_twin"].passed is None
    assert found["identical_slices"].value is None


def test_everything_but_the_stem_is_drawn_anew():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 1, 3))
    shuffled = randomised(network, 3)
    assert torch.equal(shuffled[0].weight, network[0].weight)
    assert not torch.equal(shuffled[2].weight, network[2].weight)
    assert [s.name for s in find_stems(shuffled)] == ["0"]
