"""How objects overlap: one sparse table of shared voxels, and the scores that come from it.

Adapted Rand error and variation of information compare partitions. Matching asks which objects were
found: at an IoU above 0.5 an object has one partner at most, so it needs no search.
F1 = 2 TP / (2 TP + FP + FN), and panoptic quality = sum of matched IoU / (TP + FP / 2 + FN / 2):
Kirillov et al. 2019, doi:10.1109/CVPR.2019.00963.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.labels.blocks import Labels
from evenslice.options import JsonObject

STRIP = 2**17  # voxels counted together: they stay in a processor's cache
MOST_RUNS = 2**20
MOST_CELLS = 2**22
_Columns = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]


@dataclass(frozen=True)
class Pairs:
    """Sparse contingency table: one row per pair of segments that share voxels, sorted."""

    truth: NDArray[np.uint64]  # labels (pairs,)
    prediction: NDArray[np.uint64]
    count: NDArray[np.int64]  # voxels of the pair, above 0

    def without(self, label: int) -> "Pairs":
        """Leave out a label of the ground truth."""
        keep = self.truth != label
        return Pairs(self.truth[keep], self.prediction[keep], self.count[keep])

    @property
    def voxels(self) -> int:
        """How many voxels were counted."""
        return int(self.count.sum())

    def sizes(
        self, of: NDArray[np.uint64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.intp]]:
        """Return the segments of a column, their voxels, and the index of each pair's segment."""
        names, place = np.unique(of, return_inverse=True)
        found = np.zeros(len(names), np.int64)
        np.add.at(found, place, self.count)
        return names, found, place


class PairCounter:
    """Counts pairs of labels box by box; its memory grows with the pairs, not the voxels.

    The ground truth label ``ignore`` is not counted. It alone may be negative.
    """

    def __init__(self, ignore: int | None = None) -> None:
        self._ignore = ignore
        self._runs: list[_Columns] = []
        self._new = 0
        self._table: _Columns = (
            np.zeros(0, np.uint64),
            np.zeros(0, np.uint64),
            np.zeros(0, np.int64),
        )

    def add(self, prediction: Labels, truth: Labels, where: str = "the labels") -> None:
        """Count the voxels of a box: whole numbers of any integer type, same shape.

        Raises ``BadInputError`` if there are negative labels, naming ``where``.
        """
        guess, real = prediction.ravel(), truth.ravel()
        for start in range(0, len(real), STRIP):
            self._add_strip(guess[start : start + STRIP], real[start : start + STRIP], where)

    def table(self) -> Pairs:
        """Return what was counted so far."""
        self._merge()
        return Pairs(*self._table)

    def _add_strip(self, guess: Labels, real: Labels, where: str) -> None:
        change = guess[1:] != guess[:-1]
        change |= real[1:] != real[:-1]
        starts = np.concatenate([[0], np.flatnonzero(change) + 1])
        lengths = np.diff(starts, append=len(real))
        guess, real = guess[starts], real[starts]
        if self._ignore is not None:
            keep = real != self._ignore
            guess, real, lengths = guess[keep], real[keep], lengths[keep]
        for values, name in ((guess, "prediction"), (real, "ground truth")):
            if values.size and values.min() < 0:
                raise BadInputError(
                    f"the {name} holds the negative label {values.min()} ({where}), expected 0 or "
                    "more; renumber it"
                )
        self._runs.append((real.astype(np.uint64), guess.astype(np.uint64), lengths))
        self._new += len(lengths)
        if self._new > max(MOST_RUNS, len(self._table[2])):
            self._merge()

    def _merge(self) -> None:
        if not self._runs:
            return
        runs = _grouped(*(np.concatenate(column) for column in zip(*self._runs, strict=True)))
        joined = (np.concatenate(both) for both in zip(self._table, runs, strict=True))
        self._table = _grouped(*joined) if len(self._table[2]) else runs
        self._runs, self._new = [], 0


def _grouped(
    truth: NDArray[np.uint64], prediction: NDArray[np.uint64], count: NDArray[np.int64]
) -> _Columns:
    """Add up the counts of equal pairs, and sort the pairs."""
    if not len(count):
        return truth, prediction, count
    low_t, low_p = truth.min(), prediction.min()
    tall, wide = int(truth.max() - low_t) + 1, int(prediction.max() - low_p) + 1
    if tall * wide > 2**64:
        return _sum_runs(np.lexsort((prediction, truth)), truth, prediction, count)
    key = (truth - low_t) * np.uint64(wide % 2**64) + (prediction - low_p)
    if tall * wide <= max(MOST_CELLS, 4 * len(count)):
        # Sums of integers below 2^53 are exact in float64.
        sums = np.bincount(key.astype(np.int64), weights=count)
        cells = np.flatnonzero(sums)
        rows, columns = np.divmod(cells, wide)
        return (
            rows.astype(np.uint64) + low_t,
            columns.astype(np.uint64) + low_p,
            sums[cells].astype(np.int64),
        )
    return _sum_runs(np.argsort(key), truth, prediction, count)


