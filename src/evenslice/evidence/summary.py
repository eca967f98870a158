"""From what the windows gave to results: shares, intervals and a verdict per method, lag, reversal. numpy only."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.evidence.result import Latin, MethodResult
from evenslice.evidence.shares import index_parts, pair_parts, shares_of
from evenslice.evidence.stats import Interval, method_verdict, ratio_interval

Floats = NDArray[np.float64]
LEAST_LAGGED = 2
COPY = "ablation-copy"
CLEAR = 2.0


def method_result(
    importance: Floats, clusters: NDArray[np.intp], margin: float, confidence: float, seed: int
) -> MethodResult:
    """Turn importance (windows, 2, S) of windows and reversals into shares, pairs and index with intervals, and a verdict.

    The intervals of the mirror pairs hold together: with P pairs each has confidence 1 - (1 - confidence) / P.

    Raises
    ------
    BadInputError
        If no window has any importance.
    """
    shares, clusters = _used(importance, clusters)
    by_slot = _share_intervals(shares, clusters, confidence, seed)
    if len(by_slot) == 1:
        return MethodResult(by_slot, (), None, "abstained")
    tops, bottoms = pair_parts(shares)
    each = 1.0 - (1.0 - confidence) / tops.shape[1]
    pairs = tuple(
        _within(ratio_interval(top, bottom, clusters, each, seed), -1.0)
        for top, bottom in zip(tops.T, bottoms.T, strict=True)
    )
    outer = 1.0 - by_slot[len(by_slot) // 2].value
    verdict = method_verdict(pairs, outer, len(set(clusters.tolist())), margin)
    index = _within(ratio_interval(*index_parts(shares), clusters, confidence, seed), -1.0)
    return MethodResult(by_slot, pairs, index, verdict)


def apply_abstention(methods: Mapping[str, MethodResult]) -> dict[str, MethodResult]:
    """Let ``ablation-copy`` abstain where every family that sees the centre does: it cannot tell how little the neighbours count."""
    others = [method.verdict for name, method in methods.items() if name != COPY]
    if COPY not in methods or not others or set(others) != {"abstained"}:
        return dict(methods)
    return {name: replace(method, verdict="abstained") for name, method in methods.items()}


def latin_result(
    importance: Floats, clusters: NDArray[np.intp], margin: float, confidence: float, seed: int
) -> Latin:
    """Say whether all slots are alike, from importance (windows, 2S, S) of every cyclic shift and its reversal.

    A slot is compared with the even share 1/S as a mirror pair is with its partner: (share - 1/S) / (share + 1/S).
    ``alike`` if that lies inside +-margin for every slot, ``unlike`` if entirely beyond for any; intervals hold together.
    """
    shares, clusters = _used(importance, clusters)
    slices = shares.shape[1]
    by_slot = _share_intervals(shares, clusters, 1.0 - (1.0 - confidence) / slices, seed)
    even = 1.0 / slices
    apart = [[(end - even) / (end + even) for end in (slot.low, slot.high)] for slot in by_slot]
    if any(low > margin or high < -margin for low, high in apart):
        verdict = "unlike"
    else:
        verdict = (
            "alike"
            if all(-margin <= low and high <= margin for low, high in apart)
            else "inconclusive"
        )
    return Latin(by_slot, verdict)


def lag_result(
    parts: Sequence[tuple[float, float] | None],
    clusters: NDArray[np.intp],
    confidence: float,
    seed: int,
) -> Interval | None:
    """Estimate the lag in slices; None without labels, or where slices do not differ enough to tell.

    That is where predictions do not clearly fit their own slice better than its neighbours: by two standard errors.
    """
    known = np.array([part is not None for part in parts])
    if known.sum() < LEAST_LAGGED:
        return None
    tops, bottoms = np.array([part for part in parts if part is not None]).T
    if bottoms.mean() <= CLEAR * bottoms.std() / len(bottoms) ** 0.5:
        return None
    return ratio_interval(tops, bottoms, clusters[known], confidence, seed)


def _used(importance: Floats, clusters: NDArray[np.intp]) -> tuple[Floats, NDArray[np.intp]]:
    """Return the shares and blocks of the windows that have any importance."""
    shares = shares_of(importance)
    used = np.isfinite(shares).all(axis=1)
    if not used.any():
        raise BadInputError(
            "no window has any importance, expected a picture in the windows and an output that depends on it; check the volume and the model"
        )
    return shares[used], clusters[used]


def _share_intervals(
    shares: Floats, clusters: NDArray[np.intp], confidence: float, seed: int
) -> tuple[Interval, ...]:
    intervals = (
        ratio_interval(share, np.ones(len(share)), clusters, confidence, seed) for share in shares.T
    )
    return tuple(_within(interval, 0.0) for interval in intervals)


def _within(interval: Interval, low: float) -> Interval:
    """Cut an interval to what the quantity can be: low to 1. NaN ends stay."""
    if np.isnan(interval.low):
        return interval
    return Interval(interval.value, max(interval.low, low), min(interval.high, 1.0))
