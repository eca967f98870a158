"""Intervals and verdicts."""

import math

import numpy as np
import pytest
from scipy import stats

from evenslice.evidence.stats import (
    LOOKS,
    TOO_FEW,
    Interval,
    confidence_each,
    is_decided,
    method_verdict,
    overall_verdict,
    planned_looks,
    ratio_interval,
)

NEAR, LATER, EARLIER, WIDE = (
    Interval(0.0, -0.01, 0.01),
    Interval(0.2, 0.1, 0.3),
    Interval(-0.2, -0.3, -0.1),
    Interval(0, -0.2, 0.2),
)


def interval(top, bottom=None, clusters=None, seed=0):
    top = np.asarray(top, float)
    bottom = np.ones(len(top)) if bottom is None else np.asarray(bottom, float)
    clusters = np.arange(len(top)) if clusters is None else np.asarray(clusters)
    return ratio_interval(top, bottom, clusters, 0.95, seed)


def test_the_value_is_the_ratio_of_means():
    rng = np.random.default_rng(0)
    top, bottom = rng.normal(size=30), rng.random(30) + 1
    assert interval(top, bottom, np.arange(30) % 15).value == pytest.approx(
        top.mean() / bottom.mean()
    )


def test_few_blocks_of_equal_weight_give_the_t_interval():
    values = np.random.default_rng(0).normal(1.0, 0.2, 8)
    found = interval(values)
    low, high = stats.t.interval(0.95, 7, values.mean(), stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_from_twelve_blocks_on_it_is_the_studentised_bootstrap():
    """Against the textbook, written out: resample, studentise, quantiles at the widened level."""
    values = np.random.default_rng(1).exponential(size=20)
    found = interval(values, seed=3)
    rng = np.random.default_rng(8)
    draws = values[rng.integers(20, size=(200_000, 20))]
    studentised = (draws.mean(1) - values.mean()) / (draws.std(1, ddof=1) / math.sqrt(20))
    level = 2 * stats.norm.cdf(stats.norm.ppf(0.975) * 20 / 19) - 1
    low, high = np.quantile(studentised, [(1 - level) / 2, (1 + level) / 2])
    # As above, by the ddof=1 deviation around the own mean of a resample.
    expected = values.mean() - np.array([high, low]) * stats.sem(values)
    assert (found.low, found.high) == (
        pytest.approx(expected[0], abs=0.03),
        pytest.approx(expected[1], abs=0.06),
    )
    assert found.high - found.value > found.value - found.low  # skewed like the data


def test_a_ratio_is_studentised_as_a_ratio():
    rng = np.random.default_rng(4)
    bottom = rng.random(30) + 0.5
    found = interval(0.3 * bottom + 1e-3 * rng.normal(size=30), bottom)
    assert found.high - found.low < 2e-3  # the bottoms vary by half; only the residuals count


def test_windows_of_one_block_count_as_one():
    values = np.random.default_rng(2).normal(size=14)
    once = interval(values, seed=1)
    thrice = interval(np.repeat(values, 3), clusters=np.repeat(np.arange(14), 3), seed=1)
    assert thrice.low == pytest.approx(once.low, rel=1e-3)
    assert thrice.high == pytest.approx(once.high, rel=1e-3)
    wrong = interval(np.repeat(values, 3), seed=1)
    assert wrong.high - wrong.low < 0.8 * (once.high - once.low)


def test_equal_values_are_a_point():
    found = interval(0.3 + 1e-8 * np.arange(20))
    assert found.low == found.high == found.value == pytest.approx(0.3)


def test_one_block_has_no_interval():
    found = interval([1.0, 3.0], clusters=[4, 4])
    assert found.value == 2.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_the_seed_decides():
    values = np.random.default_rng(1).exponential(size=20)
    assert interval(values, seed=3) == interval(values, seed=3)
    assert interval(values, seed=3) != interval(values, seed=4)


@pytest.mark.parametrize(
    ("pairs", "outer", "blocks", "expected"),
    [
        ([NEAR], 0.6, 40, "symmetric"),
        ([LATER], 0.6, 40, "asymmetric"),
        ([EARLIER], 0.6, 40, "asymmetric"),
        ([WIDE], 0.6, 40, "inconclusive"),
        ([NEAR, EARLIER], 0.6, 40, "asymmetric"),
        ([NEAR, WIDE], 0.6, 40, "inconclusive"),
        ([LATER, EARLIER], 0.6, 40, "asymmetric"),
        ([LATER], 0.6, 5, TOO_FEW),
        ([NEAR], 0.6, 6, "symmetric"),
        ([LATER], 0.0199, 40, "abstained"),
        ([LATER], 0.02, 40, "asymmetric"),
        ([], 0.0, 40, "abstained"),
        ([Interval(0.1, 0.04, 0.2)], 0.6, 40, "inconclusive"),
        ([Interval(0.05, 0.05, 0.05)], 0.6, 40, "symmetric"),
        ([Interval(0.1, math.nan, math.nan)], 0.6, 40, "inconclusive"),
    ],
)
def test_verdicts_by_hand(pairs, outer, blocks, expected):
    assert method_verdict(pairs, outer, blocks, 0.05) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["symmetric"], "symmetric"),
        (["symmetric", "abstained"], "symmetric"),
        (["symmetric", "asymmetric"], "asymmetric"),
        (["inconclusive", "asymmetric"], "asymmetric"),
        (["symmetric", "inconclusive"], "inconclusive"),
        ([TOO_FEW, TOO_FEW], TOO_FEW),
        (["abstained"], "abstained"),
    ],
)
def test_overall_verdicts(verdicts, expected):
    assert overall_verdict(verdicts) == expected


def test_slots_normalised_differently_are_never_certified():
    assert overall_verdict(["symmetric"], uniform=False) == "inconclusive"
    assert overall_verdict(["asymmetric"], uniform=False) == "asymmetric"


def test_a_pair_that_does_not_count_is_symmetric():
    assert interval(np.zeros(20), np.zeros(20)) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("available", "windows", "looks"),
    [
        (1000, None, LOOKS),
        (40, None, (6, 12, 16, 24, 32)),
        (11, None, (11,)),
        (40, 100, (40,)),
        (400, 100, (100,)),
    ],
)
def test_looks_are_planned(available, windows, looks):
    assert planned_looks(available, windows) == looks


def test_looks_share_the_error():
    assert confidence_each(0.95, 1) == pytest.approx(0.95)
    assert confidence_each(0.95, 5) == pytest.approx(0.99)


def test_a_method_is_decided_by_any_verdict_but_inconclusive():
    decided = ("symmetric", "asymmetric", "abstained", "inconclusive", TOO_FEW)
    assert [is_decided(verdict) for verdict in decided] == [True, True, True, False, False]
