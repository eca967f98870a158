"""Attribution: linear models, paths and games that can be solved by hand, and what captum finds."""

from itertools import permutations

import captum.attr
import numpy as np
import pytest
import torch
from small_networks import curved, explained, linear, on_volume
from torch import nn

from evenslice.errors import BadInputError
from evenslice.evidence.attribution import (
    METHODS,
    Arranged,
    ablated_margins,
    centre_copies,
    check_methods,
    default_methods,
    gradient,
    importance_of,
    integrated_gradients,
    nested_rule,
    runs_needed,
    shapley_values,
    shapley_weights,
    smoothgrad,
)
from evenslice.evidence.sampling import slice_orders
from evenslice.volume.normalisation import Normalisation

WEIGHTS = [1.0, -2.0, 0.5]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def perturbed(subject, x, coefficients, margins):
    """Return ablation, Shapley values and their incompleteness."""
    ablated = ablated_margins(subject, x, coefficients)
    effect = (margins - ablated).abs().sum((2, 3)).T.numpy()
    return effect, *shapley_values(subject, x, coefficients, margins, ablated)


def by_method(subject, x, method):
    """Return the importance (N, S) of windows and what else was found, through the one door."""
    coefficients, margins = explained(subject, x)
    slopes = gradient(subject, x, coefficients)
    logits, orders = subject.logits(x), slice_orders(x.shape[1])
    arranged = Arranged(x.numpy(), x, coefficients, logits, margins, orders, [], slopes)
    return importance_of(subject, arranged, [method], 0)


