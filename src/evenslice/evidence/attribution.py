"""Attribution methods: the importance of every slot by perturbation and by gradients.

What a slot does is measured at every pixel and summed as absolute values: the change of a sum over
pixels would be 0 for a slot that moves half of the pixels up and half of them down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import factorial

import numpy as np
import torch
from numpy.polynomial import legendre
from numpy.typing import NDArray
from torch import Tensor

from evenslice.errors import BadInputError
from evenslice.evidence.model_on_volume import Floats, ModelOnVolume
from evenslice.evidence.sampling import Raw

PERTURBATION = ("ablation", "ablation-copy", "shapley")
GRADIENT = ("gradient", "integrated-gradients")
ON_REQUEST = ("input-x-gradient", "smoothgrad")
METHODS = (*PERTURBATION, *GRADIENT, *ON_REQUEST)
# What one stage of an audit computes is used by the next: cheap methods come first.
STAGES = (
    ("gradient", "input-x-gradient"),
    ("ablation", "ablation-copy"),
    ("shapley",),
    ("integrated-gradients", "smoothgrad"),
)
EXPENSIVE = (*STAGES[2], *STAGES[3])
MOST_FOR_SHAPLEY = 5
CLOSE, INCOMPLETE = 0.01, 0.01
MOST_LEVELS = 5  # rules of 3, 7, 15, 31 and 63 nodes
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


@dataclass
class Arranged:
    """Windows in all their arrangements, N rows: those of one window after the other."""

    raw: Raw  # (N, S, y, x)
    x: Tensor  # the same, normalised
    coefficients: Tensor  # (N, C, y, x), see ``explained_target``
    logits: Tensor  # (2W, C, y, x) of the W windows and their reversals
    margins: Tensor  # of x, float64 (N, y, x)
    orders: NDArray[np.intp]  # (arrangements, S), see ``slice_orders``
    labels: Sequence[NDArray[np.int64] | None]  # classes (3, y, x) around each window, -1 unknown
    gradient: Tensor | None = None  # signed (N, S, y, x), if it was asked for
    ablated: Tensor | None = None  # margins (S, N, y, x) without each slice, once measured

    @property
    def size_bytes(self) -> int:
        """What is kept of it for later methods, in bytes."""
        kept = (self.x, self.coefficients, self.logits, self.margins, self.ablated)
        return self.raw.nbytes + sum(one.nbytes for one in kept if one is not None)


@dataclass(frozen=True)
class Importance:
    """What the methods found in arranged windows."""

    slots: dict[str, Floats]  # by method (N, S)
    incompleteness: dict[str, Floats]  # (N,), of the methods that should add up: relative error
    maps: (
        Tensor | None
    )  # |attribution| (N, S, y, x) per normalised intensity, if a method makes one


def importance_of(
    subject: ModelOnVolume, windows: Arranged, methods: Sequence[str], seed: int
) -> Importance:
    """Measure windows by each method; ``seed`` is that of smoothgrad's noise."""
    x, coefficients, margins = windows.x, windows.coefficients, windows.margins
    slots: dict[str, Floats] = {}
    missed: dict[str, Floats] = {}
    maps = None if windows.gradient is None else windows.gradient.abs()
    if "gradient" in methods and maps is not None:
        slots["gradient"] = subject.per_grey_level(maps)
    if "input-x-gradient" in methods and windows.gradient is not None:
        slots["input-x-gradient"] = _per_slot((x - subject.absent(x)) * windows.gradient)
    if windows.ablated is None and ("ablation" in methods or "shapley" in methods):
        windows.ablated = ablated_margins(subject, x, coefficients)
    if "ablation" in methods and windows.ablated is not None:
        slots["ablation"] = _over_pixels((margins - windows.ablated).abs()).T
    if "ablation-copy" in methods:
        slots["ablation-copy"] = centre_copies(subject, windows.raw, coefficients, margins)
    if "shapley" in methods and windows.ablated is not None:
        slots["shapley"], missed["shapley"] = shapley_values(
            subject, x, coefficients, margins, windows.ablated
        )
    if "integrated-gradients" in methods:
        found = integrated_gradients(subject, x, coefficients, len(windows.orders), margins)
        slots["integrated-gradients"] = _per_slot(found.attribution)
        missed["integrated-gradients"] = found.incompleteness
        maps = found.attribution.abs() if maps is None else maps
    if "smoothgrad" in methods:
        smooth = smoothgrad(subject, x, coefficients, windows.orders, seed)
        slots["smoothgrad"] = subject.per_grey_level(smooth)
    # A window without a picture has no importance, and is dropped like others without any.
    picture = np.ptp(windows.raw.reshape(len(x), -1), axis=1)[:, None] > 0
    return Importance({name: slots[name] * picture for name in methods}, missed, maps)


