"""Attribution methods: the importance of every slot by perturbation and by gradients.

What a slot does is measured at every pixel and summed as absolute values: the change of a sum over
pixels would be 0 for a slot that moves half of the pixels up and half of them down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenslice.errors import BadInputError
from evenslice.evidence.model_on_volume import Floats, ModelOnVolume
from evenslice.evidence.sampling import Raw

PERTURBATION = ("ablation", "ablation-copy", "shapley")
GRADIENT = ("gradient", "integrated-gradients")
ON_REQUEST = ("input-x-gradient", "smoothgrad")
METHODS = (*PERTURBATION, *GRADIENT, *ON_REQUEST)
MOST_FOR_SHAPLEY = 5
CLOSE = 0.002
FEWEST_STEPS = 4
MOST_STEPS = 256
NOISES = 8
NOISE_SIZE = 0.15


def default_methods(slices: int, differentiable: bool) -> tuple[str, ...]:
    """Return the methods used by default: all that the model allows, Shapley up to S = 5."""
    unusable = "ablation-copy" if slices == 1 else "shapley" if slices > MOST_FOR_SHAPLEY else ""
    perturbation = tuple(method for method in PERTURBATION if method != unusable)
    return perturbation + (GRADIENT if differentiable else ())


def check_methods(methods: Sequence[str], slices: int, differentiable: bool) -> tuple[str, ...]:
    """Return the methods asked for, each once; refuse those that the model does not allow.

    ``reversal`` may be named too: that response is part of every audit, under its own key.
    """
    named = tuple(dict.fromkeys(m for m in methods if m != "reversal"))
    unknown = sorted(set(named) - set(METHODS))
    if unknown or not methods:
        raise BadInputError(
            f"the method {', '.join(unknown) or '(none)'} is unknown, expected "
            f"{', '.join(('reversal', *METHODS))}; choose among these"
        )
    by_gradient = [m for m in named if m not in PERTURBATION]
    if by_gradient and not differentiable:
        raise BadInputError(
            f"the method {', '.join(by_gradient)} needs gradients, which an .onnx model has not, "
            f"expected {', '.join(PERTURBATION)}; choose among these, or audit the network before "
            "its export"
        )
    if slices == 1 and "ablation-copy" in named:
        raise BadInputError(
            "the method ablation-copy puts the centre slice into the other slots, expected a model "
            "of 3 slices or more; leave it out"
        )
    return named


def runs_needed(methods: Sequence[str], slices: int) -> int:
    """Return how many runs of the network the perturbations of one window take."""
    exact = 2**slices - 1 if "shapley" in methods else 0
    ablation = slices if "ablation" in methods and not exact else 0
    return exact + ablation + (slices - 1 if "ablation-copy" in methods else 0)


@dataclass(frozen=True)
class Arranged:
    """Windows in all their arrangements, N rows: those of one window after the other."""

    raw: Raw  # (N, S, y, x)
    x: Tensor  # the same, normalised
    coefficients: Tensor  # (N, C, y, x), see ``explained_target``
    margins: Tensor  # of x, float64 (N, y, x)
    orders: NDArray[np.intp]  # (arrangements, S), see ``slice_orders``
    gradient: Tensor | None  # absolute (N, S, y, x); None if it is not asked for


@dataclass(frozen=True)
class Importance:
    """What the methods found in arranged windows."""

    slots: dict[str, Floats]  # by method (N, S)
    incompleteness: dict[str, Floats]  # (N,), of the methods that should add up: relative error
    maps: Tensor | None  # attribution (N, S, y, x) per normalised intensity, if a method makes one


def importance_of(
    subject: ModelOnVolume, windows: Arranged, methods: Sequence[str], seed: int
) -> Importance:
    """Measure windows by each method; ``seed`` is that of smoothgrad's noise."""
    x, coefficients, margins = windows.x, windows.coefficients, windows.margins
    slots: dict[str, Floats] = {}
    missed: dict[str, Floats] = {}
    maps = windows.gradient
    if windows.gradient is not None:
        slots["gradient"] = subject.per_grey_level(windows.gradient)
    if "ablation" in methods or "shapley" in methods:
        ablated = ablate_slots(subject, x, coefficients, margins, exact="shapley" in methods)
        slots["ablation"] = ablated.ablation
        if ablated.shapley is not None and ablated.incompleteness is not None:
            slots["shapley"], missed["shapley"] = ablated.shapley, ablated.incompleteness
    if "ablation-copy" in methods:
        slots["ablation-copy"] = centre_copies(subject, windows.raw, coefficients, margins)
    if "integrated-gradients" in methods:
        found = integrated_gradients(subject, x, coefficients, len(windows.orders), margins)
        slots["integrated-gradients"] = _per_slot(found.attribution)
        missed["integrated-gradients"] = found.incompleteness
        maps = found.attribution.abs() if maps is None else maps
    if "input-x-gradient" in methods:
        slots["input-x-gradient"] = _per_slot(input_x_gradient(subject, x, coefficients))
    if "smoothgrad" in methods:
        smooth = smoothgrad(subject, x, coefficients, windows.orders, seed)
        slots["smoothgrad"] = subject.per_grey_level(smooth)
    return Importance({name: slots[name] for name in methods}, missed, maps)


