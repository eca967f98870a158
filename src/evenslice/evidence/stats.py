"""What can be said from a sample of windows: block bootstrap intervals and verdicts by equivalence. numpy and scipy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenslice.evidence.shares import Floats, ratio

RESAMPLES = 9999
FEWEST_FOR_BCA = 12
FEWEST_FOR_VERDICT = 6
SAME = 1e-6
LEAST_OUTER_SHARE = 0.02
TOO_FEW = "inconclusive: too few blocks"


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; the ends are NaN where there is no interval."""

    value: float
    low: float
    high: float


def ratio_interval(top: Floats, bottom: Floats, clusters: NDArray[np.intp], confidence: float, seed: int) -> Interval:
    """Estimate mean(top) / mean(bottom) with an interval from whole blocks of the volume.

    Blocks, never pixels or windows, are resampled: windows of one block look at the same tissue. From 12 blocks on
    BCa (Efron 1987, doi:10.1080/01621459.1987.10478410); below, a t interval with the linearised variance of the
    ratio (Cochran, Sampling Techniques, 1977, section 6.3). Blocks whose ratios agree to 1e-6 give that point.

    Parameters
    ----------
    top, bottom
        One number a window; bottom is above 0.
    clusters
        The block that each window lies in.
    confidence
        For example 0.95.
    seed
        Seed of the resampling.
    """
    _, member = np.unique(clusters, return_inverse=True)
    tops: Floats = np.bincount(member, top).astype(np.float64)
    bottoms: Floats = np.bincount(member, bottom).astype(np.float64)
    value = float(ratio(tops.sum(), bottoms.sum()))
    ratios = ratio(tops, bottoms)
    if len(tops) == 1:
        return Interval(value, float("nan"), float("nan"))
    if np.ptp(ratios) <= SAME:
        return Interval(value, value, value)
    if len(tops) < FEWEST_FOR_BCA:
        return _studentised(tops, bottoms, value, confidence)
    from scipy.stats import bootstrap

    found = bootstrap(
        (tops, bottoms),
        lambda a, b, axis: ratio(a.sum(axis=axis), b.sum(axis=axis)),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(value, float(found.low), float(found.high))


def _studentised(tops: Floats, bottoms: Floats, value: float, confidence: float) -> Interval:
    from scipy.stats import t

    count = len(tops)
    residual = (tops - value * bottoms) / bottoms.mean()
    reach = float(t.ppf((1 + confidence) / 2, count - 1)) * float(
        np.sqrt(np.square(residual).sum() / (count * (count - 1)))
    )
    return Interval(value, value - reach, value + reach)


def method_verdict(pairs: Sequence[Interval], outer_share: float, blocks: int, margin: float) -> str:
    """Return the verdict of one method, by equivalence rather than by p > 0.05.

    ``abstained`` if there is no pair or the outer slots together hold under 2 % of importance, ``inconclusive: too
    few blocks`` under 6 blocks, ``symmetric`` if the interval of every pair lies inside +-margin, ``asymmetric`` if
    any lies entirely beyond it, else ``inconclusive``.
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
    """Combine the methods: asymmetric if any is, symmetric if all that did not abstain are, else inconclusive.

    A model whose slots are normalised differently (``uniform`` false) is never certified symmetric.
    """
    spoken = [v for v in verdicts if v != "abstained"]
    if "asymmetric" in spoken:
        return "asymmetric"
    if not spoken:
        return "abstained"
    if all(v == "symmetric" for v in spoken):
        return "symmetric" if uniform else "inconclusive"
    return TOO_FEW if all(v in (TOO_FEW, "symmetric") for v in spoken) else "inconclusive"