class Function(nn.Module):
    """A network that is a function of the window."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


@pytest.mark.parametrize("classes", [1, 2])
def test_the_gradient_of_a_linear_model_is_its_weights(classes):
    subject, x = on_volume(linear(WEIGHTS, classes=classes)), torch.randn(5, 3, 8, 9)
    found = gradient(subject, x, explained(subject, x)[0]).abs()
    expected = classes * 72 * torch.tensor([[1.0, 2.0, 0.5]] * 5)
    torch.testing.assert_close(found.sum((2, 3)), expected)


def test_a_linear_model_integrates_to_weight_times_distance():
    subject, x = on_volume(linear(WEIGHTS), baseline=0.25), torch.randn(4, 3, 8, 9)
    coefficients, margins = explained(subject, x)
    found = integrated_gradients(subject, x, coefficients, 2, margins)
    expected = (x - 0.25) * torch.tensor(WEIGHTS)[:, None, None] * coefficients
    torch.testing.assert_close(found.attribution, expected, rtol=1e-4, atol=1e-5)
    alone = by_method(subject, x, "input-x-gradient").slots["input-x-gradient"]
    np.testing.assert_allclose(alone, expected.abs().sum((2, 3)), rtol=1e-4)
    assert found.nodes == 7  # from 3 to 7 no share changed
    assert found.incompleteness.max() < 1e-5


def test_a_curved_path_is_refined_until_the_shares_stop_changing():
    power = Function(lambda x: (x[:, :1] ** 5 + x[:, 1:2] + 0.5 * x[:, 2:]) * torch.ones(1))
    subject, x = on_volume(power, batch=2), 1 + torch.rand(2, 3, 4, 4)
    coefficients, margins = explained(subject, x)
    found = integrated_gradients(subject, x, coefficients, 1, margins)
    sums = found.attribution.sum((2, 3)).numpy()
    fifth = (x[:, 0] ** 5).sum((1, 2))  # the integral of 5 x^4 from 0 to x
    np.testing.assert_allclose(sums[:, 0], fifth, rtol=0.01)
    np.testing.assert_allclose(sums[:, 1], x[:, 1].sum((1, 2)), rtol=1e-5)
    assert found.nodes == 7  # 3 are exact up to degree 5
    assert found.incompleteness.max() < 1e-5


def test_a_path_is_refined_until_the_attribution_adds_up_though_no_share_changes():
    kinked = on_volume(Function(lambda x: (x[:, :1] - 0.37).relu() + 0 * x[:, 1:2]))
    x = torch.ones(1, 3, 2, 2)
    found = integrated_gradients(kinked, x, *explained(kinked, x)[:1], 1, explained(kinked, x)[1])
    assert found.nodes > 7
    assert found.incompleteness.max() < 0.01


@pytest.mark.parametrize("level", range(5))
def test_a_nested_rule_keeps_the_nodes_before_and_integrates_polynomials(level):
    nodes, weights = nested_rule(level)
    degree = 5 if level == 0 else 3 * (len(nodes) // 2) + 1
    exact = [2 / (power + 1) if power % 2 == 0 else 0 for power in range(degree + 1)]
    found = [np.dot(weights, np.power(nodes, power)) for power in range(degree + 1)]
    np.testing.assert_allclose(found, exact, atol=1e-13)
    assert min(weights) > 0
    assert level == 0 or nodes[1::2] == nested_rule(level - 1)[0]


def test_a_window_that_is_done_is_left_while_others_are_refined():
    kinked = Function(lambda x: (4 * x[:, :1] - 1.37).relu() + x[:, 1:2] + 0.5 * x[:, 2:])
    subject = on_volume(kinked, batch=8)
    # Two windows of two arrangements; the first never reaches the kink.
    x = torch.full((4, 3, 2, 2), 0.1)
    x[2:] = torch.tensor([1.0, 1.1])[:, None, None, None]
    coefficients, margins = explained(subject, x)
    together = integrated_gradients(subject, x, coefficients, 2, margins)
    alone = [
        integrated_gradients(subject, x[part], coefficients[part], 2, margins[part])
        for part in (slice(0, 2), slice(2, 4))
    ]
    assert alone[0].nodes == 7 < alone[1].nodes == together.nodes
    torch.testing.assert_close(together.attribution, torch.cat([one.attribution for one in alone]))


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients:UserWarning")
@pytest.mark.parametrize("classes", [1, 3])
def test_captum_finds_the_same_gradients(classes):
    network, x = curved(classes=classes).double(), torch.randn(2, 3, 10, 11, dtype=torch.float64)
    subject = on_volume(network)
    coefficients, margins = explained(subject, x)

    def number(inputs):
        return (coefficients.repeat(len(inputs) // 2, 1, 1, 1) * network(inputs)).sum((1, 2, 3))

    def assert_close(found, expected, near):
        expected = expected.detach()
        near_zero = near * float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=near, atol=near_zero)

    saliency = captum.attr.Saliency(number).attribute(x.clone())
    assert_close(gradient(subject, x, coefficients).abs(), saliency, 1e-9)
    product = captum.attr.InputXGradient(number).attribute(x.clone()).detach()
    alone = by_method(subject, x, "input-x-gradient").slots["input-x-gradient"]
    np.testing.assert_allclose(alone, product.abs().sum((2, 3)), rtol=1e-9)
    theirs = captum.attr.IntegratedGradients(number).attribute(
        x.clone(), n_steps=200, method="gausslegendre"
    )
    ours = integrated_gradients(subject, x, coefficients, 2, margins).attribution
    assert_close(ours, theirs, 0.01)
    sizes = [found.detach().abs() for found in (ours, theirs)]
    shares = [size.sum((2, 3)) / size.sum((1, 2, 3))[:, None] for size in sizes]
    assert float((shares[0] - shares[1]).abs().max()) < 0.002


@pytest.mark.parametrize("classes", [1, 3])
def test_captum_finds_the_same_ablation_and_shapley_values_at_a_pixel(classes):
    network, x = curved(classes=classes).double(), torch.randn(1, 3, 6, 6, dtype=torch.float64)
    subject = on_volume(network, baseline=0.3)
    one = torch.zeros_like(explained(subject, x)[0])
    one[..., 2, 4] = explained(subject, x)[0][..., 2, 4]
    ablation, shapley, _ = perturbed(subject, x, one, (one * network(x)).sum(1).detach())
    slots = torch.arange(3)[None, :, None, None].repeat(1, 1, 6, 6)
    for method, ours in (("ShapleyValues", shapley), ("FeatureAblation", ablation)):
        explainer = getattr(captum.attr, method)(lambda x: (one * network(x)).sum((1, 2, 3)))
        baseline = torch.full_like(x, 0.3)
        theirs = explainer.attribute(x, baselines=baseline, feature_mask=slots)
        np.testing.assert_allclose(ours[0], theirs[0, :, 0, 0].abs(), rtol=1e-5)


def test_the_noise_of_smoothgrad_is_arranged_with_the_slices():
    subject, x = on_volume(curved(seed=1)), torch.randn(1, 3, 8, 8)
    pair, orders = torch.cat([x, x.flip(1)]), slice_orders(3)
    coefficients = explained(subject, pair)[0][:1].expand(2, -1, -1, -1)
    one = smoothgrad(subject, pair, coefficients, orders, 0)
    back = smoothgrad(subject, pair.flip(0), coefficients, orders, 0)
    torch.testing.assert_close(one, back.flip(0), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(one, smoothgrad(subject, pair, coefficients, orders, 1))
    flat = smoothgrad(on_volume(linear(WEIGHTS)), pair, coefficients, orders, 0)
    torch.testing.assert_close(flat.mean((2, 3)), torch.tensor([[1.0, 2.0, 0.5]] * 2))


def test_the_batch_does_not_matter():
    x = torch.randn(5, 3, 8, 8)
    one, other = (on_volume(curved(), batch=n) for n in (1, 5))
    coefficients, margins = explained(one, x)
    torch.testing.assert_close(gradient(one, x, coefficients), gradient(other, x, coefficients))
    a, b = (integrated_gradients(s, x, coefficients, 1, margins) for s in (one, other))
    torch.testing.assert_close(a.attribution, b.attribution)


@pytest.mark.parametrize("weights", [WEIGHTS, [0.1, 0.2, 1.0, -0.2, 0.3], [2.0]])
def test_an_ablated_linear_model_loses_weight_times_distance(weights):
    slices = len(weights)
    subject = on_volume(linear(weights, bias=0.3), slices, baseline=0.25)
    x = torch.randn(3, slices, 8, 9)
    ablation, shapley, incompleteness = perturbed(subject, x, *explained(subject, x))
    expected = ((x - 0.25) * torch.tensor(weights)[:, None, None]).abs().double().sum((2, 3))
    np.testing.assert_allclose(ablation, expected, rtol=1e-4)
    np.testing.assert_allclose(shapley, expected, rtol=1e-4)
    assert incompleteness.max() < 1e-9


def test_a_slot_that_moves_half_of_the_pixels_up_and_half_down_counts():
    """The change of the sum over pixels would be 0: why importance is summed over pixels."""
    subject = on_volume(linear([0.0, 1.0, 1.0], bias=5.0))
    x = torch.zeros(1, 3, 1, 2)
    x[0, 2, 0] = torch.tensor([1.0, -1.0])
    coefficients, margins = explained(subject, x)
    assert float(margins.sum()) == 10.0  # as without the slot
    for effect in perturbed(subject, x, coefficients, margins)[:2]:
        np.testing.assert_allclose(effect, [[0.0, 0.0, 2.0]], atol=1e-9)


def test_a_product_is_divided_between_its_factors():
    product = Function(lambda x: x[:, :1] * x[:, 2:] + 0 * x[:, 1:2])
    subject, x = on_volume(product), torch.tensor([3.0, 7.0, 2.0]).view(1, 3, 1, 1)
    ablation, shapley, _ = perturbed(subject, x, *explained(subject, x))
    assert shapley.tolist() == [[3.0, 0.0, 3.0]]
    assert ablation.tolist() == [[6.0, 0.0, 6.0]]


@pytest.mark.parametrize("slices", [1, 3, 5])
def test_shapley_weights_are_those_of_all_orders(slices):
    game = np.random.default_rng(0).normal(size=2**slices)
    found, expected = np.zeros(slices), np.zeros(slices)
    for members in range(2**slices):
        found += game[members] * np.array(shapley_weights(members, slices))
    orders = list(permutations(range(slices)))
    for order in orders:
        inside = 0
        for slot in order:
            expected[slot] += (game[inside | 1 << slot] - game[inside]) / len(orders)
            inside |= 1 << slot
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_copies_of_the_centre_change_nothing_where_slices_are_alike():
    subject = on_volume(curved(5), 5, Normalisation((10.0,), (3.0,)))
    raw = np.random.default_rng(0).normal(10, 3, (2, 5, 8, 8))
    raw[0] = raw[0, 2]
    found = centre_copies(subject, raw, *explained(subject, subject.normalised(raw)))
    assert found[0].max() < 1e-5
    assert found[1, 2] == 0
    assert (found[1, [0, 1, 3, 4]] > 0.1).all()


def test_a_linear_model_loses_the_difference_to_the_centre():
    subject = on_volume(linear(WEIGHTS), norm=Normalisation((10.0,), (2.0,)))
    raw = np.random.default_rng(0).normal(10, 3, (2, 3, 8, 8))
    found = centre_copies(subject, raw, *explained(subject, subject.normalised(raw)))
    for slot, weight in ((0, 1.0), (2, 0.5)):
        expected = weight * np.abs(raw[:, slot] - raw[:, 1]).sum((1, 2)) / 2
        np.testing.assert_allclose(found[:, slot], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("methods", "slices", "runs"),
    [
        (["ablation"], 3, 3),
        (["ablation", "shapley", "ablation-copy"], 3, 7 + 2),
        (["shapley"], 9, 511),
        (["gradient"], 3, 0),
    ],
)
def test_runs_are_counted(methods, slices, runs):
    assert runs_needed(methods, slices) == runs


def test_methods_are_taken_once_each_in_the_order_asked():
    named = ["gradient", "reversal", "ablation", "gradient"]
    assert check_methods(named, 3, True) == ("gradient", "ablation")
    assert check_methods(["reversal"], 3, True) == ()
    assert check_methods(METHODS, 3, True) == METHODS


def test_default_methods_follow_the_model():
    assert default_methods(3, True) == METHODS[:5]
    assert "shapley" not in default_methods(7, True)
    assert "ablation-copy" not in default_methods(1, True)
    assert default_methods(3, False) == METHODS[:3]


@pytest.mark.parametrize(
    ("methods", "slices", "differentiable", "message"),
    [
        (["zebra", "apple", "gradient"], 3, True, "apple, zebra is unknown, expected reversal"),
        ([], 3, True, r"\(none\) is unknown"),
        (["gradient", "ablation"], 3, False, "gradient needs gradients, .* expected ablation"),
        (["ablation-copy"], 1, True, "expected a model of 3 slices or more"),
    ],
)
def test_methods_that_the_model_does_not_allow_are_refused(
    methods, slices, differentiable, message
):
    with pytest.raises(BadInputError, match=message):
        check_methods(methods, slices, differentiable)