def _per_slot(attribution: Tensor) -> Floats:
    """Sum absolute attributions (N, S, y, x) over pixels; intensity times gradient has no unit."""
    sums: Floats = attribution.abs().sum(dim=(2, 3), dtype=torch.float64).cpu().numpy()
    return sums


def _over_pixels(margins: Tensor) -> Floats:
    sums: Floats = margins.sum(dim=(-2, -1), dtype=torch.float64).cpu().numpy()
    return sums


@dataclass(frozen=True)
class AblationResult:
    """The effect of ablating slices: sums over pixels, (N, S).

    The incompleteness is |sum of all Shapley values - (f(all) - f(none))| relative to the sum of
    their sizes.
    """

    ablation: Floats  # |margin - margin without the slice of slot s|
    shapley: Floats | None  # |Shapley value of slot s|; None if not asked for
    incompleteness: Floats | None  # (N,)


def ablate_slots(
    subject: ModelOnVolume, x: Tensor, coefficients: Tensor, margins: Tensor, exact: bool
) -> AblationResult:
    """Run windows (N, S, y, x) with the volume's mean in place of some slices.

    If ``exact`` in all 2^S ways, for Shapley values (Shapley 1953, doi:10.1515/9781400881970-018):
    phi_s = sum over coalitions M without s of |M|! (S - |M| - 1)! / S! (f(M and s) - f(M)), here at
    every pixel; they sum to f(all) - f(none). ``margins`` (N, y, x) are those of x itself.
    """
    slices, everything = subject.slices, 2**subject.slices - 1
    absent = subject.absent(x)
    effect = np.zeros((len(x), slices))
    phi = margins.new_zeros((len(x), slices, *margins.shape[1:])) if exact else None
    empty = torch.zeros(0)
    for members in range(2**slices) if exact else [everything ^ (1 << s) for s in range(slices)]:
        if members == everything:
            found = margins
        elif members == 0:
            found = empty = subject.baseline_margins(x, coefficients)
        else:
            inside = [bool(members >> s & 1) for s in range(slices)]
            present = torch.tensor(inside, device=x.device)[:, None, None]
            found = subject.margins(torch.where(present, x, absent), coefficients)
        if phi is not None:
            weights = phi.new_tensor(shapley_weights(members, slices))
            phi += weights[:, None, None] * found[:, None]
        missing = everything ^ members
        if missing.bit_count() == 1:
            effect[:, missing.bit_length() - 1] = _over_pixels((margins - found).abs())
    if phi is None:
        return AblationResult(effect, None, None)
    sizes = _over_pixels(phi.abs())
    error = np.abs(_over_pixels(phi.sum(dim=1)) - _over_pixels(margins - empty))
    return AblationResult(effect, sizes, error / np.maximum(sizes.sum(axis=1), 1e-30))


def shapley_weights(members: int, slices: int) -> list[float]:
    """Return the weight of a coalition (bit s: slot s is in) in the Shapley value of each slot."""
    size, total = members.bit_count(), factorial(slices)
    inside = factorial(size - 1) * factorial(slices - size) / total if size else 0.0
    outside = factorial(size) * factorial(slices - size - 1) / total if size < slices else 0.0
    return [inside if members >> s & 1 else -outside for s in range(slices)]


