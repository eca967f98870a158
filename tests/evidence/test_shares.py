"""Shares, pairs and index by hand."""

import numpy as np
import pytest

from evenslice.evidence.shares import index_parts, pair_parts, ratio, shares_of


def test_shares_by_hand():
    # one window, two arrangements: (1, 2, 1)/4 and (6, 2, 2)/10; their mean
    found = shares_of(np.array([[[1, 2, 1], [6, 2, 2]]]))
    np.testing.assert_allclose(found, [[0.425, 0.35, 0.225]])


def test_the_scale_of_a_window_or_an_arrangement_does_not_matter():
    importance = np.random.default_rng(0).random((4, 2, 5))
    scale = np.random.default_rng(1).random((4, 2, 1)) * 100
    np.testing.assert_allclose(shares_of(importance * scale), shares_of(importance))


def test_a_window_without_importance_is_not_a_number():
    found = shares_of(
        np.array([[[0, 0, 0], [0, 0, 0]], [[1, 1, 2], [1, 1, 2]], [[0, 0, 0], [1, 1, 2]]])
    )
    assert np.isnan(found[0]).all()
    assert np.isnan(found[2]).all()
    np.testing.assert_allclose(found[1], [0.25, 0.25, 0.5])


def test_pairs_and_index_by_hand():
    shares = np.array([[0.1, 0.2, 0.3, 0.25, 0.15]])
    top, bottom = pair_parts(shares)
    np.testing.assert_allclose(top, [[0.05, 0.05]])  # +1 - -1, +2 - -2
    np.testing.assert_allclose(bottom, [[0.45, 0.25]])
    top, bottom = index_parts(shares)
    np.testing.assert_allclose(top / bottom, [0.1 / 0.7])


def test_positive_means_the_later_slice():
    top, bottom = index_parts(np.array([[0.2, 0.4, 0.4]]))
    assert top / bottom == pytest.approx(1 / 3)


def test_opposite_pairs_cancel_in_the_index_and_not_in_the_pairs():
    shares = np.array([[0.3, 0.1, 0.2, 0.3, 0.1]])
    top, bottom = pair_parts(shares)
    np.testing.assert_allclose(top / bottom, [[0.5, -0.5]])
    top, bottom = index_parts(shares)
    np.testing.assert_allclose(top / bottom, [0.0], atol=1e-15)


def test_one_slice_has_no_pairs():
    top, bottom = pair_parts(np.ones((3, 1)))
    assert top.shape == bottom.shape == (3, 0)


def test_importance_in_single_precision_neither_overflows_nor_loses_digits():
    found = shares_of(np.array([[[3e38, 3e38, 3e38]], [[2**24, 1, 1]]], np.float32))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[0], 1 / 3, rtol=1e-15)
    np.testing.assert_allclose(found[1], np.array([2**24, 1, 1]) / (2**24 + 2), rtol=1e-15)


@pytest.mark.parametrize("size", [1e-300, 0.1, 0.25, 1.0])
def test_importance_may_be_small(size):
    np.testing.assert_allclose(shares_of(np.array([[[1, 2, 1]]]) * size), [[0.25, 0.5, 0.25]])


def test_every_window_has_an_index_of_its_own():
    top, bottom = index_parts(np.array([[0.1, 0.2, 0.3, 0.25, 0.15], [0.3, 0.1, 0.2, 0.0, 0.4]]))
    np.testing.assert_allclose(
        top, [0.1, 0.0], atol=1e-15
    )  # (0.25 + 0.15) - (0.1 + 0.2); (0.0 + 0.4) - (0.3 + 0.1)
    np.testing.assert_allclose(bottom, [0.7, 0.8])


def test_a_ratio_of_nothing_to_nothing_is_even():
    found = ratio(np.array([0.0, 3.0, 0.25, -1.0]), np.array([0.0, 4.0, 1.0, 2.0]))
    np.testing.assert_array_equal(found, [0.0, 0.75, 0.25, -0.5])
    assert ratio(np.float64(0), np.float64(0)) == 0
    assert ratio(np.float64(1), np.float64(1)) == 1


def test_a_ratio_goes_over_all_of_the_larger_side():
    many, pairs = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([2.0, 0.0])
    np.testing.assert_array_equal(ratio(many, pairs), [[0.5, 0.0], [1.5, 0.0], [2.5, 0.0]])
    np.testing.assert_array_equal(ratio(pairs, many), [[2.0, 0.0], [2 / 3, 0.0], [0.4, 0.0]])
