"""Measuring windows: arrange, normalise, explain; each with its reversal, on the same pixels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenslice.evidence.attribution import Arranged, gradient, importance_of
from evenslice.evidence.model_on_volume import Floats, ModelOnVolume, explained_target
from evenslice.evidence.sampling import Raw, SampledWindow, read_windows, slice_orders
from evenslice.evidence.summary import lag_parts
from evenslice.evidence.window_view import WindowView
from evenslice.model.predict import classes_of, logits_of, probabilities_of
from evenslice.options import AuditOptions
from evenslice.progress import Step

Labels = NDArray[np.int64]  # classes, -1 where unknown


@dataclass(frozen=True)
class WindowResult:
    """What was measured in one window."""

    importance: dict[str, Floats]  # by method (arrangements, S): window, reversal, then the others
    incompleteness: dict[str, float]  # by method the largest over the arrangements
    change: float  # see ``reversal_response``
    flipped: float
    lag: tuple[float, float] | None  # see ``lag_parts``; None without labels or foreground
    view: WindowView | None  # None once it was dropped


def measure(
    subject: ModelOnVolume,
    options: AuditOptions,
    windows: Sequence[SampledWindow],
    step: Step,
    write: Callable[[WindowView], None] | None = None,
) -> Iterator[WindowResult]:
    """Measure windows, a few at a time; ``write`` takes the view of every one."""
    group = max(1, subject.batch // 2)
    for start in range(0, len(windows), group):
        part = read_windows(subject.volume, subject.slices, windows[start : start + group])
        for result in examine(subject, options, list(part)):
            if write is not None and result.view is not None:
                write(result.view)
            yield result
            step()


def examine(
    subject: ModelOnVolume, options: AuditOptions, part: Sequence[tuple[SampledWindow, Raw]]
) -> Iterator[WindowResult]:
    """Measure some raw windows (S, y, x) of one size together."""
    orders = slice_orders(subject.slices, options.design)
    count = len(orders)
    raw = np.concatenate([raw[orders] for _, raw in part])  # (windows * arrangements, S, y, x)
    labels = [_labels_around(subject, window) for window, _ in part]
    arranged, logits = _explained(subject, options, raw, orders, labels)
    found = importance_of(subject, arranged, options.methods or (), options.seed)
    for number, (window, window_raw) in enumerate(part):
        rows = slice(number * count, (number + 1) * count)
        # A window without a picture has no importance, and is dropped like others without any.
        weight = 0.0 if window_raw.min() == window_raw.max() else 1.0
        both = logits[2 * number : 2 * number + 2]
        change, flipped = reversal_response(both)
        attribution = None if found.maps is None else found.maps[number * count]
        yield WindowResult(
            importance={name: slots[rows] * weight for name, slots in found.slots.items()},
            incompleteness={
                name: float(errors[rows].max()) for name, errors in found.incompleteness.items()
            },
            change=change,
            flipped=flipped,
            lag=_lag(subject, both, labels[number]),
            view=_view(subject, window, window_raw, attribution, both, labels[number]),
        )


def _explained(
    subject: ModelOnVolume,
    options: AuditOptions,
    raw: Raw,
    orders: NDArray[np.intp],
    labels: Sequence[Labels | None],
) -> tuple[Arranged, Tensor]:
    """Fix what is explained of each window; return it and the logits (2W, C, y, x) of the pairs.

    The pairs of a window and its reversal take one forward and one backward pass: the target is
    made from the logits that the gradient goes through.
    """
    x, count = subject.normalised(raw), len(orders)
    row = torch.arange(len(x), device=x.device)
    pairs, others = row[row % count < 2], row[row % count >= 2]
    by_gradient = "gradient" in (options.methods or ())
    first = x[pairs].detach().requires_grad_(by_gradient)
    with torch.set_grad_enabled(by_gradient):
        logits = logits_of(subject.module, first, subject.stride)
    mean = logits.detach().reshape(-1, 2, *logits.shape[1:]).mean(1)
    truth = None
    if options.region == "truth":
        centres = np.stack([around[1] for around in labels if around is not None])
        truth = torch.from_numpy(centres).to(mean.device)
    target = explained_target(mean, options.region, truth)
    gradients = None
    if by_gradient:
        explained = (target.repeat_interleave(2, dim=0) * logits).sum()
        gradients = torch.empty_like(x)
        gradients[pairs] = torch.autograd.grad(explained, first)[0].abs()
    logits, coefficients = logits.detach(), target.repeat_interleave(count, dim=0)
    margins = torch.empty((len(x), *logits.shape[-2:]), dtype=torch.float64, device=x.device)
    margins[pairs] = (coefficients[pairs].double() * logits.double()).sum(dim=1)
    if len(others):
        margins[others] = subject.margins(x[others], coefficients[others])
        if gradients is not None:
            gradients[others] = gradient(subject, x[others], coefficients[others])
    return Arranged(raw, x, coefficients, margins, orders, gradients), logits


def reversal_response(logits: Tensor) -> tuple[float, float]:
    """Return how far the prediction moves, from the logits (2, C, y, x) of window and reversal.

    That is the mean over pixels of the absolute change of probability (of several classes half the
    summed changes: the total variation, which for two classes is the change of either), and the
    fraction of pixels whose class flips.
    """
    probabilities = probabilities_of(logits.double())
    first, second = probabilities
    change = (first - second).abs().sum(0) * (1.0 if len(first) == 1 else 0.5)
    one, other = classes_of(probabilities)
    return float(change.mean()), float((one != other).double().mean())


def _labels_around(subject: ModelOnVolume, window: SampledWindow) -> Labels | None:
    """Read the classes (3, y, x) before, at and after the centre; beyond the ends the last ones."""
    if subject.labels is None or subject.target is None:
        return None
    z, low, high = window.z, max(window.z - 1, 0), min(window.z + 2, subject.volume.shape[0])
    labels = subject.target.known(subject.labels.read((slice(low, high), window.y, window.x)))
    return labels[[min(max(one, low), high - 1) - low for one in (z - 1, z, z + 1)]]


def _lag(
    subject: ModelOnVolume, logits: Tensor, labels: Labels | None
) -> tuple[float, float] | None:
    if labels is None or subject.target is None:
        return None
    classes = max(2, subject.target.classes)
    if labels.max() >= classes:
        return None
    return lag_parts(classes_of(probabilities_of(logits)).cpu().numpy(), labels, classes)


def _view(
    subject: ModelOnVolume,
    window: SampledWindow,
    raw: Raw,
    attribution: Tensor | None,
    logits: Tensor,
    labels: Labels | None,
) -> WindowView:
    probability = probabilities_of(logits[:1])[0]
    prediction = probability[0] if len(probability) == 1 else probability.argmax(0)
    return WindowView(
        label=subject.label,
        origin=(window.z, window.y.start, window.x.start),
        slices=raw,
        attribution=None if attribution is None else attribution.float().cpu().numpy(),
        prediction=prediction.float().cpu().numpy(),
        truth=None if labels is None else labels[1].clip(0),
        voxel_nm=subject.volume.voxel_nm,
    )
