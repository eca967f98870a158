"""Results from the importance in many windows: shares, pairs, index, verdict, similarity, lag."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.evidence.result import Latin, MethodResult
from evenslice.evidence.shares import Floats, index_parts, pair_parts, shares_of
from evenslice.evidence.stats import Interval, confidence_each, method_verdict, ratio_interval
from evenslice.labels.metrics import confusion, scores_of

COPY = "ablation-copy"
FEWEST_FOR_LAG = 2
CLEAR_ERRORS = 2.0
Clusters = NDArray[np.intp]


def method_result(
    importance: Floats, clusters: Clusters, margin: float, confidence: float, seed: int
) -> MethodResult:
    """Turn the importance (windows, 2, S) of windows and reversals into the result of a method.

    The intervals of the mirror pairs hold together: with P pairs each has confidence
    1 - (1 - confidence) / P. Raises ``BadInputError`` if no window has any importance.
    """
    shares, clusters = _used(importance, clusters)
    by_slot = _share_intervals(shares, clusters, confidence, seed)
    if len(by_slot) == 1:
        return MethodResult(
            by_slot, (), None, "abstained", len(shares), len(set(clusters.tolist()))
        )
    tops, bottoms = pair_parts(shares)
    each = confidence_each(confidence, tops.shape[1])
    pairs = tuple(
        _within(ratio_interval(top, bottom, clusters, each, seed), -1.0)
        for top, bottom in zip(tops.T, bottoms.T, strict=True)
    )
    outer = 1.0 - by_slot[len(by_slot) // 2].value
    blocks = len(set(clusters.tolist()))
    verdict = method_verdict(pairs, outer, blocks, margin)
    index = _within(ratio_interval(*index_parts(shares), clusters, confidence, seed), -1.0)
    return MethodResult(by_slot, pairs, index, verdict, len(shares), blocks)


def silent_result(slices: int) -> MethodResult:
    """Return that of a method which found no importance in any window: abstained, its shares 0.

    So ``ablation-copy``, which never moves the centre, of a model that looks at the centre alone.
    """
    zero = (Interval(0.0, 0.0, 0.0),) * slices
    return MethodResult(zero, zero[: slices // 2], zero[0], "abstained")


def apply_abstention(methods: Mapping[str, MethodResult]) -> dict[str, MethodResult]:
    """Let ``ablation-copy`` abstain where every method that sees the centre does.

    It cannot tell by itself how little the neighbours count.
    """
    others = [method.verdict for name, method in methods.items() if name != COPY]
    if COPY not in methods or not others or set(others) != {"abstained"}:
        return dict(methods)
    return {name: replace(method, verdict="abstained") for name, method in methods.items()}


def latin_result(
    importance: Floats, clusters: Clusters, margin: float, confidence: float, seed: int
) -> Latin:
    """Decide whether all slots are alike, from (windows, 2S, S) of all shifts and reversals.

    A slot is compared with the equal share 1/S as a mirror pair is with its partner:
    (share - 1/S) / (share + 1/S). ``alike`` if that lies inside +-margin for every slot, ``unlike``
    if entirely beyond for any; the intervals hold together.
    """
    shares, clusters = _used(importance, clusters)
    slices = shares.shape[1]
    by_slot = _share_intervals(shares, clusters, confidence_each(confidence, slices), seed)
    equal = 1.0 / slices
    apart = [[(end - equal) / (end + equal) for end in (slot.low, slot.high)] for slot in by_slot]
    verdict = "inconclusive"
    if any(low > margin or high < -margin for low, high in apart):
        verdict = "unlike"
    elif all(-margin <= low and high <= margin for low, high in apart):
        verdict = "alike"
    return Latin(by_slot, verdict)


def lag_parts(
    predictions: NDArray[np.uint8], truths: NDArray[np.int64], classes: int
) -> tuple[float, float] | None:
    """Measure one window's lag in slices, as a numerator and a denominator to be summed.

    With d(k) the Dice of a prediction with the ground truth of slice z + k, the parabola through
    d(-1), d(0), d(1) has its top at (d(1) - d(-1)) / (2 (2 d(0) - d(1) - d(-1))) slices. The
    reversal of the window must lag to the other side as far if the model is asymmetric, and to the
    same side if the tissue itself moves: half of the difference is the model's. None where some
    slice holds no foreground.

    ``predictions`` are the classes (2, y, x) for a window and for its reversal, ``truths`` those
    (3, y, x) of the slices before, at, and after the centre, -1 where unknown.
    """
    tops, bottoms = [], []
    for prediction in predictions:
        fits = [scores_of(confusion(prediction, truth, classes, -1)).dice for truth in truths]
        known = [float(fit) for fit in fits if fit is not None]
        if len(known) < len(fits):
            return None
        before, here, after = known
        tops.append(after - before)
        bottoms.append(2 * (2 * here - after - before))
    return (tops[0] - tops[1]) / 2, (bottoms[0] + bottoms[1]) / 2


def lag_result(
    parts: Sequence[tuple[float, float] | None], clusters: Clusters, confidence: float, seed: int
) -> Interval | None:
    """Estimate the lag in slices; None without labels, or where slices differ too little.

    That is where predictions do not fit their own slice better than its neighbours by two standard
    errors.
    """
    known = np.array([part is not None for part in parts])
    if known.sum() < FEWEST_FOR_LAG:
        return None
    tops, bottoms = np.array([part for part in parts if part is not None]).T
    if bottoms.mean() <= CLEAR_ERRORS * bottoms.std() / len(bottoms) ** 0.5:
        return None
    return ratio_interval(tops, bottoms, clusters[known], confidence, seed)


def _used(importance: Floats, clusters: Clusters) -> tuple[Floats, Clusters]:
    """Return the shares and blocks of the windows that have any importance."""
    shares = shares_of(importance)
    used = np.isfinite(shares).all(axis=1)
    if not used.any():
        raise BadInputError(
            "no window has any importance, expected a picture in the windows and an output that "
            "depends on it; check the volume and the model"
        )
    return shares[used], clusters[used]


def _share_intervals(
    shares: Floats, clusters: Clusters, confidence: float, seed: int
) -> tuple[Interval, ...]:
    return tuple(
        _within(ratio_interval(share, np.ones(len(share)), clusters, confidence, seed), 0.0)
        for share in shares.T
    )


def _within(interval: Interval, low: float) -> Interval:
    """Cut an interval to what the quantity can be: low to 1. NaN ends stay."""
    if np.isnan(interval.low):
        return interval
    return Interval(interval.value, max(interval.low, low), min(interval.high, 1.0))
