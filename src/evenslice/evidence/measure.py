"""Measuring: read windows, arrange, normalise, explain; each window together with its reversal, on the same pixels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenslice.evidence.methods import gather
from evenslice.evidence.network import ModelOnVolume, Raw, read_sites
from evenslice.evidence.sampling import SampledWindow, slice_orders
from evenslice.evidence.target import decision
from evenslice.evidence.window_view import WindowView
from evenslice.labels.metrics import confusion, scores_of
from evenslice.labels.targets import Target
from evenslice.model.predict import classes_of, logits_of, probabilities_of
from evenslice.options import Design, Region
from evenslice.progress import Step
from evenslice.volume.array import Volume


def lag_parts(
    predictions: NDArray[np.uint8], truths: NDArray[np.uint8], classes: int
) -> tuple[float, float] | None:
    """Measure one window's lag in slices, as a numerator and a denominator to be summed over windows.

    With d(k) the Dice of a prediction with the truth of slice z + k, the parabola through d(-1), d(0), d(1) has its top at
    (d(1) - d(-1)) / (2 (2 d(0) - d(1) - d(-1))) slices. The reversal of the window must lag to the other side as far if the
    model leans, and to the same side if the tissue itself moves: half of the difference is the model's.

    Parameters
    ----------
    predictions
        Classes (2, y, x) predicted for a window and for its reversal.
    truths
        Classes (3, y, x) of the slices before, at, and after the centre.
    classes
        Number of classes with background.

    Returns
    -------
    tuple or None
        Numerator and denominator; None where some slice holds no foreground.
    """
    tops, bottoms = [], []
    for prediction in predictions:
        fits = [scores_of(confusion(prediction, truth, classes)).dice for truth in truths]
        if any(fit is None for fit in fits):
            return None
        before, here, after = (float(fit) for fit in fits if fit is not None)
        tops.append(after - before)
        bottoms.append(2 * (2 * here - after - before))
    return (tops[0] - tops[1]) / 2, (bottoms[0] + bottoms[1]) / 2


Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """What is asked of every window.

    Attributes
    ----------
    methods
        Families of evidence.
    design
        See ``orders_of``.
    region
        See ``decision``.
    truth, target
        Labels of the volume and what they mean, or None.
    seed
        Of noise.
    label
        Name of the model on what is shown.
    """

    methods: tuple[str, ...]
    design: Design = "reversal"
    region: Region = "predicted"
    truth: Volume | None = None
    target: Target | None = None
    seed: int = 0
    label: str = "model"


@dataclass(frozen=True)
class Found:
    """What one window gave.

    Attributes
    ----------
    importance
        By method (arrangements, S): the window, its reversal, then what the design adds.
    incompleteness
        By method the largest over the arrangements.
    change, flipped
        Mean absolute change of probability under the reversal, and fraction of pixels whose class flips.
    lag
        Numerator and denominator, or None without labels or foreground.
    view
        To look at.
    """

    importance: dict[str, Floats]
    incompleteness: dict[str, float]
    change: float
    flipped: float
    lag: tuple[float, float] | None
    view: WindowView | None


def measure(
    scene: ModelOnVolume,
    question: Question,
    sites: Sequence[SampledWindow],
    step: Step,
    keep: Callable[[WindowView], None] | None = None,
) -> Iterator[Found]:
    """Measure windows, a few at a time, each with its reversal, which is made before normalisation.

    ``keep`` is given every window to look at, for example to write it.
    """
    group = max(1, scene.at_once // 2)
    for start in range(0, len(sites), group):
        part = list(read_sites(scene.volume, scene.slices, sites[start : start + group]))
        for found in examine(scene, question, part):
            if keep is not None and found.view is not None:
                keep(found.view)
            yield found
            step()


def examine(
    scene: ModelOnVolume, question: Question, part: list[tuple[SampledWindow, Raw]]
) -> Iterator[Found]:
    """Measure some raw windows (S, y, x) of one size together."""
    orders = slice_orders(scene.slices, question.design)
    arranged = np.concatenate([raw[orders] for _, raw in part])  # (windows * arrangements, S, y, x)
    x, many = scene.normalised(arranged), len(orders)
    truths = [_truths(scene, question, site) for site, _ in part]
    pairs = torch.arange(len(x), device=x.device).reshape(-1, many)[:, :2].flatten()
    coefficients, logits, slope = _first_look(scene, question, x[pairs], truths)
    per_row = coefficients.repeat_interleave(many, dim=0)
    full, gradients = _complete(scene, question, x, per_row, logits, slope, pairs)
    evidence = gather(
        scene, question.methods, arranged, x, per_row, full, orders, gradients, question.seed
    )
    for number, (site, raw) in enumerate(part):
        rows = slice(number * many, (number + 1) * many)
        counts = (
            0.0 if raw.min() == raw.max() else 1.0
        )  # no picture, no evidence: dropped with what has no importance
        both = logits[2 * number : 2 * number + 2]
        change, flipped = reversal_response(both)
        shown = None if evidence.maps is None else evidence.maps[number * many]
        yield Found(
            importance={
                name: values[rows] * counts for name, values in evidence.importance.items()
            },
            incompleteness={
                name: float(values[rows].max()) for name, values in evidence.incompleteness.items()
            },
            change=change,
            flipped=flipped,
            lag=_lag(question, both, truths[number]),
            view=_view(scene, question, site, raw, shown, both, truths[number]),
        )


def _first_look(
    scene: ModelOnVolume,
    question: Question,
    pairs: Tensor,
    truths: Sequence[NDArray[np.uint8] | None],
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run windows and their reversals (2W, S, y, x): coefficients (W, C, y, x), logits, and absolute gradients if wanted.

    One forward and one backward pass: the decision is made from the logits that the gradient goes through.
    """
    wanted = "gradient" in question.methods
    x = pairs.detach().requires_grad_(wanted)
    with torch.set_grad_enabled(wanted):
        logits = logits_of(scene.module, x, scene.stride)
    mean = logits.detach().reshape(-1, 2, *logits.shape[1:]).mean(1)
    labels = None
    if question.region == "truth":
        centres = np.stack([truth[1] for truth in truths if truth is not None]).astype(np.int64)
        labels = torch.from_numpy(centres).to(mean.device)
    coefficients = decision(mean, question.region, labels)
    if not wanted:
        return coefficients, logits, None
    (slope,) = torch.autograd.grad((coefficients.repeat_interleave(2, dim=0) * logits).sum(), x)
    return coefficients, logits.detach(), slope.abs()


