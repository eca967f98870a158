"""Shares, pairs and index by hand."""

import numpy as np
import pytest

from evenslice.evidence.shares import index_parts, pair_parts, shares_of


def test_shares_by_hand():
    # one window, two arrangements: (1, 2, 1)/4 and (6, 2, 2)/10; their mean
    found = shares_of(np.array([[[1, 2, 1], [6, 2, 2]]]))
    np.testing.assert_allclose(found, [[0.425, 0.35, 0.225]])


def test_the_scale_of_a_window_or_an_arrangement_does_not_matter():
    importance = np.random.default_rng(0).random((4, 2, 5))
    scale = np.random.default_rng(1).random((4, 2, 1)) * 100
    np.testing.assert_allclose(shares_of(importance * scale), shares_of(importance))


def test_a_window_without_importance_is_not_a_number():
    found = shares_of(np.array([[[0, 0, 0], [0, 0, 0]], [[1, 1, 2], [1, 1, 2]], [[0, 0, 0], [1, 1, 2]]]))
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