def centre_copies(
    subject: ModelOnVolume, arranged: Raw, coefficients: Tensor, margins: Tensor
) -> Floats:
    """Return the effect (N, S) of the centre slice in slot s, 0 for the centre itself.

    It is the sum over pixels of |margin - margin with the copy|, for raw windows (N, S, y, x).
    """
    slices = subject.slices
    effect = np.zeros((len(arranged), slices))
    for s in range(slices):
        if s != slices // 2:
            copied = np.array(arranged)
            copied[:, s] = arranged[:, slices // 2]
            found = subject.margins(subject.normalised(copied), coefficients)
            effect[:, s] = _over_pixels((margins - found).abs())
    return effect


def gradient(subject: ModelOnVolume, x: Tensor, coefficients: Tensor) -> Tensor:
    """Return the absolute gradient (N, S, y, x) of the number explained."""
    return torch.cat([part.abs() for part in subject.gradients(x, coefficients)])


def input_x_gradient(subject: ModelOnVolume, x: Tensor, coefficients: Tensor) -> Tensor:
    """Return (x - baseline) times the gradient, signed (N, S, y, x)."""
    return (x - subject.absent(x)) * torch.cat(list(subject.gradients(x, coefficients)))


def smoothgrad(
    subject: ModelOnVolume, x: Tensor, coefficients: Tensor, orders: NDArray[np.intp], seed: int
) -> Tensor:
    """Return the absolute mean gradient over noisy copies (Smilkov et al., arXiv 1706.03825).

    The noise, of 0.15 times the range of the window, belongs to the slices: it is arranged with
    them. Each noise is used in both directions, so that the result does not depend on which of
    window and reversal is called the window. x holds the arrangements of one window after the
    other.
    """
    draw = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(x)
    size = NOISE_SIZE * (x.amax(dim=(1, 2, 3)) - x.amin(dim=(1, 2, 3)))[:, None, None, None]
    index = torch.from_numpy(orders.copy())
    for _ in range(NOISES):
        noise = torch.randn(x.shape[1:], generator=draw)
        for both in (noise, noise.flip(0)):
            arranged = both[index].to(x).repeat(len(x) // len(orders), 1, 1, 1)
            total += torch.cat(list(subject.gradients(x + size * arranged, coefficients)))
    return (total / (2 * NOISES)).abs()


@dataclass(frozen=True)
class Integrated:
    """Integrated gradients.

    The incompleteness is |sum of the attribution - (f(x) - f(baseline))| relative to the sum of
    |attribution|, which the shares are made of: f(x) - f(baseline) may be near 0 where attributions
    of both signs are large.
    """

    attribution: Tensor  # (N, S, y, x), signed
    steps: int  # of the path from the baseline to the window, at most
    incompleteness: Floats  # (N,)


def integrated_gradients(
    subject: ModelOnVolume, x: Tensor, coefficients: Tensor, group: int, margins: Tensor
) -> Integrated:
    """Integrate the gradient along the path from the baseline (Sundararajan, arXiv 1703.01365).

    By the trapezoid rule; steps are doubled, keeping every gradient that was computed, until the
    shares of every window change by less than 0.002 (at most 256 steps). The baseline is the
    volume's mean in every slot; ``group`` rows of x are the arrangements of one window, and
    ``margins`` (N, y, x) are those of x itself.
    """
    base = subject.absent(x).expand_as(x)
    steps, rows = FEWEST_STEPS, torch.arange(len(x), device=x.device)
    ends = _path_sum(subject, x, base, coefficients, [0.0, 1.0])
    inner = _path_sum(subject, x, base, coefficients, [i / steps for i in range(1, steps)])
    found = (x - base) * (ends / 2 + inner) / steps
    while len(rows) and steps < MOST_STEPS:  # the windows whose shares still change
        between = [(2 * i + 1) / (2 * steps) for i in range(steps)]
        inner[rows] += _path_sum(subject, x[rows], base[rows], coefficients[rows], between)
        steps *= 2
        before = _mean_shares(found[rows], group)
        found[rows] = (x[rows] - base[rows]) * (ends[rows] / 2 + inner[rows]) / steps
        moved = np.abs(_mean_shares(found[rows], group) - before).max(axis=1) >= CLOSE
        rows = rows.reshape(-1, group)[torch.from_numpy(moved).to(rows.device)].flatten()
    change = (margins - subject.baseline_margins(x, coefficients)).sum(dim=(1, 2))
    sizes = found.double().abs().sum(dim=(1, 2, 3)).clamp_min(1e-30)
    missed = (found.double().sum(dim=(1, 2, 3)) - change).abs() / sizes
    return Integrated(found, steps, missed.cpu().numpy())


def _path_sum(
    subject: ModelOnVolume, x: Tensor, base: Tensor, coefficients: Tensor, places: list[float]
) -> Tensor:
    """Sum the gradients (N, S, y, x) at places of the path, 0 the baseline and 1 the window."""
    total = torch.zeros_like(x)
    for place in places:
        start = 0
        for part in subject.gradients(base + place * (x - base), coefficients):
            total[start : start + len(part)] += part
            start += len(part)
    return total


def _mean_shares(attribution: Tensor, group: int) -> Floats:
    slots = attribution.abs().double().sum(dim=(2, 3)).cpu().numpy()
    shares = slots / np.maximum(slots.sum(axis=1, keepdims=True), 1e-300)
    mean: Floats = shares.reshape(-1, group, shares.shape[1]).mean(axis=1)
    return mean
