"""How far a segmentation into objects lies from the true one, as partitions of the voxels: adapted Rand error, variation of information.

Both come from the table of shared voxels alone. With n_ij voxels in true segment i and predicted segment j, row sums t_i (truth), column
sums s_j (prediction) and N voxels in all:

- adapted Rand error = 1 - F, F = 2 P R / (P + R), with precision P = sum n_ij (n_ij - 1) / sum s_j (s_j - 1) and recall
  R = sum n_ij (n_ij - 1) / sum t_i (t_i - 1): the share of the voxel pairs joined by the prediction that the truth joins too, and the other
  way round. Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142. (scikit-image counts pairs of different voxels as here, but returns
  recall where its documentation says precision, and the reverse.)
- variation of information = H(prediction | truth) + H(truth | prediction), in bits: splits and merges. Meila 2007,
  doi:10.1016/j.jmva.2006.11.013.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenslice.labels.contingency import Pairs


@dataclass(frozen=True)
class Partition:
    """Scores of a partition; all None when no voxel was counted.

    Attributes
    ----------
    adapted_rand_error
        0 (perfect) to 1.
    adapted_rand_precision, adapted_rand_recall
        0..1; low precision tells of merges, low recall of splits. None where there is no pair of voxels to judge.
    voi_split, voi_merge
        H(prediction | truth) and H(truth | prediction), bits, 0 or more; their sum is ``voi``.
    """

    adapted_rand_error: float | None
    adapted_rand_precision: float | None
    adapted_rand_recall: float | None
    voi_split: float | None
    voi_merge: float | None

    @property
    def voi(self) -> float | None:
        """Variation of information, bits."""
        return None if self.voi_split is None or self.voi_merge is None else self.voi_split + self.voi_merge

    def to_dict(self) -> dict[str, float | None]:
        """Return the scores as JSON can hold them."""
        return {
            "adapted_rand_error": self.adapted_rand_error,
            "adapted_rand_precision": self.adapted_rand_precision,
            "adapted_rand_recall": self.adapted_rand_recall,
            "voi_split": self.voi_split,
            "voi_merge": self.voi_merge,
            "voi": self.voi,
        }


NOTHING = Partition(None, None, None, None, None)


def partition_scores(pairs: Pairs) -> Partition:
    """Score a partition: every label in the table is a segment, 0 too.

    Sums are exact (whole numbers, or ``math.fsum``), so names and order of the segments change no digit.
    """
    if not len(pairs.count):
        return NOTHING
    _, real, i = pairs.sizes(pairs.truth)
    _, guess, j = pairs.sizes(pairs.prediction)
    both, joined_real, joined_guess = _pairs_within(pairs.count), _pairs_within(real), _pairs_within(guess)
    every = joined_real + joined_guess
    return Partition(
        adapted_rand_error=(every - 2 * both) / every if every else 0.0,
        adapted_rand_precision=both / joined_guess if joined_guess else None,
        adapted_rand_recall=both / joined_real if joined_real else None,
        voi_split=_conditional_entropy(pairs.count, real[i]),
        voi_merge=_conditional_entropy(pairs.count, guess[j]),
    )


def _pairs_within(sizes: NDArray[np.int64]) -> int:
    """Return sum n (n - 1), in whole numbers of any size."""
    largest = int(sizes.max())
    if largest * largest * len(sizes) < 2**63:
        return int(sizes @ (sizes - 1))
    return sum(n * (n - 1) for n in sizes.tolist())


def _conditional_entropy(count: NDArray[np.int64], whole: NDArray[np.int64]) -> float:
    """Return sum n/N log2(m/n) for pairs of n voxels in segments of m."""
    bits = count * np.log2(whole / count)
    return math.fsum(bits.tolist()) / int(count.sum())
