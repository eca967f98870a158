import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evenslice.errors import BadInputError
from evenslice.learn.losses import check_loss, dice_loss, segmentation_loss
from evenslice.options import TrainOptions


def draw(classes: int, seed: int = 0, side: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, side, side, generator=random, dtype=torch.float64)
    return logits, torch.randint(0, max(2, classes), (2, side, side), generator=random)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_perfect_prediction_costs_nothing_and_its_opposite_much(classes):
    logits, target = draw(classes)
    hot = torch.nn.functional.one_hot(target, max(2, classes)).permute(0, 3, 1, 2).to(logits)
    right = 60 * (hot[:, 1:] if classes == 1 else hot) - 30
    assert segmentation_loss(right, target).item() == pytest.approx(0, abs=1e-6)
    assert segmentation_loss(-right, target).item() > 10


def test_foreground_by_hand():
    logits = torch.tensor(
        [[[[0.0, math.log(3)]]]], dtype=torch.float64
    )  # probabilities 1/2 and 3/4
    target = torch.tensor([[[1, 0]]])
    entropy = (math.log(2) + math.log(4)) / 2
    dice = (2 * 0.5 + 1) / (0.5 + 0.75 + 1 + 1)
    assert segmentation_loss(logits, target).item() == pytest.approx(entropy + 1 - dice)


def test_classes_by_hand():
    logits = torch.log(
        torch.tensor([[[[0.5, 0.2]], [[0.25, 0.2]], [[0.25, 0.6]]]], dtype=torch.float64)
    )
    target = torch.tensor([[[1, 2]]])
    entropy = -(math.log(0.25) + math.log(0.6)) / 2
    dice = ((2 * 0.25 + 1) / (0.45 + 1 + 1) + (2 * 0.6 + 1) / (0.85 + 1 + 1)) / 2
    assert segmentation_loss(logits, target).item() == pytest.approx(entropy + 1 - dice)


def test_dice_is_taken_over_the_whole_batch():
    probability = torch.tensor([[[[1.0]]], [[[0.0]]]])
    truth = torch.tensor([[[[1.0]]], [[[1.0]]]])
    assert dice_loss(probability, truth).item() == pytest.approx(1 - (2 + 1) / (3 + 1))
    assert dice_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)).item() == 0


@pytest.mark.parametrize("classes", [1, 4])
def test_pixels_that_are_ignored_have_no_gradient_and_no_weight(classes):
    logits, target = draw(classes)
    target[:, :3] = -1
    logits.requires_grad_()
    loss = segmentation_loss(logits, target)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[:, :, :3].any()
    assert gradient[:, :, 3:].all()
    cropped = segmentation_loss(logits[:, :, 3:], target[:, 3:])
    assert loss.item() == pytest.approx(cropped.item(), rel=1e-12)


@pytest.mark.parametrize("classes", [1, 3])
def test_nothing_to_learn_from_is_0_and_can_be_differentiated(classes):
    logits, target = draw(classes)
    logits.requires_grad_()
    loss = segmentation_loss(logits, torch.full_like(target, -1))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


@settings(derandomize=True, deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 5]), st.integers(0, 3))
def test_the_loss_does_not_depend_on_how_patches_lie(seed, classes, quarters):
    logits, target = draw(classes, seed)
    reorder_axes = segmentation_loss(
        torch.rot90(logits, quarters, (2, 3)), torch.rot90(target, quarters, (1, 2))
    )
    assert reorder_axes.item() == pytest.approx(segmentation_loss(logits, target).item(), rel=1e-12)
    swapped = segmentation_loss(logits.flip(0), target.flip(0))
    assert swapped.item() == pytest.approx(reorder_axes.item(), rel=1e-12)


@pytest.mark.parametrize("classes", [1, 3])
def test_following_the_gradient_lowers_the_loss(classes):
    logits, target = draw(classes)
    logits.requires_grad_()
    before = segmentation_loss(logits, target)
    (gradient,) = torch.autograd.grad(before, logits)
    assert segmentation_loss(logits - 0.1 * gradient, target) < before


def test_two_classes_and_one_logit_agree():
    logits, target = draw(1)
    both = torch.cat([torch.zeros_like(logits), logits], 1)
    assert segmentation_loss(both, target).item() == pytest.approx(
        segmentation_loss(logits, target).item()
    )


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("weights", [None, "some"])
def test_a_sum_is_the_sum_of_its_parts(classes, weights):
    logits, target = draw(classes)
    target[0, 0] = -1
    weights = None if weights is None else [0.5, 2.0, 7.0][: max(2, classes)]
    whole, entropy, dice = (
        segmentation_loss(logits, target, kind, weights).item()
        for kind in ("ce+dice", "ce", "dice")
    )
    assert whole == pytest.approx(entropy + dice, rel=1e-12)
    assert min(entropy, dice) > 0
    assert segmentation_loss(logits, target, weights=weights).item() == whole
    assert segmentation_loss(logits, target, "bce+dice", weights).item() == whole
    assert dice == segmentation_loss(logits, target, "dice").item()


def test_entropy_with_weights_by_hand():
    logits = torch.tensor([[[[0.0, math.log(3), 5.0]]]], dtype=torch.float64)
    target = torch.tensor([[[1, 0, -1]]])
    expected = (3 * math.log(2) + 1 * math.log(4)) / 4
    assert segmentation_loss(logits, target, "bce", [1.0, 3.0]).item() == pytest.approx(expected)
    both = torch.cat([torch.zeros_like(logits), logits], 1)
    assert segmentation_loss(both, target, "ce", [1.0, 3.0]).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("classes", "settings", "message"),
    [
        (3, {"loss": "bce"}, "--loss is 'bce' for 3 classes, .*; use ce$"),
        (3, {"loss": "bce+dice"}, r"use ce\+dice$"),
        (3, {"class_weights": [1.0, 2.0]}, "holds 2 numbers, expected 3"),
        (1, {"class_weights": [1.0]}, "holds 1 numbers, expected 2"),
        (1, {"class_weights": [1.0, 2.0], "loss": "dice"}, "expected a loss with cross-entropy"),
    ],
)
def test_a_loss_that_does_not_fit_the_classes_is_said(classes, settings, message):
    with pytest.raises(BadInputError, match=message):
        check_loss(TrainOptions(**settings), classes)


def test_losses_that_fit_pass():
    check_loss(TrainOptions(loss="bce", class_weights=[1.0, 2.0]), 1)
    check_loss(TrainOptions(class_weights=[1.0, 2.0, 3.0]), 3)
