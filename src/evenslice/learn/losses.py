"""Losses for foreground and classes: cross-entropy, soft Dice, and their sum."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from evenslice.errors import BadInputError
from evenslice.options import Loss, TrainOptions


def check_loss(options: TrainOptions, classes: int) -> None:
    """Raise ``BadInputError`` if loss or class weights do not fit the number of output channels."""
    if "bce" in options.loss and classes > 1:
        raise BadInputError(
            f"--loss is {options.loss!r} for {classes} classes, expected a loss of several; use "
            f"{options.loss.replace('bce', 'ce')}"
        )
    weights, wanted = options.class_weights, max(2, classes)
    if weights is not None and len(weights) != wanted:
        raise BadInputError(
            f"--class-weights holds {len(weights)} numbers, expected {wanted}: one for the "
            "background and one per class; give as many"
        )
    if weights is not None and options.loss == "dice":
        raise BadInputError(
            "--class-weights is given and --loss is 'dice', expected a loss with cross-entropy; "
            "use for example ce+dice"
        )


def segmentation_loss(
    logits: Tensor, target: Tensor, kind: Loss = "ce+dice", weights: Sequence[float] | None = None
) -> Tensor:
    """Return (binary) cross-entropy, 1 - soft Dice, or their sum.

    Soft Dice: Milletari et al. 2016, doi:10.1109/3DV.2016.79. ``logits`` are (B, C, y, x), C = 1
    for foreground; the target (B, y, x) holds class numbers, -1 where ignored. ``bce`` is ``ce`` of
    one class. ``weights`` are those of a pixel in the cross-entropy by its true class, background
    first. 0 if all pixels are ignored.
    """
    valid = target >= 0
    if not valid.any():
        return logits.sum() * 0.0
    parts, terms = kind.split("+"), []
    if parts[0] != "dice":
        scale = None if weights is None else logits.new_tensor(weights)
        terms.append(_entropy(logits, target, valid, scale))
    if parts[-1] == "dice":
        terms.append(_dice(logits, target, valid))
    return sum(terms[1:], terms[0])


def _entropy(logits: Tensor, target: Tensor, valid: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean cross-entropy over the valid pixels, weighted by their classes."""
    if logits.shape[1] > 1:
        return functional.cross_entropy(logits, target, weights, ignore_index=-1)
    flat, foreground = logits[:, 0][valid], (target > 0).to(logits.dtype)[valid]
    entropy = functional.binary_cross_entropy_with_logits
    if weights is None:
        return entropy(flat, foreground)
    each = weights[(foreground > 0).long()]
    return entropy(flat, foreground, each, reduction="sum") / each.sum()


def _dice(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        probability, hot = logits.sigmoid(), (target > 0).to(logits.dtype)[:, None]
    else:
        probability = logits.softmax(1)[:, 1:]
        hot = torch.stack([(target == c).to(logits.dtype) for c in range(1, logits.shape[1])], 1)
    keep = valid[:, None].to(logits.dtype)
    return dice_loss(probability * keep, hot * keep)


def dice_loss(probability: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """Return 1 - soft Dice over the batch, averaged over the channels; both (B, C, y, x)."""
    axes = (0, 2, 3)
    overlap = (probability * target).sum(axes)
    total = probability.sum(axes) + target.sum(axes)
    return 1.0 - ((2.0 * overlap + smooth) / (total + smooth)).mean()
