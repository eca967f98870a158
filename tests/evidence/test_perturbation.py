"""Slices taken away: linear models, games that can be solved by hand, and captum."""

from itertools import permutations

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, ShapleyValues
from scenes import asked, bent, linear, scene_of
from torch import nn

from evenslice.evidence.perturbation import (
    ablate_slots,
    centre_copies,
    runs_needed,
    shapley_weights,
)
from evenslice.volume.normalisation import Normalisation


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("weights", [[1.0, -2.0, 0.5], [0.1, 0.2, 1.0, -0.2, 0.3], [2.0]])
def test_a_linear_model_loses_weight_times_distance(weights):
    slices = len(weights)
    scene, x = (
        scene_of(linear(weights, bias=0.3), slices, baseline=0.25),
        torch.randn(3, slices, 8, 9),
    )
    found = ablate_slots(scene, x, *asked(scene, x), exact=True)
    expected = ((x - 0.25) * torch.tensor(weights)[:, None, None]).abs().double().sum((2, 3))
    np.testing.assert_allclose(found.ablation, expected, rtol=1e-4)
    np.testing.assert_allclose(found.shapley, expected, rtol=1e-4)
    assert found.incompleteness.max() < 1e-9


def test_a_slot_that_moves_half_of_the_pixels_up_and_half_down_counts():
    """The change of the sum over pixels would be 0: why importance is summed over pixels."""
    scene = scene_of(linear([0.0, 1.0, 1.0], bias=5.0))
    x = torch.zeros(1, 3, 1, 2)
    x[0, 2, 0] = torch.tensor([1.0, -1.0])
    coefficients, full = asked(scene, x)
    assert float(full.sum()) == 10.0  # as without the slot
    found = ablate_slots(scene, x, coefficients, full, exact=True)
    np.testing.assert_allclose(found.ablation, [[0.0, 0.0, 2.0]], atol=1e-9)
    np.testing.assert_allclose(found.shapley, [[0.0, 0.0, 2.0]], atol=1e-9)


def test_a_product_is_divided_between_its_factors():
    class Product(nn.Module):
        def forward(self, x):
            return x[:, :1] * x[:, 2:] + 0 * x[:, 1:2]

    scene, x = scene_of(Product()), torch.tensor([3.0, 7.0, 2.0]).view(1, 3, 1, 1)
    found = ablate_slots(scene, x, *asked(scene, x), exact=True)
    assert found.shapley.tolist() == [[3.0, 0.0, 3.0]]
    assert found.ablation.tolist() == [[6.0, 0.0, 6.0]]


@pytest.mark.parametrize("slices", [1, 3, 5])
def test_the_weights_are_those_of_all_orders(slices):
    game = np.random.default_rng(0).normal(size=2**slices)
    found = np.zeros(slices)
    for members in range(2**slices):
        found += game[members] * np.array(shapley_weights(members, slices))
    expected = np.zeros(slices)
    orders = list(permutations(range(slices)))
    for order in orders:
        inside = 0
        for slot in order:
            expected[slot] += (game[inside | 1 << slot] - game[inside]) / len(orders)
            inside |= 1 << slot
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("classes", [1, 3])
def test_captum_finds_the_same_at_a_pixel(classes):
    network, x = bent(classes=classes).double(), torch.randn(1, 3, 6, 6, dtype=torch.float64)
    scene = scene_of(network, baseline=0.3)
    coefficients, _ = asked(scene, x)
    one = torch.zeros_like(coefficients)
    one[..., 2, 4] = coefficients[..., 2, 4]
    full = (one * network(x)).sum(1)
    found = ablate_slots(scene, x, one, full, exact=True)
    mask = torch.arange(3)[None, :, None, None].repeat(1, 1, 6, 6)

    def explained(inputs):
        return (one * network(inputs)).sum((1, 2, 3))

    baseline = torch.full_like(x, 0.3)
    for method, ours in ((ShapleyValues, found.shapley), (FeatureAblation, found.ablation)):
        theirs = (
            method(explained).attribute(x, baselines=baseline, feature_mask=mask)[0, :, 0, 0].abs()
        )
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-5)


def test_copies_of_the_centre_change_nothing_where_slices_are_alike():
    scene = scene_of(bent(5), 5, Normalisation((10.0,), (3.0,)))
    raw = np.random.default_rng(0).normal(10, 3, (2, 5, 8, 8))
    raw[0] = raw[0, 2]
    coefficients, full = asked(scene, scene.normalised(raw))
    found = centre_copies(scene, raw, coefficients, full)
    assert found[0].max() < 1e-5
    assert found[1, 2] == 0
    assert (found[1, [0, 1, 3, 4]] > 0.1).all()


def test_a_linear_model_loses_the_difference_to_the_centre():
    scene = scene_of(linear([1.0, -2.0, 0.5]), norm=Normalisation((10.0,), (2.0,)))
    raw = np.random.default_rng(0).normal(10, 3, (2, 3, 8, 8))
    coefficients, full = asked(scene, scene.normalised(raw))
    found = centre_copies(scene, raw, coefficients, full)
    for slot, weight in ((0, 1.0), (2, 0.5)):
        expected = weight * np.abs(raw[:, slot] - raw[:, 1]).sum((1, 2)) / 2
        np.testing.assert_allclose(found[:, slot], expected, rtol=1e-4)


def test_runs_are_counted():
    assert runs_needed(("ablation",), 3) == 3
    assert runs_needed(("ablation", "shapley", "ablation-copy"), 3) == 7 + 2
    assert runs_needed(("shapley",), 9) == 511
    assert runs_needed(("gradient",), 3) == 0
