"""Importance of every slot and pixel by the gradient of the decision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from evenslice.model.discovery import evaluating
from evenslice.model.predict import logits_of


def decision(logits: Tensor) -> Tensor:
    """Return the coefficients that turn logits into the margin of the class predicted.

    Binary: the sign of the logit. Several classes: 1 for the predicted class, -1/(C-1) for each other, so that the sum
    over classes is its logit minus the mean of the others.

    Parameters
    ----------
    logits
        (B, C, y, x).

    Returns
    -------
    Tensor
        Same shape. ``(decision(logits) * logits).sum()`` is the scalar explained.
    """
    logits = logits.detach()
    if logits.shape[1] == 1:
        return logits.sign()
    coefficients = torch.full_like(logits, -1.0 / (logits.shape[1] - 1))
    return coefficients.scatter_(1, logits.argmax(1, keepdim=True), 1.0)


def gradient(module: nn.Module, x: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Measure the absolute gradient of one decision in all arrangements of a window, in one pass.

    The decision is that of the mean logits over the arrangements, one and the same for all of them. For a pair of a
    window and its reversal it does not depend on which of the two is called the window, so the audit of a volume read
    backwards equals that of the volume.

    Parameters
    ----------
    module
        The network, in eval mode with frozen parameters (see ``explaining``).
    x
        All arrangements of one window, normalised: (arrangements, S, y, x).
    stride
        What the network's height and width are multiples of.

    Returns
    -------
    tuple
        Absolute gradients (arrangements, S, y, x), and logits (arrangements, C, y, x).
    """
    x = x.detach().requires_grad_(True)
    logits = logits_of(module, x, stride)
    scalar = (decision(logits.mean(0, keepdim=True)) * logits).sum()
    (grads,) = torch.autograd.grad(scalar, x)
    return grads.abs(), logits.detach()


@contextmanager
def explaining(module: nn.Module) -> Iterator[None]:
    """Put a network into eval mode with frozen parameters, so that only the input's gradient is computed; then restore it."""
    wanted = [p for p in module.parameters() if p.requires_grad]
    for p in wanted:
        p.requires_grad_(False)
    try:
        with evaluating(module):
            yield
    finally:
        for p in wanted:
            p.requires_grad_(True)
