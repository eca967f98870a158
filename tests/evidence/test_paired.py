"""Statistics over paired cells: against scipy, least squares, and by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from evenslice.evidence.stats import blocked_mean, holm, sign_flip

RNG = np.random.default_rng(3)
VALUES = RNG.normal(0.3, 1.0, 9)


def test_one_block_is_the_t_test_of_one_sample():
    found, known = blocked_mean(VALUES, ["a"] * 9), stats.ttest_1samp(VALUES, 0.0)
    assert found.value == pytest.approx(VALUES.mean())
    assert found.p_zero() == pytest.approx(known.pvalue)
    np.testing.assert_allclose(found.interval(0.95), known.confidence_interval(0.95))
    above = stats.ttest_1samp(VALUES, -0.2, alternative="greater")
    assert found.p_above(-0.2) == pytest.approx(above.pvalue)


def test_blocks_are_fixed_effects_of_least_squares():
    blocks = np.array(list("aaabbbbcc"))
    design = (blocks[:, None] == np.array(list("abc"))).astype(float)
    effects, _, _, _ = np.linalg.lstsq(design, VALUES, rcond=None)
    spread = np.square(VALUES - design @ effects).sum() / (9 - 3)
    weights = np.full(3, 1 / 3)
    error = math.sqrt(spread * weights @ np.linalg.inv(design.T @ design) @ weights)
    found = blocked_mean(VALUES, blocks)
    assert (found.value, found.error, found.freedom) == (
        pytest.approx(effects.mean()),
        pytest.approx(error),
        6,
    )
    assert (found.cells, found.blocks) == (9, 3)


def test_each_block_counts_alike_and_what_differs_between_blocks_is_no_error():
    found = blocked_mean([1.0, 1.0, 1.0, 1.0, 5.0, 5.0], list("aaaabb"))
    assert (found.value, found.error) == (3.0, 0.0)
    assert found.interval(0.95) == (3.0, 3.0)


def test_one_cell_a_block_has_no_interval():
    found = blocked_mean([1.0, 2.0], ["a", "b"])
    assert found.value == 1.5
    assert all(math.isnan(end) for end in found.interval(0.95))
    assert math.isnan(found.p_zero())
    assert math.isnan(found.p_equivalent(0.1))


def test_values_that_agree_exactly_are_certain():
    same = blocked_mean([0.0, 0.0, 0.0], ["a"] * 3)
    assert (same.p_zero(), same.p_equivalent(0.01), same.p_above(-0.01)) == (1.0, 0.0, 0.0)
    off = blocked_mean([0.02, 0.02, 0.02], ["a"] * 3)
    assert (off.p_zero(), off.p_equivalent(0.01)) == (0.0, 1.0)


def test_equivalence_is_the_worse_of_two_one_sided_tests():
    values = np.array([0.002, -0.001, 0.004, 0.0, 0.003])
    low = stats.ttest_1samp(values, -0.01, alternative="greater").pvalue
    high = stats.ttest_1samp(values, 0.01, alternative="less").pvalue
    assert blocked_mean(values, ["a"] * 5).p_equivalent(0.01) == pytest.approx(max(low, high))
    assert blocked_mean(-values, ["a"] * 5).p_equivalent(0.01) == pytest.approx(max(low, high))


def test_equivalence_at_5_percent_is_the_90_percent_interval_within_the_margin():
    values = np.array([0.002, -0.001, 0.004, 0.0, 0.003, -0.004])
    found = blocked_mean(values, list("aaabbb"))
    widest = max(abs(end) for end in found.interval(0.90))
    assert found.p_equivalent(widest * 1.001) < 0.05 < found.p_equivalent(widest * 0.999)


def test_flipped_signs_are_counted_by_hand():
    values, blocks = [3.0, 1.0, -2.0], ["a", "a", "b"]

    def mean(signs):
        a, b, c = (s * v for s, v in zip(signs, values, strict=True))
        return abs(((a + b) / 2 + c) / 2)

    all_signs = list(itertools.product((1, -1), repeat=3))
    by_hand = np.mean([mean(s) >= mean((1, 1, 1)) for s in all_signs])
    assert sign_flip(values, blocks) == by_hand
    assert sign_flip([1.0, 2.0, 3.0], ["a"] * 3) == 2 / 8


def test_many_flips_are_drawn_and_agree_with_all_of_them():
    values = RNG.normal(0.5, 1.0, 15)
    weights = np.array(list(itertools.product((1.0, -1.0), repeat=15)))
    exact = float((np.abs(weights @ values) >= abs(values.sum()) - 1e-12).mean())
    assert sign_flip(values, ["a"] * 15) == pytest.approx(exact, abs=0.01)
    assert sign_flip(values, ["a"] * 15) == sign_flip(values, ["a"] * 15)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    found = holm([0.02, math.nan, 0.01])
    assert found[0] == pytest.approx(0.02)
    assert math.isnan(found[1])
    assert found[2] == pytest.approx(0.02)


@pytest.mark.parametrize("blocks", [list("aaaaaa"), list("aaabbb")])
def test_intervals_cover(blocks):
    rng = np.random.default_rng(0)
    shift = np.where(np.array(blocks) == "b", 2.0, 0.0)
    inside = 0
    for _ in range(1000):
        low, high = blocked_mean(rng.normal(0, 1, 6) + shift, blocks).interval(0.95)
        inside += low <= shift.mean() <= high
    assert 925 <= inside <= 975
