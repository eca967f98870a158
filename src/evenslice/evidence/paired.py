"""Statistics of paired cells of a study: means over blocks, tests, equivalence, multiplicity."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evenslice.evidence.shares import Floats

MOST_EXACT = 14
RESAMPLES = 9999
SAME = 1e-12


@dataclass(frozen=True)
class Mean:
    """A mean over blocks."""

    value: float  # mean of the block means: every block counts alike
    error: float  # its standard error; NaN where there is none
    freedom: int  # degrees of freedom of the error: cells less blocks
    cells: int
    blocks: int

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the two-sided t interval, NaN where there is none."""
        if not math.isfinite(self.error):
            return math.nan, math.nan
        from scipy.stats import t

        half = float(t.ppf((1 + confidence) / 2, self.freedom)) * self.error
        return self.value - half, self.value + half

    def p_above(self, limit: float) -> float:
        """Return the one-sided p of the hypothesis that the mean is at most ``limit``."""
        if not math.isfinite(self.error):
            return math.nan
        if self.error == 0:
            return 0.0 if self.value > limit else 1.0
        from scipy.stats import t

        return float(t.sf((self.value - limit) / self.error, self.freedom))

    def p_zero(self) -> float:
        """Return the two-sided p of the hypothesis that the mean is 0."""
        if self.error == 0:
            return 0.0 if self.value else 1.0
        return 2 * (self if self.value > 0 else self.reflected()).p_above(0.0)

    def reflected(self) -> "Mean":
        """Return the mean of the negated values."""
        return replace(self, value=-self.value)

    def p_equivalent(self, margin: float) -> float:
        """Return the larger p of the two one-sided tests of lying within +-margin.

        (Schuirmann 1987, doi:10.1007/BF01068419.)
        """
        return max(self.p_above(-margin), self.reflected().p_above(-margin))


def blocked_mean(values: Sequence[float], blocks: Sequence[str]) -> Mean:
    """Estimate a mean over blocks that all count alike, as fixed effects of a block design.

    value = mean of the block means; its variance is s^2 / B^2 * sum of 1 / n_b, with s^2 the
    variance within blocks, pooled over the B blocks (Cochran and Cox, Experimental Designs, 1957,
    chapter 4), and N - B degrees of freedom. What is concluded holds for these blocks; nothing is
    said of others. With one cell per block there is no error, and no interval. Values and blocks,
    for example datasets, are given per cell.
    """
    numbers: Floats = np.asarray(values, np.float64)
    names, member = np.unique(np.asarray(blocks), return_inverse=True)
    counts = np.bincount(member)
    means = np.bincount(member, numbers) / counts
    freedom, value, error = len(numbers) - len(names), float(means.mean()), math.nan
    if freedom > 0:
        spread = float(np.square(numbers - means[member]).sum()) / freedom
        error = math.sqrt(spread * float((1 / counts).sum())) / len(names)
        error = error if error > SAME * max(1.0, abs(value)) else 0.0
    return Mean(value, error, freedom, len(numbers), len(names))


def sign_flip(values: Sequence[float], blocks: Sequence[str], seed: int = 0) -> float:
    """Return the two-sided p of a mean over blocks by flipping signs (Fisher 1935).

    Exact up to 14 cells, else from 9999 random flips, the found one counted among them. It assumes
    no distribution; with n cells it cannot be below 2 / 2^n.
    """
    numbers: Floats = np.asarray(values, np.float64)
    _, member = np.unique(np.asarray(blocks), return_inverse=True)
    weights = numbers / (np.bincount(member)[member] * (member.max() + 1))
    if len(numbers) <= MOST_EXACT:
        signs: Floats = np.array(list(itertools.product((1.0, -1.0), repeat=len(numbers))))
    else:
        drawn = np.random.default_rng(seed).choice((1.0, -1.0), (RESAMPLES, len(numbers)))
        signs = np.concatenate([np.ones((1, len(numbers))), drawn])
    found = np.abs(signs @ weights)
    return float((found >= found[0] - SAME * max(1.0, float(found[0]))).mean())


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust several p values (Holm 1979, Scand. J. Statist. 6:65); NaN stays, uncounted."""
    known = sorted((p, place) for place, p in enumerate(ps) if not math.isnan(p))
    adjusted, highest = [math.nan] * len(ps), 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[place] = highest
    return adjusted
