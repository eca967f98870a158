"""What is seen where a tensor meets parameters, and the noise that stands in for the answer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sight:
    """One tensor that met parameters.

    Attributes
    ----------
    name
        Dotted name of the layer, or of the parameter met outside of any layer.
    layer
        The layer, or the module that owns the parameter.
    operation
        The function that met a parameter outside of any layer, or "".
    values
        For each axis of the tensor, the median of every entry along it, in each run: (runs, entries).
    """

    name: str
    layer: nn.Module
    operation: str
    values: tuple[Tensor, ...]


def looked_at(x: object) -> bool:
    """Whether something can show slots: a floating-point tensor with more than one axis."""
    return isinstance(x, Tensor) and x.is_floating_point() and x.ndim > 1 and x.numel() > 0


def medians(x: Tensor) -> tuple[Tensor, ...]:
    """Return for each axis the median of every entry along it."""
    values = x.detach().double().cpu()
    return tuple(values.movedim(a, 0).reshape(x.shape[a], -1).median(dim=1).values for a in range(x.ndim))


def noise_like(x: Tensor, draw: torch.Generator) -> Tensor:
    """Return uniform noise of the shape, type and place of ``x``."""
    return torch.rand(x.shape, generator=draw).to(x.device, x.dtype)