def _complete(
    scene: ModelOnVolume,
    question: Question,
    x: Tensor,
    coefficients: Tensor,
    logits: Tensor,
    slope: Tensor | None,
    pairs: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Return the margins (N, y, x) and the absolute gradients of every arrangement, the pairs being known."""
    full = torch.empty((len(x), *logits.shape[-2:]), dtype=torch.float64, device=x.device)
    full[pairs] = (coefficients[pairs].double() * logits.double()).sum(dim=1)
    rest = torch.tensor(
        sorted(set(range(len(x))) - set(pairs.tolist())), dtype=torch.int64, device=x.device
    )
    if not len(rest):
        return full, slope
    full[rest] = scene.margins(x[rest], coefficients[rest])
    if slope is None:
        return full, None
    gradients = torch.empty_like(x)
    gradients[pairs] = slope
    gradients[rest] = torch.cat(
        [found.abs() for found, _ in scene.gradients(x[rest], coefficients[rest])]
    )
    return full, gradients


def reversal_response(logits: Tensor) -> tuple[float, float]:
    """Return how far the prediction moves under the reversal.

    Parameters
    ----------
    logits
        (2, C, y, x): of a window and of its reversal.

    Returns
    -------
    tuple
        Mean over pixels of the absolute change of probability (of several classes half the summed changes: the total
        variation, which for two classes is the change of either), and the fraction of pixels whose class flips.
    """
    probabilities = probabilities_of(logits.double())
    first, second = probabilities
    change = (first - second).abs().sum(0) * (1.0 if len(first) == 1 else 0.5)
    one, other = classes_of(probabilities)
    return float(change.mean()), float((one != other).double().mean())


def _truths(
    scene: ModelOnVolume, question: Question, site: SampledWindow
) -> NDArray[np.uint8] | None:
    """Read the classes of the slices before, at and after the centre, (3, y, x); beyond the ends the centre's."""
    if question.truth is None or question.target is None:
        return None
    depth = scene.volume.shape[0]
    low, high = max(site.z - 1, 0), min(site.z + 2, depth)
    labels = question.target.apply(question.truth.read((slice(low, high), site.y, site.x)))
    return labels[[min(max(z, low), high - 1) - low for z in (site.z - 1, site.z, site.z + 1)]]


def _lag(
    question: Question, logits: Tensor, truths: NDArray[np.uint8] | None
) -> tuple[float, float] | None:
    if truths is None or question.target is None:
        return None
    classes = max(2, question.target.classes)
    if truths.max() >= classes:
        return None
    return lag_parts(classes_of(probabilities_of(logits)).cpu().numpy(), truths, classes)


def _view(
    scene: ModelOnVolume,
    question: Question,
    site: SampledWindow,
    raw: Raw,
    slots: Tensor | None,
    logits: Tensor,
    truths: NDArray[np.uint8] | None,
) -> WindowView:
    probability = probabilities_of(logits[:1])[0]
    prediction = probability[0] if len(probability) == 1 else probability.argmax(0)
    return WindowView(
        label=question.label,
        origin=(site.z, site.y.start, site.x.start),
        slices=raw,
        attribution=None if slots is None else slots.float().cpu().numpy(),
        prediction=prediction.float().cpu().numpy(),
        truth=None if truths is None else truths[1],
        voxel_nm=scene.volume.voxel_nm,
    )
