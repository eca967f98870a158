"""Which objects were found: true and predicted objects matched one to one by their overlap.

At an IoU above 0.5 an object has one partner at most, so the matching is unique and needs no search. F1 = 2 TP / (2 TP + FP + FN), and
panoptic quality = sum of matched IoU / (TP + FP / 2 + FN / 2): Kirillov et al. 2019, doi:10.1109/CVPR.2019.00963.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenslice.labels.contingency import Pairs

PERCENTS = tuple(range(50, 100, 5))


@dataclass(frozen=True)
class Matching:
    """How many objects were found, at each IoU.

    Attributes
    ----------
    truth_objects, predicted_objects
        How many there are; label 0 is none.
    matched
        For each threshold in percent (50, 55, ... 95) the number of pairs whose IoU is above it.
    mean_iou
        Of the pairs with an IoU above 0.5; None without any.
    panoptic_quality
        0..1; None when the truth holds no object.
    """

    truth_objects: int
    predicted_objects: int
    matched: dict[int, int]
    mean_iou: float | None
    panoptic_quality: float | None

    def f1(self, percent: int = 50) -> float | None:
        """Return F1 at an IoU above ``percent``; None when the truth holds no object."""
        if not self.truth_objects:
            return None
        return 2 * self.matched[percent] / (self.truth_objects + self.predicted_objects)

    def to_dict(self) -> dict[str, Any]:
        """Return the matching as JSON can hold it."""
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
    """Match objects by IoU; label 0 is background on both sides, and what lies in it is wrong, not left out.

    Parameters
    ----------
    pairs
        Shared voxels, those of the background included.
    """
    truths, real, i = pairs.sizes(pairs.truth)
    guesses, guess, j = pairs.sizes(pairs.prediction)
    objects = (pairs.truth != 0) & (pairs.prediction != 0)
    shared = pairs.count[objects]
    union = real[i][objects] + guess[j][objects] - shared
    number_real, number_guess = int(np.count_nonzero(truths)), int(np.count_nonzero(guesses))
    matched = {percent: _above(shared, union, percent) for percent in PERCENTS}
    found = 2 * shared > union
    total = math.fsum((shared[found] / union[found]).tolist())
    return Matching(
        truth_objects=number_real,
        predicted_objects=number_guess,
        matched=matched,
        mean_iou=total / matched[50] if matched[50] else None,
        panoptic_quality=2 * total / (number_real + number_guess) if number_real else None,
    )


def _above(shared: NDArray[np.int64], union: NDArray[np.int64], percent: int) -> int:
    """Count the pairs whose IoU is above a threshold, compared in whole numbers."""
    return int(np.count_nonzero(100 * shared > percent * union))
