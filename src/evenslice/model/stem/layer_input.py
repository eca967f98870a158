"""What is seen where a tensor meets parameters, and the noise that stands in for the answer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

LARGE, SAMPLE = 4096, 1023


@dataclass(frozen=True)
class LayerInput:
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
    """Return for each axis the median of every entry along it, of a sample of 1023 where there are more than 4096."""
    values = x.detach().double().cpu()
    found = []
    for axis in range(x.ndim):
        entries = values.movedim(axis, 0).reshape(x.shape[axis], -1)
        if (
            entries.shape[1] > LARGE
        ):  # drawn places, not regular ones, which could all lie on an edge
            draw = torch.Generator().manual_seed(0)
            entries = entries[:, torch.randint(entries.shape[1], (SAMPLE,), generator=draw)]
        found.append(entries.median(dim=1).values)
    return tuple(found)


def noise_like(x: Tensor, draw: torch.Generator) -> Tensor:
    """Return uniform noise of the shape, type and place of ``x``."""
    return torch.rand(x.shape, generator=draw).to(x.device, x.dtype)
