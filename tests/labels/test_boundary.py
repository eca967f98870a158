"""Boundary F-score within slices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import distance_transform_edt

from evenslice.labels.boundary import BoundaryCounter, near, outline

masks = arrays(bool, (9, 11))
law = settings(derandomize=True, deadline=None, max_examples=80)
ALL = slice(None)


def score(prediction, truth, tolerance=0.0, keep=None):
    counter = BoundaryCounter(tolerance)
    counter.add(prediction.astype(np.uint8), truth.astype(np.uint8), keep, ALL, [1])
    return counter.score(1)


def square(y, x, side=4):
    mask = np.zeros((20, 20), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_by_hand():
    assert outline(square(5, 5)).sum() == 12
    assert score(square(5, 5), square(5, 5)) == 1
    # moved by one: of 12 outline pixels, 3 + 3 + 1 - 1 = 6 lie on the other outline
    hits = (outline(square(5, 5)) & outline(square(5, 6))).sum()
    assert hits == 6
    assert score(square(5, 6), square(5, 5)) == 6 / 12
    assert score(square(5, 6), square(5, 5), 1) == 1
    assert score(square(5, 7), square(5, 5), 1.9) < 1
    assert score(square(5, 7), square(5, 5), 2) == 1


def test_precision_and_recall_are_told_apart():
    truth, more = square(3, 3), square(3, 3) | square(13, 13)
    assert score(more, truth) == score(truth, more) == pytest.approx(2 * 0.5 * 1 / 1.5)
    counter = BoundaryCounter(0)
    counter.add(more.astype(int), truth.astype(int), None, ALL, [1])
    assert counter.counts[1].tolist() == [12, 24, 12, 12]


def test_the_rim_is_no_boundary_and_nothing_to_compare_has_no_score():
    full, none = np.ones((5, 5), bool), np.zeros((5, 5), bool)
    assert not outline(full).any()
    assert score(full, full) is None
    assert score(none, square(2, 2)[:5, :5]) == 0
    assert BoundaryCounter(2).score(7) is None


def test_steps_to_pixels_left_out_are_no_boundary():
    truth = square(5, 5)
    keep = np.ones_like(truth)
    keep[:, 9:] = False
    assert outline(truth, keep).sum() == 12 - 2
    assert score(truth, truth, keep=~truth) is None


@law
@given(masks, st.sampled_from([0, 0.5, 1, 1.5, 2, 3.2, 5, 30]))
def test_near_is_what_the_distance_says(marks, tolerance):
    expected = distance_transform_edt(~marks) <= tolerance if marks.any() else np.zeros_like(marks)
    np.testing.assert_array_equal(near(marks, tolerance), expected)


@law
@given(masks, masks, st.sampled_from([0, 1, 2.5]), st.integers(1, 8))
def test_bands_with_their_halo_give_the_same_counts(prediction, truth, tolerance, height):
    whole, parts = BoundaryCounter(tolerance), BoundaryCounter(tolerance)
    whole.add(prediction.astype(int), truth.astype(int), None, ALL, [0, 1])
    for y in range(0, 9, height):
        low, high = max(0, y - parts.halo), min(9, y + height + parts.halo)
        inside = slice(y - low, min(9, y + height) - low)
        parts.add(
            prediction[low:high].astype(int), truth[low:high].astype(int), None, inside, [0, 1]
        )
    for number in (0, 1):
        np.testing.assert_array_equal(parts.counts[number], whole.counts[number])
