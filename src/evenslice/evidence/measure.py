"""Measuring windows method by method: arrange, normalise, explain, until a method is decided."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenslice.evidence.attribution import Arranged, gradient, importance_of
from evenslice.evidence.model_on_volume import Floats, ModelOnVolume, explained_target
from evenslice.evidence.result import MethodResult
from evenslice.evidence.sampling import Raw, SampledWindow, read_windows, slice_orders
from evenslice.evidence.stats import confidence_each, is_decided
from evenslice.evidence.summary import apply_abstention, lag_parts, method_result, silent_result
from evenslice.evidence.window_view import WindowView
from evenslice.model.predict import classes_of, logits_of, probabilities_of
from evenslice.options import AuditOptions
from evenslice.progress import Step

Labels = NDArray[np.int64]  # classes, -1 where unknown
KEPT_BYTES = 2**29  # of windows, for the methods after the first


@dataclass(frozen=True)
class WindowFacts:
    """What is known of one window whatever the method."""

    change: float  # see ``reversal_response``
    flipped: float
    lag: tuple[float, float] | None  # see ``lag_parts``; None without labels or foreground
    blank: tuple[int, ...] = ()  # its slices of one value: such a window is not used


class Measurement:
    """Windows of an audit measured method by method, each until it is decided.

    Every method looks at the first windows of one order, at the same planned numbers of them, and
    stops by itself: its intervals hold over its own looks. What one method computes of a window
    (its forward pass, the ablated ones) is kept for the methods after it.

    Attributes
    ----------
    methods
        Results by method, at its last look.
    facts, views
        Of all windows that were measured by any method; of the first ones, for showing.
    incompleteness
        By method, for each of its windows the largest over the arrangements.
    """

    def __init__(
        self,
        subject: ModelOnVolume,
        options: AuditOptions,
        windows: Sequence[SampledWindow],
        looks: Sequence[int],
        views: int = 0,
    ) -> None:
        self.methods: dict[str, MethodResult] = {}
        self.facts: list[WindowFacts] = []
        self.views: list[WindowView] = []
        self.incompleteness: dict[str, list[float]] = {}
        self._subject, self._options, self._shown = subject, options, views
        self._windows, self._looks = windows, looks
        self._each = confidence_each(options.confidence, len(looks))
        self._importance: dict[str, list[Floats]] = {}
        self._kept: dict[int, Arranged] = {}

    @property
    def asymmetric(self) -> bool:
        """Whether a method has found asymmetry."""
        found = apply_abstention(self.methods).values()
        return any(method.verdict == "asymmetric" for method in found)

    @property
    def windows(self) -> Sequence[SampledWindow]:
        """The windows that were measured by any method."""
        return self._windows[: len(self.facts)]

    def importance(self, name: str) -> tuple[Floats, NDArray[np.intp]]:
        """Return the importance (windows, arrangements, S) by one method, and their blocks."""
        values = np.stack(self._importance[name])
        return values, np.array([w.cluster for w in self._windows[: len(values)]], np.intp)

    def run(
        self, methods: Sequence[str], step: Step, write: Callable[[WindowView], None] | None = None
    ) -> None:
        """Measure windows by methods that share their runs, until each of them is decided.

        Once any method has found asymmetry, more windows cannot change the verdict of the audit:
        a method then has its first look only. ``write`` takes the view of every window.
        """
        left, start = list(methods), 0
        for end in self._looks:
            self._measure(left, range(start, end), step, write)
            start = end
            for name in tuple(left):
                values, clusters = self.importance(name)
                margin, seed, values = self._options.margin, self._options.seed, values[:, :2]
                found = silent_result(values.shape[2])
                if values.any():
                    found = method_result(values, clusters, margin, self._each, seed)
                self.methods[name] = found
                if is_decided(found.verdict):
                    left.remove(name)
            if not left or self.asymmetric:
                return

    def _measure(
        self,
        methods: Sequence[str],
        numbers: range,
        step: Step,
        write: Callable[[WindowView], None] | None,
    ) -> None:
        group = max(1, self._subject.batch // 2)
        for first in numbers[::group]:
            windows = self._windows[first : min(first + group, numbers.stop)]
            arranged = self._arranged(first, windows, methods)
            found = importance_of(self._subject, arranged, methods, self._options.seed)
            count, arranged.gradient = len(arranged.orders), None
            for place, window in enumerate(windows):
                rows = slice(place * count, (place + 1) * count)
                blank = blank_slices(window, arranged.raw[rows.start])
                for name, slots in found.slots.items():
                    used = slots[rows] * float(not blank)  # one of no importance is dropped
                    self._importance.setdefault(name, []).append(used)
                for name, errors in found.incompleteness.items():
                    self.incompleteness.setdefault(name, []).append(float(errors[rows].max()))
                if first + place == len(self.facts):
                    self.facts.append(facts_of(self._subject, arranged, place, blank))
                if write is not None or first + place < self._shown:
                    attribution = None if found.maps is None else found.maps[rows.start]
                    self._show(
                        first + place,
                        _view(self._subject, window, arranged, place, attribution),
                        write,
                    )
                step()

    def _arranged(
        self, first: int, windows: Sequence[SampledWindow], methods: Sequence[str]
    ) -> Arranged:
        """Return windows as they were arranged for an earlier method, or arrange them."""
        if first in self._kept:
            return self._kept[first]
        subject = self._subject
        raws = [raw for _, raw in read_windows(subject.volume, subject.slices, windows)]
        arranged = arrange(subject, self._options, windows, raws, methods)
        if sum(one.size_bytes for one in self._kept.values()) < KEPT_BYTES:
            self._kept[first] = arranged
        return arranged

    def _show(
        self, number: int, view: WindowView, write: Callable[[WindowView], None] | None
    ) -> None:
        if write is not None:
            write(view)
        if number == len(self.views) and number < self._shown:
            self.views.append(view)
        elif number < self._shown and self.views[number].attribution is None:
            self.views[number] = view


def arrange(
    subject: ModelOnVolume,
    options: AuditOptions,
    windows: Sequence[SampledWindow],
    raws: Sequence[Raw],
    methods: Sequence[str],
) -> Arranged:
    """Arrange raw windows (S, y, x) of one size, run them, and fix what is explained of each.

    With the gradient where one of the ``methods`` needs that of the windows themselves: the pairs
    of a window and its reversal take one forward and one backward pass, for the target is made from
    the logits that the gradient goes through.
    """
    by_gradient = bool({"gradient", "input-x-gradient"} & set(methods))
    orders = slice_orders(subject.slices, options.design)
    raw = np.concatenate([raw[orders] for raw in raws])  # (windows * arrangements, S, y, x)
    labels = [_labels_around(subject, window) for window in windows]
    x, count = subject.normalised(raw), len(orders)
    row = torch.arange(len(x), device=x.device)
    pairs, others = row[row % count < 2], row[row % count >= 2]
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
        gradients[pairs] = torch.autograd.grad(explained, first)[0]
    logits, coefficients = logits.detach(), target.repeat_interleave(count, dim=0)
    margins = torch.empty((len(x), *logits.shape[-2:]), dtype=torch.float64, device=x.device)
    margins[pairs] = (coefficients[pairs].double() * logits.double()).sum(dim=1)
    if len(others):
        margins[others] = subject.margins(x[others], coefficients[others])
        if gradients is not None:
            gradients[others] = gradient(subject, x[others], coefficients[others])
    return Arranged(raw, x, coefficients, logits, margins, orders, labels, gradients)


def importance_by(
    subject: ModelOnVolume, method: str, windows: Sequence[tuple[SampledWindow, Raw]], seed: int
) -> Floats:
    """Measure the importance (windows, 2, S) by one method in raw windows and their reversals."""
    options, group, found = AuditOptions(), max(1, subject.batch // 2), []
    for start in range(0, len(windows), group):
        sites, raws = zip(*windows[start : start + group], strict=True)
        arranged = arrange(subject, options, sites, raws, (method,))
        found.append(importance_of(subject, arranged, (method,), seed).slots[method])
    used = np.array([not blank_slices(*window) for window in windows])
    return np.asarray(np.concatenate(found).reshape(len(windows), 2, -1) * used[:, None, None])


def blank_slices(window: SampledWindow, raw: Raw) -> tuple[int, ...]:
    """Return which slices of a raw window (S, y, x) hold one value, as of a lost section."""
    first = window.z - len(raw) // 2
    return tuple(first + n for n, plane in enumerate(raw) if plane.min() == plane.max())


def facts_of(
    subject: ModelOnVolume, arranged: Arranged, place: int, blank: tuple[int, ...]
) -> WindowFacts:
    """Compare the predictions for a window and its reversal, and with the ground truth."""
    both = arranged.logits[2 * place : 2 * place + 2]
    lag = None if blank else _lag(subject, both, arranged.labels[place])
    return WindowFacts(*reversal_response(both), lag, blank)


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
    arranged: Arranged,
    place: int,
    attribution: Tensor | None,
) -> WindowView:
    probability = probabilities_of(arranged.logits[2 * place : 2 * place + 1])[0]
    prediction = probability[0] if len(probability) == 1 else probability.argmax(0)
    labels = arranged.labels[place]
    return WindowView(
        label=subject.label,
        origin=(window.z, window.y.start, window.x.start),
        slices=arranged.raw[place * len(arranged.orders)],
        attribution=None if attribution is None else attribution.float().cpu().numpy(),
        prediction=prediction.float().cpu().numpy(),
        truth=None if labels is None else labels[1].clip(0),
        voxel_nm=subject.volume.voxel_nm,
    )