def _per_slot(attribution: Tensor) -> Floats:
    """Sum absolute attributions (N, S, y, x) over pixels; intensity times gradient has no unit."""
    sums: Floats = attribution.abs().sum(dim=(2, 3), dtype=torch.float64).cpu().numpy()
    return sums


def _over_pixels(margins: Tensor) -> Floats:
    sums: Floats = margins.sum(dim=(-2, -1), dtype=torch.float64).cpu().numpy()
    return sums


def ablated_margins(subject: ModelOnVolume, x: Tensor, coefficients: Tensor) -> Tensor:
    """Return the margins (S, N, y, x) with the volume's mean in place of each slice in turn."""
    everything = 2**subject.slices - 1
    without = (everything ^ (1 << s) for s in range(subject.slices))
    return torch.stack([_coalition(subject, x, coefficients, members) for members in without])


def _coalition(subject: ModelOnVolume, x: Tensor, coefficients: Tensor, members: int) -> Tensor:
    """Return the margins (N, y, x) with only the slices of a coalition (bit s: slot s is in)."""
    if members == 0:
        return subject.baseline_margins(x, coefficients)
    inside = [bool(members >> s & 1) for s in range(subject.slices)]
    present = torch.tensor(inside, device=x.device)[:, None, None]
    return subject.margins(torch.where(present, x, subject.absent(x)), coefficients)


def shapley_values(
    subject: ModelOnVolume, x: Tensor, coefficients: Tensor, margins: Tensor, ablated: Tensor
) -> tuple[Floats, Floats]:
    """Measure the exact Shapley value of each slot (Shapley 1953, doi:10.1515/9781400881970-018).

    phi_s = sum over coalitions M without s of |M|! (S - |M| - 1)! / S! (f(M and s) - f(M)), here at
    every pixel; they sum to f(all) - f(none). ``margins`` (N, y, x) are those of x itself, and
    ``ablated`` (S, N, y, x) those without each slice.

    Returns
    -------
    sizes, incompleteness
        |phi_s| summed over pixels, (N, S); and |sum of all phi - (f(all) - f(none))| relative to
        the sum of their sizes, (N,).
    """
    slices = subject.slices
    everything = 2**slices - 1
    known = {everything: margins} | {everything ^ (1 << s): ablated[s] for s in range(slices)}
    known[0] = empty = _coalition(subject, x, coefficients, 0)
    phi = margins.new_zeros((len(x), slices, *margins.shape[1:]))
    for members in range(2**slices):
        found = known.get(members)
        if found is None:
            found = _coalition(subject, x, coefficients, members)
        phi += phi.new_tensor(shapley_weights(members, slices))[:, None, None] * found[:, None]
    sizes = _over_pixels(phi.abs())
    error = np.abs(_over_pixels(phi.sum(dim=1)) - _over_pixels(margins - empty))
    return sizes, error / np.maximum(sizes.sum(axis=1), 1e-30)


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
    """Return the gradient (N, S, y, x) of the number explained."""
    return torch.cat(list(subject.gradients(x, coefficients)))


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
    nodes: int  # gradients along the path from the baseline to the window, at most
    incompleteness: Floats  # (N,)


