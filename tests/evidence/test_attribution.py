"""Gradients: what is known of linear models, of paths that can be integrated by hand, and what captum finds."""

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency
from scenes import asked, bent, linear, scene_of
from torch import nn

from evenslice.evidence.gradients import (
    explaining,
    gradient,
    input_x_gradient,
    integrated_gradients,
    smoothgrad,
)
from evenslice.evidence.sampling import slice_orders


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_a_linear_model_shares_as_its_weights():
    scene, x = scene_of(linear([1.0, -2.0, 0.5])), torch.randn(5, 3, 8, 9)
    found = gradient(scene, x, asked(scene, x)[0])
    torch.testing.assert_close(found.sum((2, 3)), 72 * torch.tensor([[1.0, 2.0, 0.5]] * 5))


def test_two_opposite_classes_share_alike():
    scene, x = scene_of(linear([1.0, -2.0, 0.5], classes=2)), torch.randn(2, 3, 8, 9)
    found = gradient(scene, x, asked(scene, x)[0])
    torch.testing.assert_close(found.sum((2, 3)) / 72, 2 * torch.tensor([[1.0, 2.0, 0.5]] * 2))


def test_a_linear_model_integrates_to_weight_times_distance():
    scene, x = scene_of(linear([1.0, -2.0, 0.5]), baseline=0.25), torch.randn(4, 3, 8, 9)
    coefficients, full = asked(scene, x)
    found = integrated_gradients(scene, x, coefficients, 2, full)
    expected = (x - 0.25) * torch.tensor([1.0, -2.0, 0.5])[:, None, None] * coefficients
    torch.testing.assert_close(found.attribution, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        input_x_gradient(scene, x, coefficients), expected, rtol=1e-4, atol=1e-5
    )
    assert found.steps == 8  # twice four: nothing moved
    assert found.incompleteness.max() < 1e-5


def test_a_path_that_bends_is_followed_until_the_shares_stand_still():
    class Cubed(nn.Module):
        def forward(self, x):
            return (x[:, :1] ** 5 + x[:, 1:2] + 0.5 * x[:, 2:]) * torch.ones(1)

    scene, x = scene_of(Cubed(), at_once=2), 1 + torch.rand(2, 3, 4, 4)
    coefficients, full = asked(scene, x)
    found = integrated_gradients(scene, x, coefficients, 1, full)
    sums = found.attribution.sum((2, 3)).numpy()
    np.testing.assert_allclose(
        sums[:, 0], (x[:, 0] ** 5).sum((1, 2)), rtol=0.01
    )  # of 5 x^4 from 0 to x
    np.testing.assert_allclose(sums[:, 1], x[:, 1].sum((1, 2)), rtol=1e-5)
    assert 8 < found.steps <= 64
    assert 0 < found.incompleteness.max() < 0.01


def test_a_window_that_stands_still_is_left_while_others_are_followed():
    class Kinked(nn.Module):
        def forward(self, x):
            return (4 * x[:, :1] - 1.37).relu() + x[:, 1:2] + 0.5 * x[:, 2:]

    scene = scene_of(Kinked(), at_once=8)
    x = torch.full(
        (4, 3, 2, 2), 0.1
    )  # two windows of two arrangements; the first never reaches the kink
    x[2:] = torch.tensor([1.0, 1.1])[:, None, None, None]
    coefficients, full = asked(scene, x)
    together = integrated_gradients(scene, x, coefficients, 2, full)
    alone = [
        integrated_gradients(scene, x[p], coefficients[p], 2, full[p])
        for p in (slice(0, 2), slice(2, 4))
    ]
    assert alone[0].steps == 8 < alone[1].steps == together.steps
    torch.testing.assert_close(together.attribution, torch.cat([one.attribution for one in alone]))


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients:UserWarning")
@pytest.mark.parametrize("classes", [1, 3])
def test_captum_finds_the_same(classes):
    network, x = bent(classes=classes).double(), torch.randn(2, 3, 10, 11, dtype=torch.float64)
    scene = scene_of(network)
    coefficients, full = asked(scene, x)

    def explained(inputs):
        return (coefficients.repeat(len(inputs) // 2, 1, 1, 1) * network(inputs)).sum((1, 2, 3))

    def close(found, expected, near):
        torch.testing.assert_close(
            found, expected, rtol=near, atol=near * float(expected.abs().max())
        )

    close(gradient(scene, x, coefficients), Saliency(explained).attribute(x.clone()).detach(), 1e-9)
    close(
        input_x_gradient(scene, x, coefficients),
        InputXGradient(explained).attribute(x.clone()).detach(),
        1e-9,
    )
    theirs = IntegratedGradients(explained).attribute(
        x.clone(), n_steps=200, method="gausslegendre"
    )
    ours = integrated_gradients(scene, x, coefficients, 2, full).attribution
    theirs = theirs.detach()
    close(ours, theirs, 0.01)
    shares = [a.abs().sum((2, 3)) / a.abs().sum((1, 2, 3))[:, None] for a in (ours, theirs)]
    assert float((shares[0] - shares[1]).abs().max()) < 0.002


def test_smoothgrad_turns_its_noise_with_the_slices():
    scene, x = scene_of(bent(seed=1)), torch.randn(1, 3, 8, 8)
    pair = torch.cat([x, x.flip(1)])
    coefficients = asked(scene, pair)[0][:1].expand(2, -1, -1, -1)
    one = smoothgrad(scene, pair, coefficients, slice_orders(3), 0)
    back = smoothgrad(scene, pair.flip(0), coefficients, slice_orders(3), 0)
    torch.testing.assert_close(one, back.flip(0), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(one, smoothgrad(scene, pair, coefficients, slice_orders(3), 1))
    flat = scene_of(linear([1.0, -2.0, 0.5]))
    torch.testing.assert_close(
        smoothgrad(flat, pair, coefficients, slice_orders(3), 0).mean((2, 3)),
        torch.tensor([[1.0, 2.0, 0.5]] * 2),
    )


def test_the_parts_that_go_through_together_do_not_matter():
    x = torch.randn(5, 3, 8, 8)
    one, other = (scene_of(bent(), at_once=n) for n in (1, 5))
    coefficients, full = asked(one, x)
    torch.testing.assert_close(gradient(one, x, coefficients), gradient(other, x, coefficients))
    a, b = (integrated_gradients(s, x, coefficients, 1, full) for s in (one, other))
    torch.testing.assert_close(a.attribution, b.attribution)


def test_the_network_is_left_as_it_was():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 1, 1)
    ).train()
    model[1].eval()
    model[3].weight.requires_grad_(False)
    with explaining(model):
        assert not any(p.requires_grad for p in model.parameters())
        assert not any(m.training for m in model.modules())
    assert [m.training for m in model.modules()] == [True, True, False, True, True]
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, True, False, True]
    with pytest.raises(RuntimeError, match="stop"), explaining(model):
        raise RuntimeError("stop")
    assert model.training
