"""Importance of every slot and pixel by gradients of the number explained: plain, integrated, times input, smoothed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evenslice.evidence.network import ModelOnVolume
from evenslice.model.stem.probe import evaluating

CLOSE = 0.002
FEWEST_STEPS = 4
MOST_STEPS = 256
NOISES = 8
NOISE_SIZE = 0.15


@dataclass(frozen=True)
class Integrated:
    """Integrated gradients.

    Attributes
    ----------
    attribution
        (N, S, y, x), signed.
    steps
        How many steps of the path from the baseline to the window were needed, at most.
    incompleteness
        (N,): |sum of the attribution - (f(x) - f(baseline))| relative to the sum of |attribution|, which the shares are made
        of: f(x) - f(baseline) may be near 0 where attributions of both signs are large.
    """

    attribution: Tensor
    steps: int
    incompleteness: NDArray[np.float64]


def gradient(scene: ModelOnVolume, x: Tensor, coefficients: Tensor) -> Tensor:
    """Return the absolute gradient of the number explained: windows (N, S, y, x), coefficients (N, C, y, x)."""
    return torch.cat([found.abs() for found, _ in scene.gradients(x, coefficients)])


def input_x_gradient(scene: ModelOnVolume, x: Tensor, coefficients: Tensor) -> Tensor:
    """Return (x - baseline) times the gradient, signed (N, S, y, x); the baseline is the volume's mean."""
    return (x - scene.absent(x)) * torch.cat(
        [found for found, _ in scene.gradients(x, coefficients)]
    )


def smoothgrad(
    scene: ModelOnVolume, x: Tensor, coefficients: Tensor, orders: NDArray[np.intp], seed: int
) -> Tensor:
    """Return the absolute mean gradient over noisy copies (N, S, y, x) (Smilkov et al., arXiv 1706.03825).

    The noise, of 0.15 times the range of the window, belongs to the slices: it is arranged with them. Each noise is used in
    both directions, so that the result does not depend on which of window and reversal is called the window.

    Parameters
    ----------
    scene, x, coefficients
        As for ``gradient``; x holds all arrangements of one window after the other.
    orders
        (arrangements, S), see ``orders_of``.
    seed
        Of the noise.
    """
    draw = torch.Generator().manual_seed(seed)
    windows, count = len(x) // len(orders), len(orders)
    total = torch.zeros_like(x)
    size = NOISE_SIZE * (x.amax(dim=(1, 2, 3)) - x.amin(dim=(1, 2, 3)))[:, None, None, None]
    index = torch.from_numpy(orders.copy())
    for _ in range(NOISES):
        noise = torch.randn(x.shape[1:], generator=draw)
        for both in (noise, noise.flip(0)):
            arranged = both[index].to(x).repeat(windows, 1, 1, 1)
            assert len(arranged) == windows * count
            found = [part for part, _ in scene.gradients(x + size * arranged, coefficients)]
            total += torch.cat(found)
    return (total / (2 * NOISES)).abs()


def integrated_gradients(
    scene: ModelOnVolume, x: Tensor, coefficients: Tensor, group: int, full: Tensor
) -> Integrated:
    """Integrate the gradient along the straight path from the baseline (Sundararajan et al., arXiv 1703.01365).

    By the trapezoid rule; steps are doubled, keeping every gradient that was computed, until the shares of every window
    move by less than 0.002 (at most 256 steps). Only as many points of the path are held at once as fit.

    Parameters
    ----------
    scene
        The network; the baseline is the volume's mean in every slot.
    x, coefficients
        As for ``gradient``.
    group
        How many consecutive rows of x are the arrangements of one window.
    full
        Margins of x itself, float64 (N, y, x).
    """
    base = scene.absent(x).expand_as(x)
    steps, rows = FEWEST_STEPS, torch.arange(len(x), device=x.device)
    ends = _path_sum(scene, x, base, coefficients, [0.0, 1.0])
    inner = _path_sum(scene, x, base, coefficients, [i / steps for i in range(1, steps)])
    found = (x - base) * (ends / 2 + inner) / steps
    while len(rows) and steps < MOST_STEPS:  # the windows that still move
        between = [(2 * i + 1) / (2 * steps) for i in range(steps)]
        inner[rows] += _path_sum(scene, x[rows], base[rows], coefficients[rows], between)
        steps *= 2
        before = _shares(found[rows], group)
        found[rows] = (x[rows] - base[rows]) * (ends[rows] / 2 + inner[rows]) / steps
        moved = np.abs(_shares(found[rows], group) - before).max(axis=1) >= CLOSE
        rows = rows.reshape(-1, group)[torch.from_numpy(moved).to(rows.device)].flatten()
    change = (full - scene.margins_of_nothing(x, coefficients)).sum(dim=(1, 2))
    missed = (found.double().sum(dim=(1, 2, 3)) - change).abs() / found.double().abs().sum(
        dim=(1, 2, 3)
    ).clamp_min(1e-30)
    return Integrated(found, steps, missed.cpu().numpy())


def _path_sum(
    scene: ModelOnVolume, x: Tensor, base: Tensor, coefficients: Tensor, places: list[float]
) -> Tensor:
    """Sum the gradients at some places of the path, 0 the baseline and 1 the window: (N, S, y, x)."""
    total = torch.zeros_like(x)
    for place in places:
        start = 0
        for found, _ in scene.gradients(base + place * (x - base), coefficients):
            total[start : start + len(found)] += found
            start += len(found)
    return total


def _shares(found: Tensor, group: int) -> NDArray[np.float64]:
    slots = found.abs().double().sum(dim=(2, 3)).cpu().numpy()
    shares = slots / np.maximum(slots.sum(axis=1, keepdims=True), 1e-300)
    mean: NDArray[np.float64] = shares.reshape(-1, group, shares.shape[1]).mean(axis=1)
    return mean


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
