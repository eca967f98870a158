"""Intervals by bootstrap over blocks, verdicts by equivalence, and when to stop sampling."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from evenslice.evidence.shares import Floats, ratio

LOOKS = (6, 12, 16, 24, 32, 48, 64)
MOST_WINDOWS = LOOKS[-1]
RESAMPLES = 4999
FEWEST_FOR_BOOTSTRAP = 12
FEWEST_FOR_VERDICT = 6
SAME = 1e-6
LEAST_OUTER_SHARE = 0.02
TOO_FEW = "inconclusive: too few blocks"


def planned_looks(available: int, windows: int | None) -> tuple[int, ...]:
    """Return after how many of the available windows the results are looked at.

    Without a fixed number of windows that is after 6, 12, 16, 24, 32, 48 and 64 of them, or, of
    fewer than 12, after all.
    """
    if windows is not None:
        return (min(windows, available),)
    looks = tuple(look for look in LOOKS if look <= available)
    return looks if len(looks) > 1 else (available,)


def confidence_each(confidence: float, looks: int) -> float:
    """Return the confidence of each look so that all looks hold together with ``confidence``."""
    return 1.0 - (1.0 - confidence) / looks


def is_decided(verdict: str) -> bool:
    """Whether more windows can add nothing to the verdict of a method."""
    return verdict in ("symmetric", "asymmetric", "abstained")


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; the ends are NaN where there is no interval."""

    value: float
    low: float
    high: float


def ratio_interval(
    top: Floats, bottom: Floats, clusters: NDArray[np.intp], confidence: float, seed: int
) -> Interval:
    """Estimate mean(top) / mean(bottom) with an interval from whole blocks of the volume.

    Blocks, never pixels or windows, are resampled: windows of one block show the same tissue. From
    12 blocks on the studentised bootstrap (Efron and Tibshirani 1993, chapter 12), for n blocks at
    the level whose normal quantile is larger by n / (n - 1), against the narrowness of bootstrap
    intervals (Hesterberg 2015, doi:10.1080/00031305.2015.1089789; the factor was chosen by
    simulation, benchmarks/coverage.py). Below 12 a t interval. Both take the linearised variance of
    a ratio (Cochran, Sampling Techniques, 1977, section 6.3). Blocks whose ratios agree to 1e-6
    give that point. Per window are given: two numbers, the bottom above 0, and its block.
    """
    _, member = np.unique(clusters, return_inverse=True)
    tops: Floats = np.bincount(member, top).astype(np.float64)
    bottoms: Floats = np.bincount(member, bottom).astype(np.float64)
    value = float(ratio(tops.sum(), bottoms.sum()))
    if len(tops) == 1:
        return Interval(value, float("nan"), float("nan"))
    if np.ptp(ratio(tops, bottoms)) <= SAME:
        return Interval(value, value, value)
    error = float(_error(np.ones((1, len(tops))), tops, bottoms)[1][0])
    if len(tops) >= FEWEST_FOR_BOOTSTRAP:
        low, high = _bootstrap_t(tops, bottoms, confidence, seed)
    else:
        from scipy.stats import t

        high = float(t.ppf((1 + confidence) / 2, len(tops) - 1))
        low = -high
    return Interval(value, value - high * error, value - low * error)


def _error(weights: Floats, tops: Floats, bottoms: Floats) -> tuple[Floats, Floats]:
    """Return the ratio and its standard error, each (resamples,); block k counts weights[:, k]."""
    count = len(tops)
    below = weights @ bottoms
    values = ratio(weights @ tops, below)
    residuals = (
        weights @ np.square(tops)
        - 2 * values * (weights @ (tops * bottoms))
        + values**2 * (weights @ np.square(bottoms))
    )
    return values, ratio(np.sqrt(np.maximum(residuals, 0) / (count * (count - 1))), below / count)


@lru_cache(maxsize=4)
def _resamples(count: int, seed: int) -> Floats:
    """Draw how often each block is in each resample, (resamples, blocks), once for all results."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return np.asarray(drawn, np.float64)


def _bootstrap_t(
    tops: Floats, bottoms: Floats, confidence: float, seed: int
) -> tuple[float, float]:
    """Return the quantiles of (ratio of a resample - ratio) / its standard error."""
    from scipy.stats import norm

    count = len(tops)
    level = 2 * float(norm.cdf(norm.ppf((1 + confidence) / 2) * count / (count - 1))) - 1
    values, errors = _error(_resamples(count, seed), tops, bottoms)
    value = float(ratio(tops.sum(), bottoms.sum()))
    usable = errors > 0
    low, high = np.quantile(
        (values[usable] - value) / errors[usable], [(1 - level) / 2, (1 + level) / 2]
    )
    return float(low), float(high)


def method_verdict(
    pairs: Sequence[Interval], outer_share: float, blocks: int, margin: float
) -> str:
    """Return the verdict of one method, by equivalence rather than by p > 0.05.

    ``abstained`` if there is no pair or the outer slots together hold under 2 % of importance,
    ``inconclusive: too few blocks`` under 6 blocks, ``symmetric`` if the interval of every pair
    lies inside +-margin, ``asymmetric`` if any lies entirely beyond it, else ``inconclusive``.
    """
    if not pairs or outer_share < LEAST_OUTER_SHARE:
        return "abstained"
    if blocks < FEWEST_FOR_VERDICT:
        return TOO_FEW
    if any(pair.low > margin or pair.high < -margin for pair in pairs):
        return "asymmetric"
    if all(-margin <= pair.low and pair.high <= margin for pair in pairs):
        return "symmetric"
    return "inconclusive"


def overall_verdict(verdicts: Sequence[str], uniform: bool = True) -> str:
    """Combine the methods: asymmetric if any is, symmetric if all that gave a verdict are.

    A model whose slots are normalised differently (``uniform`` false) is never certified symmetric.
    """
    given = [v for v in verdicts if v != "abstained"]
    if "asymmetric" in given:
        return "asymmetric"
    if not given:
        return "abstained"
    if all(v == "symmetric" for v in given):
        return "symmetric" if uniform else "inconclusive"
    return TOO_FEW if all(v in (TOO_FEW, "symmetric") for v in given) else "inconclusive"


MOST_EXACT = 14
RESAMPLES_PAIRED = 9999
SAME_PAIRED = 1e-12


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
        error = error if error > SAME_PAIRED * max(1.0, abs(value)) else 0.0
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
        drawn = np.random.default_rng(seed).choice((1.0, -1.0), (RESAMPLES_PAIRED, len(numbers)))
        signs = np.concatenate([np.ones((1, len(numbers))), drawn])
    found = np.abs(signs @ weights)
    return float((found >= found[0] - SAME_PAIRED * max(1.0, float(found[0]))).mean())


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust several p values (Holm 1979, Scand. J. Statist. 6:65); NaN stays, uncounted."""
    known = sorted((p, place) for place, p in enumerate(ps) if not math.isnan(p))
    adjusted, highest = [math.nan] * len(ps), 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[place] = highest
    return adjusted
