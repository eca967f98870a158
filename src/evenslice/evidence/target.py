"""What is explained: one number a window, the sum of a margin over pixels, with coefficients that stay fixed."""

import torch
from torch import Tensor
from torch.nn import functional

from evenslice.options import Region

REGIONS: tuple[Region, ...] = ("predicted", "truth", "boundary", "all")
REACH = 3


def decision(logits: Tensor, region: Region = "predicted", truth: Tensor | None = None) -> Tensor:
    """Return the coefficients that turn logits into the number explained, by ``(coefficients * logits).sum()``.

    They come from the mean logits of a window and its reversal, one and the same for every arrangement and perturbation,
    so they do not depend on which of the two is called the window.

    Parameters
    ----------
    logits
        (B, C, y, x), one mean for each window.
    region
        ``predicted``: at each pixel the margin of the class predicted; binary: the logit times its sign, several classes:
        its logit minus the mean of the others. ``truth``: that of the true class. ``boundary``: as predicted, only within
        3 pixels of where the predicted class changes. ``all``: the margin of the foreground wherever it is predicted or not;
        several classes: the mean logit of the classes above 0 minus that of class 0.
    truth
        (B, y, x), class numbers, -1 where unknown; for ``truth``.

    Returns
    -------
    Tensor
        Same shape as ``logits``.
    """
    logits = logits.detach()
    binary = logits.shape[1] == 1
    if region == "all":
        return torch.ones_like(logits) if binary else _against_background(logits)
    if region == "truth":
        assert truth is not None
        known = (truth >= 0)[:, None].to(logits)
        classes = truth.clamp(0, 1 if binary else logits.shape[1] - 1).to(torch.int64)[:, None]
        return known * (2.0 * classes.to(logits) - 1.0 if binary else _margin(logits, classes))
    classes = (logits > 0).to(torch.int64) if binary else logits.argmax(1, keepdim=True)
    margin = logits.sign() if binary else _margin(logits, classes)
    return margin if region == "predicted" else margin * near_boundary(classes).to(logits)


def _margin(logits: Tensor, classes: Tensor) -> Tensor:
    """1 for the class (B, 1, y, x), -1/(C-1) for each other: its logit minus the mean of the others."""
    return torch.full_like(logits, -1.0 / (logits.shape[1] - 1)).scatter_(1, classes, 1.0)


def _against_background(logits: Tensor) -> Tensor:
    coefficients = torch.full_like(logits, 1.0 / (logits.shape[1] - 1))
    coefficients[:, 0] = -1.0
    return coefficients


def near_boundary(classes: Tensor, reach: int = REACH) -> Tensor:
    """Return where within ``reach`` pixels of a pixel (B, 1, y, x) another class lies."""
    values = functional.pad(classes.double(), (reach,) * 4, mode="replicate")
    side = 2 * reach + 1
    highest = functional.max_pool2d(values, side, 1)
    lowest = -functional.max_pool2d(-values, side, 1)
    return highest != lowest
