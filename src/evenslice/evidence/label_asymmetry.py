"""Whether labels fit the slice before or the slice after better, from volume and labels alone.

The fit f(k) of the labels of slice z with slice z + k is the contrast across their border there. If
labels lag, f is shifted. With g the fit of labels that do not, an even function of k, and a part p
of the slices labelled as their next slice should be, f(k) = (1 - p) g(k) + p g(k - 1), and so

    p = (f(1) - f(-1)) / (f(0) + f(1) - f(-1) - f(2))

for every g. A shift of all labels by a fraction d of a slice, f(k) = g(k - d), gives d by the same
formula: exactly at 0, 1/2 and 1, and for a linear or quadratic g at any d between.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from evenslice.evidence.shares import Floats
from evenslice.evidence.stats import (
    FEWEST_FOR_BOOTSTRAP,
    FEWEST_FOR_VERDICT,
    Interval,
    ratio_interval,
)
from evenslice.labels.targets import Target
from evenslice.options import JsonObject
from evenslice.volume.array import Roi, Volume
from evenslice.volume.inputs import check_same_shape
from evenslice.volume.normalisation import check_finite

REACH = 2  # slices on either side
BAND = 8  # pixels on either side of a border
RUN, RUNS = 5, 16  # consecutive slices of a block; blocks of a large volume
MOST_PIXELS = 2**24  # of all slices together
LABEL_MARGIN = 0.1
CLEAR = 3.0  # standard errors
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class LabelAsymmetry:
    """How well labels fit the slices around their own.

    Attributes
    ----------
    target
        What the labels were taken for: ``foreground``, ``boundary`` or ``classes``.
    fits
        Contrast of the labels with the slices 2 and 1 before, their own, and 1 and 2 after: mean
        inside minus mean outside of the border, in standard deviations of the slice, its sign
        chosen so that their own slices give a positive one. Empty where nothing could be measured.
    asymmetry
        With its confidence interval, -1..1: 0.25 says that the labels fit as if they lay a quarter
        of a slice later, or a quarter of the slices had the labels of the next; below 0 earlier, or
        of the previous one. None where the fits do not tell.
    verdict
        ``symmetric`` if the interval lies inside +-``margin``, ``asymmetric toward previous`` or
        ``asymmetric toward next`` if entirely beyond, else ``inconclusive``.
    sections, blocks
        How many labelled slices were measured, in how many blocks.
    per_class
        The same of each foreground class, where there are several.
    """

    target: str
    fits: tuple[float, ...]
    asymmetry: Interval | None
    verdict: str
    sections: int
    blocks: int
    margin: float
    per_class: Mapping[int, "LabelAsymmetry"] = field(default_factory=dict)

    @property
    def lag(self) -> float | None:
        """The asymmetry in slices; None where the best fit may lie more than a slice away."""
        inside = self.asymmetry is not None and max(self.fits) not in (self.fits[0], self.fits[-1])
        return self.asymmetry.value if inside and self.asymmetry is not None else None

    @property
    def text(self) -> str:
        """The result in one line."""
        one, fits, words = self.asymmetry, self.fits, self.verdict.split(" toward ")
        if one is None:
            return (
                f"Labels ({self.target}): inconclusive; the {self.sections} slices measured do not "
                "tell whether the previous or the next slice fits better."
            )
        sizes = f"{one.value:+.3f} slices ({one.low:+.3f} to {one.high:+.3f})"
        how = words[0] if len(words) == 1 else f"fit the {words[1]} slice better"
        return (
            f"Labels ({self.target}): {how}, {sizes}; contrast {fits[REACH - 1]:.3f} in the "
            f"previous slice, {fits[REACH + 1]:.3f} in the next, {fits[REACH]:.3f} in their own."
        )

    def to_dict(self) -> JsonObject:
        """Return it as JSON can hold it."""
        one = self.asymmetry
        classes = {str(n): found.to_dict() for n, found in self.per_class.items()}
        return {
            "target": self.target,
            "asymmetry": one and one.value,
            "low": one and one.low,
            "high": one and one.high,
            "verdict": self.verdict,
            "lag": self.lag,
            "margin": self.margin,
            "fits": list(self.fits),
            "sections": self.sections,
            "blocks": self.blocks,
            "text": self.text,
            **({"per_class": classes} if classes else {}),
        }


def label_asymmetry(
    volume: Volume,
    labels: Volume,
    target: Target,
    *,
    margin: float = LABEL_MARGIN,
    confidence: float = 0.95,
    seed: int = 0,
) -> LabelAsymmetry:
    """Measure how well labels fit the slices before and after; reversed in z, all is negated.

    At most 80 slices are measured, with two slices on either side, and at most 2^24 pixels: in runs
    of up to 5 consecutive slices, spread evenly. A run is a block; blocks are what the interval is
    from (``ratio_interval``). A slice counts by the number of labelled pixels at a border. Slices
    beside a blank one are left out, as are pixels whose label is ignored.

    Parameters
    ----------
    volume, labels
        Of the same shape (z, y, x).
    target
        What the labels mean; see ``resolve_target``.
    margin, confidence
        Of the verdict and of the interval.
    seed
        Of the boxes, in slices too large to be read whole, and of the bootstrap.

    Raises
    ------
    BadInputError
        If the shapes differ, or the volume holds NaN or infinity where it is read.
    """
    check_same_shape(volume, labels)
    classes = range(1, max(2, target.classes))
    blocks = [_block(volume, labels, target, box, classes) for box in _boxes(volume.shape, seed)]
    parts = np.reshape(blocks, (-1, len(classes), 2 * REACH + 3))  # sums of fits, weight, count
    for number in range(len(classes)):
        around = parts[:, number, REACH - 1 : REACH + 2].ravel()
        parts[:, number, : 2 * REACH + 1] *= 1 if math.fsum(around) >= 0 else -1
    each = {
        label: _result(target.kind, parts[:, number], margin, confidence, seed)
        for number, label in enumerate(classes)
    }
    if len(each) == 1:
        return each[1]
    sums = parts.sum(axis=1)
    sums[:, -1] = parts[:, :, -1].max(axis=1)
    found = _result(target.kind, sums, margin, confidence, seed)
    return LabelAsymmetry(**{**vars(found), "per_class": each})


def _boxes(shape: tuple[int, int, int], seed: int) -> Iterator[Roi]:
    """Yield the box of slices of each block; the blocks of the reversed volume are the same."""
    depth, *sides = shape
    inner = max(0, depth - 2 * REACH)
    length, half, starts = RUN, inner, [n * (inner - RUN) // (RUNS - 1) for n in range(RUNS // 2)]
    if inner <= RUN * RUNS:
        length, half = min(RUN, max(1, inner // FEWEST_FOR_BOOTSTRAP)), inner // 2
        starts = list(range(0, half, length))
    first = [slice(REACH + n, REACH + min(n + length, half)) for n in starts]
    last = [slice(depth - run.stop, depth - run.start) for run in reversed(first)]
    alone = inner % 2 and half < inner
    runs = [*first, *([slice(depth // 2, depth // 2 + 1)] if alone else []), *last]
    side = math.isqrt(MOST_PIXELS // max(1, sum(run.stop - run.start for run in runs)))
    for number, z in enumerate(runs):
        rng = np.random.default_rng([seed, min(number, len(runs) - 1 - number)])
        places = [int(rng.integers(max(1, size - side + 1))) for size in sides]
        y, x = (slice(low, min(size, low + side)) for low, size in zip(places, sides, strict=True))
        yield z, y, x


def _block(volume: Volume, labels: Volume, target: Target, box: Roi, classes: range) -> Floats:
    """Sum over the slices of a block, per class: 5 fits times their weight, weight, count."""
    run, y, x = box
    raw = volume.read((slice(run.start - REACH, run.stop + REACH), y, x))
    check_finite(raw, f"{volume.source} slices {run.start - REACH}:{run.stop + REACH}")
    spreads = [float(plane.std(dtype=np.float64)) for plane in raw]
    known = target.known(labels.read(box))
    found = np.zeros((len(known), len(classes), 2 * REACH + 3))
    for n, marks in enumerate(known):
        window = slice(n, n + 2 * REACH + 1)
        if min(spreads[window]) == 0:
            continue
        for row, label in zip(found[n], classes, strict=True):
            inside, outside = _border(marks == label, marks >= 0)
            weight = np.count_nonzero(inside)
            if not weight or not outside.any():
                continue
            for k, (plane, std) in enumerate(zip(raw[window], spreads[window], strict=True)):
                means = [plane[side].mean(dtype=np.float64) for side in (inside, outside)]
                row[k] = weight * (means[0] - means[1]) / std
            row[-2:] = weight, 1
    return np.asarray(np.sort(found, axis=0).sum(axis=0))  # the same from either end of the run


def _border(mask: Mask, known: Mask) -> tuple[Mask, Mask]:
    """Return the pixels of a mask (y, x) that lie near its border, and those near it outside."""
    size = 2 * BAND + 1
    return mask & ~minimum_filter(mask, size), known & ~mask & maximum_filter(mask, size)


def _result(
    kind: str, parts: Floats, margin: float, confidence: float, seed: int
) -> LabelAsymmetry:
    """Estimate the asymmetry from the sums of blocks (blocks, 7); their order does not matter."""
    parts = parts[parts[:, -2] > 0]
    sections, blocks, weight = int(parts[:, -1].sum()), len(parts), math.fsum(parts[:, -2])
    fits = tuple(math.fsum(column) / weight for column in parts.T[:-2]) if blocks else ()
    side = 1 if math.fsum(parts[:, REACH + 1] - parts[:, REACH - 1]) >= 0 else -1
    here, toward, away = parts[:, REACH], parts[:, REACH + side], parts[:, REACH - side]
    tops, bottoms = toward - away, (here + toward) - (away + parts[:, REACH + 2 * side])
    order = np.lexsort((bottoms, tops))  # so that the reversal has the same resamples
    tops, bottoms = tops[order], bottoms[order]
    interval, verdict = None, "inconclusive"
    if blocks >= FEWEST_FOR_VERDICT and bottoms.mean() > CLEAR * bottoms.std() / blocks**0.5:
        one = ratio_interval(tops, bottoms, np.arange(blocks), confidence, seed)
        ends = sorted(side * min(1.0, max(-1.0, end)) for end in (one.low, one.high))
        interval = Interval(side * min(1.0, one.value) + 0.0, ends[0] + 0.0, ends[1] + 0.0)
        if -margin <= interval.low and interval.high <= margin:
            verdict = "symmetric"
        elif interval.low > margin:
            verdict = "asymmetric toward next"
        elif interval.high < -margin:
            verdict = "asymmetric toward previous"
    return LabelAsymmetry(kind, fits, interval, verdict, sections, blocks, margin)
