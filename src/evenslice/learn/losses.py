"""Losses for foreground and classes: cross-entropy plus soft Dice."""

import torch
from torch import Tensor
from torch.nn import functional


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Sum of (binary) cross-entropy and 1 - soft Dice (Milletari et al. 2016, doi:10.1109/3DV.2016.79).

    Parameters
    ----------
    logits
        (B, C, y, x); C = 1 for foreground.
    target
        (B, y, x), class numbers; -1 where no loss is taken.

    Returns
    -------
    Tensor
        Scalar. 0 if there is nothing to learn from.
    """
    valid = target >= 0
    if not valid.any():
        return logits.sum() * 0.0
    if logits.shape[1] == 1:
        truth = (target > 0).to(logits.dtype)
        entropy = functional.binary_cross_entropy_with_logits(logits[:, 0][valid], truth[valid])
        probability, hot = logits.sigmoid(), truth[:, None]
    else:
        entropy = functional.cross_entropy(logits, target, ignore_index=-1)
        probability = logits.softmax(1)[:, 1:]
        hot = torch.stack([(target == c).to(logits.dtype) for c in range(1, logits.shape[1])], 1)
    keep = valid[:, None].to(logits.dtype)
    return entropy + dice_loss(probability * keep, hot * keep)


def dice_loss(probability: Tensor, truth: Tensor, smooth: float = 1.0) -> Tensor:
    """Return 1 - soft Dice over the batch, averaged over the channels; both (B, C, y, x)."""
    axes = (0, 2, 3)
    overlap = (probability * truth).sum(axes)
    total = probability.sum(axes) + truth.sum(axes)
    return 1.0 - ((2.0 * overlap + smooth) / (total + smooth)).mean()
