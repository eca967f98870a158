"""Do outlines lie where they should: the boundary F-score of a class, within the slices.

Csurka, Larlus, Perronnin 2013, "What is a good evaluation measure for semantic segmentation?", doi:10.5244/C.27.32: precision is the share of
predicted boundary pixels with a true one within a tolerance, recall the share of true ones with a predicted one, F their harmonic mean.
Here the pixels of all slices are counted together (there: a mean over images), so that slices without outlines need no rule.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_Mask = NDArray[np.bool_]


@dataclass
class BoundaryCounter:
    """Boundary pixels of each class and how many of them have a partner, gathered slice by slice.

    Attributes
    ----------
    tolerance
        Largest distance in pixels (Euclidean, within the slice) that still counts as hit.
    """

    tolerance: float
    counts: dict[int, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def halo(self) -> int:
        """Rows beyond a band that are needed to judge its own."""
        return math.floor(self.tolerance) + 1

    def add(
        self,
        prediction: NDArray[np.integer],
        truth: NDArray[np.integer],
        keep: _Mask | None,
        rows: slice,
        classes: list[int],
    ) -> None:
        """Count the boundary pixels of some classes in one slice, or in a band of it.

        Parameters
        ----------
        prediction, truth
            Class numbers (y, x).
        keep
            Pixels to look at (y, x), None for all; steps between others are no boundary.
        rows
            The rows to count; ``halo`` more on each side should be given where the slice goes on.
        classes
            Those to look at.
        """
        for number in classes:
            guess, real = outline(prediction == number, keep), outline(truth == number, keep)
            found = (guess[rows] & near(real, self.tolerance)[rows], guess[rows])
            missed = (real[rows] & near(guess, self.tolerance)[rows], real[rows])
            here = np.array([np.count_nonzero(marks) for marks in (*found, *missed)])
            self.counts[number] = self.counts.get(number, np.zeros(4, np.int64)) + here

    def score(self, number: int) -> float | None:
        """Return the F-score of a class; None where neither side has a boundary."""
        hit, guessed, recalled, real = (int(n) for n in self.counts.get(number, np.zeros(4)))
        if not guessed and not real:
            return None
        precision, recall = hit / max(guessed, 1), recalled / max(real, 1)
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def outline(mask: _Mask, keep: _Mask | None = None) -> _Mask:
    """Mark the pixels of a mask (y, x) that touch (4 neighbours) a pixel outside it; the rim of the image is no boundary."""
    found = np.zeros_like(mask)
    down, right = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    if keep is not None:
        down &= keep[1:] & keep[:-1]
        right &= keep[:, 1:] & keep[:, :-1]
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= right
    found[:, :-1] |= right
    return found & mask


def near(marks: _Mask, tolerance: float) -> _Mask:
    """Mark the pixels with a mark within a Euclidean distance, in pixels: each row is widened, then carried up and down."""
    height = len(marks)
    found, wide, width = np.zeros_like(marks), marks.copy(), 0
    for step in range(min(math.floor(tolerance), height - 1), -1, -1):
        reach = math.floor(math.sqrt(tolerance**2 - step**2))
        while width < reach:
            width += 1
            wide[:, width:] |= marks[:, :-width]
            wide[:, :-width] |= marks[:, width:]
        found[step:] |= wide[: height - step]
        found[: height - step] |= wide[step:]
    return found
