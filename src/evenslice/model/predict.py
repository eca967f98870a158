"""Predicting: normalised windows of any size to logits, and logits to probabilities."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def logits_of(
    module: nn.Module, x: Tensor, stride: int, size: tuple[int, int] | None = None
) -> Tensor:
    """Run the network on windows of any size.

    Parameters
    ----------
    module
        The network.
    x
        Normalised windows (B, S, y, x).
    stride
        The network takes multiples of it; the rest is padded by repeating the edge, and cut off again.
    size
        The only (y, x) that it takes, or None; smaller windows are padded in the same way.

    Returns
    -------
    Tensor
        Logits (B, classes, y, x).
    """
    height, width = x.shape[-2:]
    if size is None:
        bottom, right = -height % stride, -width % stride
    else:
        bottom, right = size[0] - height, size[1] - width
    if bottom or right:
        x = functional.pad(x, (0, right, 0, bottom), mode="replicate")
    out: Tensor = module(x)
    return out[..., :height, :width]


def probabilities_of(logits: Tensor) -> Tensor:
    """Turn logits (B, C, y, x) into probabilities: sigmoid for one class, softmax over more."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def classes_of(probabilities: Tensor, threshold: float = 0.5) -> Tensor:
    """Turn probabilities (B, C, y, x) into class numbers (B, y, x): 0/1 by threshold, or the most probable of several."""
    if probabilities.shape[1] == 1:
        return (probabilities[:, 0] > threshold).to(torch.uint8)
    return probabilities.argmax(1).to(torch.uint8)


def device_of(module: nn.Module) -> torch.device:
    """Return where a network is; the CPU if it has no parameters."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))