def _sum_runs(
    order: NDArray[np.intp],
    truth: NDArray[np.uint64],
    prediction: NDArray[np.uint64],
    count: NDArray[np.int64],
) -> _Columns:
    """Put the pairs in an order and add up the counts of equal neighbours."""
    truth, prediction = truth[order], prediction[order]
    new = (truth[1:] != truth[:-1]) | (prediction[1:] != prediction[:-1])
    first = np.concatenate([[0], np.flatnonzero(new) + 1])
    return truth[first], prediction[first], np.add.reduceat(count[order], first)


@dataclass(frozen=True)
class Partition:
    """Scores of a partition; all None when no voxel was counted."""

    adapted_rand_error: float | None  # 0 (perfect) to 1
    adapted_rand_precision: float | None  # 0..1; low: merges. None without a pair of voxels
    adapted_rand_recall: float | None  # 0..1; low: splits
    voi_split: float | None  # H(prediction | truth), bits, 0 or more
    voi_merge: float | None  # H(truth | prediction); the sum of both is ``voi``

    @property
    def voi(self) -> float | None:
        """Variation of information, bits."""
        if self.voi_split is None or self.voi_merge is None:
            return None
        return self.voi_split + self.voi_merge

    def to_dict(self) -> dict[str, float | None]:
        """Return the scores as JSON takes them."""
        return {**asdict(self), "voi": self.voi}


NOTHING = Partition(None, None, None, None, None)


def partition_scores(pairs: Pairs) -> Partition:
    """Score a partition: every label in the table is a segment, 0 too.

    Sums are exact (integers, or ``math.fsum``): names and order of the segments change no digit.
    """
    if not len(pairs.count):
        return NOTHING
    _, real, i = pairs.sizes(pairs.truth)
    _, guess, j = pairs.sizes(pairs.prediction)
    both, joined_real, joined_guess = map(_pairs_within, (pairs.count, real, guess))
    every = joined_real + joined_guess
    return Partition(
        adapted_rand_error=(every - 2 * both) / every if every else 0.0,
        adapted_rand_precision=both / joined_guess if joined_guess else None,
        adapted_rand_recall=both / joined_real if joined_real else None,
        voi_split=_conditional_entropy(pairs.count, real[i]),
        voi_merge=_conditional_entropy(pairs.count, guess[j]),
    )


def _pairs_within(sizes: NDArray[np.int64]) -> int:
    """Return sum n (n - 1), exactly."""
    largest = int(sizes.max())
    if largest * largest * len(sizes) < 2**63:
        return int(sizes @ (sizes - 1))
    return sum(n * (n - 1) for n in sizes.tolist())


def _conditional_entropy(count: NDArray[np.int64], whole: NDArray[np.int64]) -> float:
    """Return sum n/N log2(m/n) for pairs of n voxels in segments of m."""
    bits = count * np.log2(whole / count)
    return math.fsum(bits.tolist()) / int(count.sum())


PERCENTS = tuple(range(50, 100, 5))


@dataclass(frozen=True)
class Matching:
    """How many objects were found, at each IoU; label 0 is none."""

    truth_objects: int
    predicted_objects: int
    matched: dict[int, int]  # by threshold in percent (50, 55, ... 95): pairs with an IoU above it
    mean_iou: float | None  # of the pairs with an IoU above 0.5; None without any
    panoptic_quality: float | None  # 0..1; None when the ground truth holds no object

    def f1(self, percent: int = 50) -> float | None:
        """Return F1 at an IoU above ``percent``; None when the ground truth holds no object."""
        if not self.truth_objects:
            return None
        return 2 * self.matched[percent] / (self.truth_objects + self.predicted_objects)

    def to_dict(self) -> JsonObject:
        """Return the matching as JSON takes it."""
        per_threshold = {
            f"{percent / 100:.2f}": {
                "f1": self.f1(percent),
                "precision": hits / self.predicted_objects if self.predicted_objects else None,
                "recall": hits / self.truth_objects if self.truth_objects else None,
                "matched": hits,
            }
            for percent, hits in self.matched.items()
        }
        return {
            "f1": self.f1(),
            "matching": per_threshold,
            "mean_matched_iou": self.mean_iou,
            "panoptic_quality": self.panoptic_quality,
            "objects": {"truth": self.truth_objects, "prediction": self.predicted_objects},
        }


def match_objects(pairs: Pairs) -> Matching:
    """Match objects by IoU; label 0 is background on both sides, and what lies in it is wrong.

    The table must hold the voxels of the background too.
    """
    truths, real, i = pairs.sizes(pairs.truth)
    guesses, guess, j = pairs.sizes(pairs.prediction)
    objects = (pairs.truth != 0) & (pairs.prediction != 0)
    shared = pairs.count[objects]
    union = real[i][objects] + guess[j][objects] - shared
    number_real, number_guess = int(np.count_nonzero(truths)), int(np.count_nonzero(guesses))
    # compared in whole numbers
    matched = {p: int(np.count_nonzero(100 * shared > p * union)) for p in PERCENTS}
    found = 2 * shared > union
    total = math.fsum((shared[found] / union[found]).tolist())
    return Matching(
        truth_objects=number_real,
        predicted_objects=number_guess,
        matched=matched,
        mean_iou=total / matched[50] if matched[50] else None,
        panoptic_quality=2 * total / (number_real + number_guess) if number_real else None,
    )
