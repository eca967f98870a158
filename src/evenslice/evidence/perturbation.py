"""Importance of every slot by taking slices away: ablation, copies of the centre, and exact Shapley values.

What a slot does is measured at every pixel of the output: the absolute changes of the margin there are summed. The change of
the sum of margins would be 0 for a slot that moves half of the pixels up and half of them down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenslice.evidence.network import ModelOnVolume, Raw

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AblationResult:
    """What taking slices away did.

    Attributes
    ----------
    ablation
        (N, S): sum over pixels of |margin - margin without the slice of slot s|.
    shapley
        (N, S): sum over pixels of |Shapley value of slot s|; None if not asked for.
    incompleteness
        (N,): |sum of all Shapley values - (f(all) - f(none))| relative to the sum of their sizes; None with ``shapley``.
    """

    ablation: Floats
    shapley: Floats | None
    incompleteness: Floats | None


def ablate_slots(
    scene: ModelOnVolume, x: Tensor, coefficients: Tensor, full: Tensor, exact: bool
) -> AblationResult:
    """Run windows with the mean of the volume in place of some slices; in all 2^S ways if ``exact``.

    Shapley values (Shapley 1953, doi:10.1515/9781400881970-018): phi_s = sum over coalitions M without s of
    |M|! (S - |M| - 1)! / S! (f(M and s) - f(M)), here at every pixel; they sum to f(all) - f(none).

    Parameters
    ----------
    scene
        The network.
    x
        Windows (N, S, y, x), normalised.
    coefficients
        (N, C, y, x) of the margin.
    full
        Margins (N, y, x) of x itself, known already.
    exact
        Whether Shapley values are wanted; else only the S windows that lack one slice are run.
    """
    slices, everything = scene.slices, 2**scene.slices - 1
    absent = scene.absent(x)
    effect = np.zeros((len(x), slices))
    phi = (
        torch.zeros((len(x), slices, *full.shape[1:]), dtype=torch.float64, device=x.device)
        if exact
        else None
    )
    empty = torch.zeros(0)
    for members in range(2**slices) if exact else [everything ^ (1 << s) for s in range(slices)]:
        if members == everything:
            margins = full
        elif members == 0:
            margins = empty = scene.margins_of_nothing(x, coefficients)
        else:
            present = torch.tensor(
                [members >> s & 1 for s in range(slices)], dtype=torch.bool, device=x.device
            )
            margins = scene.margins(torch.where(present[:, None, None], x, absent), coefficients)
        if phi is not None:
            weights = torch.tensor(
                shapley_weights(members, slices), dtype=torch.float64, device=x.device
            )
            phi += weights[:, None, None] * margins[:, None]
        missing = everything ^ members
        if missing.bit_count() == 1:
            effect[:, missing.bit_length() - 1] = _summed((full - margins).abs())
    if phi is None:
        return AblationResult(effect, None, None)
    change = _summed(full - empty)
    sizes: Floats = phi.abs().sum(dim=(2, 3)).cpu().numpy()
    missed = np.abs(_summed(phi.sum(dim=1)) - change) / np.maximum(sizes.sum(axis=1), 1e-30)
    return AblationResult(effect, sizes, missed)


def shapley_weights(members: int, slices: int) -> list[float]:
    """Return how much the value of one coalition (bit s set: slot s is in) counts in the Shapley value of each slot."""
    size, total = members.bit_count(), factorial(slices)
    inside = factorial(size - 1) * factorial(slices - size) / total if size else 0.0
    outside = factorial(size) * factorial(slices - size - 1) / total if size < slices else 0.0
    return [inside if members >> s & 1 else -outside for s in range(slices)]


def _summed(margins: Tensor) -> Floats:
    sums: Floats = margins.sum(dim=(-2, -1), dtype=torch.float64).cpu().numpy()
    return sums


def centre_copies(
    scene: ModelOnVolume, arranged: Raw, coefficients: Tensor, full: Tensor
) -> Floats:
    """Return the sum over pixels of |margin - margin with the centre's slice in slot s|: 0 for the centre itself.

    Parameters
    ----------
    scene
        The network.
    arranged
        Raw windows (N, S, y, x).
    coefficients
        (N, C, y, x).
    full
        Margins (N, y, x) of the windows themselves.

    Returns
    -------
    array
        (N, S).
    """
    slices = scene.slices
    effect = np.zeros((len(arranged), slices))
    for s in range(slices):
        if s == slices // 2:
            continue
        copied = np.array(arranged)
        copied[:, s] = arranged[:, slices // 2]
        effect[:, s] = _summed((full - scene.margins(scene.normalised(copied), coefficients)).abs())
    return effect


def runs_needed(methods: Sequence[str], slices: int) -> int:
    """Return how many runs of the network the perturbations of one window take, to be announced."""
    exact = 2**slices - 1 if "shapley" in methods else 0
    ablation = slices if "ablation" in methods and not exact else 0
    return exact + ablation + (slices - 1 if "ablation-copy" in methods else 0)
