"""Sanity checks of an audit."""

import numpy as np
import pytest
import torch
from small_networks import curved, on_volume
from torch import nn

from evenslice.evidence.checks import agreement_check, randomised, run_checks
from evenslice.evidence.result import MethodResult
from evenslice.evidence.stats import Interval
from evenslice.model.stem.find import find_stems
from evenslice.volume.normalisation import Normalisation

NORM = Normalisation((10.0,), (5.0,))


@pytest.fixture
def windows():
    return [np.random.default_rng(n).normal(10, 5, (3, 32, 32)) for n in range(2)]


def test_an_asymmetric_model_has_symmetric_copies_and_is_asymmetric_on_identical_slices(windows):
    network = curved()
    network[0].weight.data[:, 0] *= 4
    found = run_checks(on_volume(network, norm=NORM, baseline=10.0), windows)
    assert found["mirror_twin"].passed
    assert found["random_weights"].passed
    assert found["identical_slices"].value < -0.3
    assert found["stem_norms"].value > 1.0
    assert found["uniform_normalisation"].passed


def test_normalisation_that_differs_by_slot_fails_its_check(windows):
    norm = Normalisation((1.0, 2.0, 4.0), (1.0, 1.0, 1.5))
    check = run_checks(on_volume(nn.Conv2d(3, 1, 1), norm=norm), windows)["uniform_normalisation"]
    assert (check.passed, check.value) == (False, pytest.approx(3.5))


class Centred(nn.Module):
    """Subtracts constants of each channel: no stem of it can be made symmetric."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1))
        self.conv = nn.Conv2d(3, 1, 3)

    def forward(self, x):
        return self.conv(x - self.mean)


def test_a_model_without_a_symmetric_copy_is_unmeasured_with_the_reason(windows):
    found = run_checks(on_volume(Centred(), norm=NORM), windows)
    assert found["mirror_twin"].passed is None
    assert "no symmetric copy" in found["mirror_twin"].reason


def test_one_slice_has_nothing_to_compare():
    found = run_checks(on_volume(nn.Conv2d(1, 1, 3), slices=1), [np.ones((1, 16, 16))])
    assert found["mirror_twin"].passed is None
    assert found["identical_slices"].value is None


def test_everything_but_the_stem_is_randomised():
    network = curved()
    drawn = randomised(network, 3)
    assert torch.equal(drawn[0].weight, network[0].weight)
    assert not torch.equal(drawn[2].weight, network[2].weight)
    assert [stem.name for stem in find_stems(drawn)] == ["0"]


def of(verdict, value=0.0):
    at = Interval(value, value, value)
    return MethodResult((at,) * 3, (at,), None if verdict == "none" else at, verdict)


@pytest.mark.parametrize(
    ("methods", "value", "passed", "reason"),
    [
        ({}, None, None, "fewer than two"),
        ({"a": of("asymmetric", 0.3), "b": of("abstained", 0.9)}, None, None, "fewer than two"),
        ({"a": of("asymmetric", 0.3), "b": of("none")}, None, None, "fewer than two"),
        ({"a": of("symmetric", 0.01), "b": of("symmetric", -0.02)}, 0.03, True, "methods"),
        ({"a": of("asymmetric", 0.3), "b": of("asymmetric", 0.1)}, 0.2, True, "methods"),
        (
            {"b": of("asymmetric", 0.3), "a": of("asymmetric", -0.1)},
            0.4,
            None,
            "a, b find asymmetry to different sides",
        ),
        (
            {"b": of("asymmetric", 0.3), "a": of("symmetric", 0.0)},
            0.3,
            None,
            "asymmetric by b, symmetric by a",
        ),
    ],
)
def test_methods_that_contradict_each_other_are_named(methods, value, passed, reason):
    found = agreement_check(methods)
    assert found.value == (value if value is None else pytest.approx(value))
    assert found.passed is passed
    assert reason in found.reason
