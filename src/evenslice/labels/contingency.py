"""How many voxels each pair of a true and a predicted segment shares: a sparse table, gathered box by box.

Labels of segments come in long runs, so what is sorted is the runs (stretches along x in which neither label changes), not the voxels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError

STRIP = 2**17  # voxels looked at together: they stay in a processor's cache
MOST_RUNS = 2**20
MOST_CELLS = 2**22
_Columns = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]


@dataclass(frozen=True)
class Pairs:
    """Sparse contingency table: one row a pair of segments that share voxels, sorted by truth, then prediction.

    Attributes
    ----------
    truth, prediction
        Labels (pairs,), uint64.
    count
        Voxels of the pair (pairs,), int64, above 0.
    """

    truth: NDArray[np.uint64]
    prediction: NDArray[np.uint64]
    count: NDArray[np.int64]

    def without(self, label: int) -> "Pairs":
        """Leave out a label of the truth."""
        keep = self.truth != label
        return Pairs(self.truth[keep], self.prediction[keep], self.count[keep])

    @property
    def voxels(self) -> int:
        """How many voxels were counted."""
        return int(self.count.sum())

    def sizes(self, of: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.intp]]:
        """Return the segments in a column, their sizes in voxels, and for each pair the position of its segment."""
        names, place = np.unique(of, return_inverse=True)
        found = np.zeros(len(names), np.int64)
        np.add.at(found, place, self.count)
        return names, found, place


class PairCounter:
    """Counts pairs of labels box by box; what it holds grows with the number of pairs, not of voxels.

    Parameters
    ----------
    ignore
        Truth label whose voxels are not counted, or None. It alone may be negative.
    """

    def __init__(self, ignore: int | None = None) -> None:
        self._ignore = ignore
        self._runs: list[_Columns] = []
        self._waiting = 0
        self._table: _Columns = (np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64))

    def add(self, prediction: NDArray[Any], truth: NDArray[Any], where: str = "the labels") -> None:
        """Count the voxels of a box.

        Parameters
        ----------
        prediction, truth
            Whole numbers of any integer type, 0 or more, same shape.
        where
            For messages.

        Raises
        ------
        BadInputError
            If there are negative labels.
        ValueError
            If the shapes differ or the numbers are not of an integer type.
        """
        if prediction.shape != truth.shape or prediction.dtype.kind not in "bui" or truth.dtype.kind not in "bui":
            raise ValueError(
                f"prediction {prediction.shape} {prediction.dtype}, truth {truth.shape} {truth.dtype}, expected integers of one shape"
            )
        guess, real = prediction.ravel(), truth.ravel()
        for start in range(0, len(real), STRIP):
            self._add_strip(guess[start : start + STRIP], real[start : start + STRIP], where)

    def table(self) -> Pairs:
        """Return what was counted so far."""
        self._settle()
        return Pairs(*self._table)

    def _add_strip(self, guess: NDArray[Any], real: NDArray[Any], where: str) -> None:
        change = guess[1:] != guess[:-1]
        change |= real[1:] != real[:-1]
        starts = np.concatenate([[0], np.flatnonzero(change) + 1])
        lengths = np.diff(starts, append=len(real))
        guess, real = guess[starts], real[starts]
        if self._ignore is not None:
            keep = real != self._ignore
            guess, real, lengths = guess[keep], real[keep], lengths[keep]
        for values, name in ((guess, "prediction"), (real, "truth")):
            if values.size and values.min() < 0:
                raise BadInputError(
                    f"the {name} holds the negative label {values.min()} ({where}), expected 0 or more; renumber it"
                )
        self._runs.append((real.astype(np.uint64), guess.astype(np.uint64), lengths))
        self._waiting += len(lengths)
        if self._waiting > max(MOST_RUNS, len(self._table[2])):
            self._settle()

    def _settle(self) -> None:
        if not self._runs:
            return
        runs = _grouped(*(np.concatenate(column) for column in zip(*self._runs, strict=True)))
        joined = (np.concatenate(both) for both in zip(self._table, runs, strict=True))
        self._table = _grouped(*joined) if len(self._table[2]) else runs
        self._runs, self._waiting = [], 0


def _grouped(truth: NDArray[np.uint64], prediction: NDArray[np.uint64], count: NDArray[np.int64]) -> _Columns:
    """Add up the counts of equal pairs, and sort the pairs."""
    if not len(count):
        return truth, prediction, count
    low_t, low_p = truth.min(), prediction.min()
    tall, wide = int(truth.max() - low_t) + 1, int(prediction.max() - low_p) + 1
    if tall * wide > 2**64:
        return _grouped_by_two_columns(truth, prediction, count)
    key = (truth - low_t) * np.uint64(wide % 2**64) + (prediction - low_p)
    if tall * wide <= max(MOST_CELLS, 4 * len(count)):
        # Sums of whole numbers below 2^53 are exact in float64.
        sums = np.bincount(key.astype(np.int64), weights=count)
        cells = np.flatnonzero(sums)
        rows, columns = np.divmod(cells, wide)
        return rows.astype(np.uint64) + low_t, columns.astype(np.uint64) + low_p, sums[cells].astype(np.int64)
    order = np.argsort(key)
    first = _firsts(key[order])
    chosen = order[first]
    return truth[chosen], prediction[chosen], np.add.reduceat(count[order], first)


def _grouped_by_two_columns(
    truth: NDArray[np.uint64], prediction: NDArray[np.uint64], count: NDArray[np.int64]
) -> _Columns:
    order = np.lexsort((prediction, truth))
    truth, prediction = truth[order], prediction[order]
    new = np.ones(len(order), bool)
    new[1:] = (truth[1:] != truth[:-1]) | (prediction[1:] != prediction[:-1])
    first = np.flatnonzero(new)
    return truth[first], prediction[first], np.add.reduceat(count[order], first)


def _firsts(ordered: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return where equal values begin."""
    return np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])