def integrated_gradients(
    subject: ModelOnVolume, x: Tensor, coefficients: Tensor, group: int, margins: Tensor
) -> Integrated:
    """Integrate the gradient along the path from the baseline (Sundararajan, arXiv 1703.01365).

    By nested Gauss rules of 3, 7, 15, 31 and 63 nodes, each of which uses all gradients of the one
    before, until from rule to rule the shares of a window change by less than 0.01 and its
    attribution adds up to within 1 %. The change is the error of the coarser rule; the finer one is
    several times as exact. The baseline is the volume's mean in every slot; ``group`` rows of x are
    the arrangements of one window, and ``margins`` (N, y, x) are those of x itself.
    """
    base = subject.absent(x).expand_as(x)
    rows = torch.arange(len(x), device=x.device)
    gradients: dict[float, Tensor] = {}  # at nodes of the path, of the rows that are left
    found = torch.zeros_like(x)
    nodes: tuple[float, ...] = ()
    change = (margins - subject.baseline_margins(x, coefficients)).sum(dim=(1, 2))
    for level in range(MOST_LEVELS):
        nodes, weights = nested_rule(level)
        way = x[rows] - base[rows]
        for node in nodes:
            if node not in gradients:
                at = base[rows] + (1 + node) / 2 * way
                gradients[node] = gradient(subject, at, coefficients[rows])
        before = _mean_shares(found[rows], group)
        found[rows] = way / 2 * sum(w * gradients[n] for n, w in zip(nodes, weights, strict=True))
        moved = np.abs(_mean_shares(found[rows], group) - before).max(axis=1) >= CLOSE
        missing = _missing(found[rows], change[rows]).reshape(-1, group).max(axis=1) >= INCOMPLETE
        left = torch.from_numpy(np.repeat(moved | missing, group)).to(rows.device)
        if level and not left.any():
            break
        if level:
            rows = rows[left]
            gradients = {node: values[left] for node, values in gradients.items()}
    return Integrated(found, len(nodes), _missing(found, change))


def _missing(attribution: Tensor, change: Tensor) -> Floats:
    """Return |sum of the attribution - change| relative to the sum of |attribution|, (N,)."""
    sizes = attribution.double().abs().sum(dim=(1, 2, 3)).clamp_min(1e-30)
    found: Floats = ((attribution.double().sum(dim=(1, 2, 3)) - change).abs() / sizes).cpu().numpy()
    return found


@cache
def nested_rule(level: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return nodes and weights on -1..1 of the rule of 2^(level + 2) - 1 nodes.

    The first is Gauss-Legendre's of 3 nodes. Each further one keeps the n nodes of the one before
    and adds the n + 1 that make it exact for polynomials up to degree 3n + 1 (Patterson 1968,
    doi:10.1090/S0025-5718-68-99866-9): the zeros of the polynomial of degree n + 1 that is
    orthogonal, with the product over the old nodes as weight, to all of lower degree. Old and new
    nodes alternate.
    """
    if level == 0:
        nodes = legendre.leggauss(3)[0]
    else:
        old = np.array(nested_rule(level - 1)[0])
        x, w = legendre.leggauss(2 * len(old) + 4)
        product = np.prod(x[:, None] - old, axis=1)
        values = legendre.legvander(x, len(old) + 1)
        moments = (values[:, :-1] * (w * product / np.abs(product).max())[:, None]).T @ values
        nodes = np.empty(2 * len(old) + 1)
        nodes[1::2] = old
        nodes[::2] = legendre.legroots(np.linalg.svd(moments)[2][-1])  # all its moments are 0
    integrals = np.zeros(len(nodes))
    integrals[0] = 2.0  # of the Legendre polynomials, of which only the first has any
    weights = np.linalg.solve(legendre.legvander(nodes, len(nodes) - 1).T, integrals)
    return tuple(nodes.tolist()), tuple(weights.tolist())


def _mean_shares(attribution: Tensor, group: int) -> Floats:
    slots = attribution.abs().double().sum(dim=(2, 3)).cpu().numpy()
    shares = slots / np.maximum(slots.sum(axis=1, keepdims=True), 1e-300)
    mean: Floats = shares.reshape(-1, group, shares.shape[1]).mean(axis=1)
    return mean
