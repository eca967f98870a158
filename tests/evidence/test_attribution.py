"""Gradients: what is known of linear models, and what is left as it was."""

import pytest
import torch
from torch import nn

from evenslice.evidence.attribution import decision, explaining, gradient


def linear(weights, bias=0.0, classes=1):
    conv = nn.Conv2d(len(weights), classes, 1)
    conv.weight.data = torch.tensor(weights).view(1, -1, 1, 1) * torch.linspace(1, -1, classes).view(-1, 1, 1, 1)
    conv.bias.data.fill_(bias)
    return conv.eval()


def test_a_linear_model_shares_as_its_weights():
    x = torch.randn(2, 3, 8, 9)
    found, logits = gradient(linear([1.0, -2.0, 0.5]), x, 1)
    assert found.shape == (2, 3, 8, 9)
    assert logits.shape == (2, 1, 8, 9)
    torch.testing.assert_close(found.sum((2, 3)), 72 * torch.tensor([[1.0, 2.0, 0.5]] * 2))


def test_two_opposite_classes_share_alike():
    x = torch.randn(2, 3, 8, 9)
    found, _ = gradient(linear([1.0, -2.0, 0.5], classes=2), x, 1)
    torch.testing.assert_close(found.sum((2, 3)) / 72, 2 * torch.tensor([[1.0, 2.0, 0.5]] * 2))


def test_the_decision_is_the_margin_of_the_class_predicted():
    logits = torch.tensor([[3.0], [0.0], [0.0]]).view(1, 3, 1, 1)
    assert (decision(logits) * logits).sum() == 3.0
    logits = torch.tensor([[1.0], [4.0], [2.0]]).view(1, 3, 1, 1)
    assert (decision(logits) * logits).sum() == 4.0 - 1.5
    assert (decision(torch.full((1, 1, 1, 1), -2.0)) * -2.0).sum() == 2.0


def test_one_decision_for_all_arrangements():
    # The logit is x0 - x2: it changes sign under the reversal; each arrangement on its own would be explained with another sign.
    model = linear([1.0, 0.0, -1.0], bias=0.1)
    x = torch.randn(1, 3, 8, 8)
    pair = torch.cat([x, x.flip(1)])
    found, logits = gradient(model, pair, 1)
    back, _ = gradient(model, pair.flip(0), 1)
    assert (logits[0].sign() != logits[1].sign()).any()
    torch.testing.assert_close(found.flip(0), back, rtol=0, atol=0)


def test_padding_does_not_lose_importance():
    x = torch.randn(1, 3, 7, 7)
    found, logits = gradient(linear([1.0, 1.0, 2.0]), x, 8)
    assert logits.shape == (1, 1, 7, 7)
    torch.testing.assert_close(found.sum((2, 3)), 49 * torch.tensor([[1.0, 1.0, 2.0]]))


def test_the_network_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 1, 1)).train()
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
