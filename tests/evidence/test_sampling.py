"""Arrangements, looks and lag."""

import numpy as np
import pytest

from evenslice.evidence.measure import lag_parts
from evenslice.evidence.sampling import slice_orders
from evenslice.evidence.stats import LOOKS, confidence_each, is_decided, planned_looks


@pytest.mark.parametrize("slices", [1, 3, 5, 9])
def test_in_a_latin_design_every_slice_stands_in_every_slot_equally_often(slices):
    orders = slice_orders(slices, "latin")
    assert orders.shape == (2 * slices, slices)
    for slot in range(slices):
        assert np.bincount(orders[:, slot], minlength=slices).tolist() == [2] * slices
    np.testing.assert_array_equal(orders[:2], slice_orders(slices))
    np.testing.assert_array_equal(orders[1::2], orders[::2, ::-1])
    assert orders[0].tolist() == list(range(slices))


def test_looks_are_planned_and_share_the_error():
    assert planned_looks(1000, None) == LOOKS
    assert planned_looks(40, None) == (12, 16, 24, 32)
    assert planned_looks(7, None) == (7,)
    assert planned_looks(40, 100) == (40,)
    assert planned_looks(400, 100) == (100,)
    assert confidence_each(0.95, 1) == pytest.approx(0.95)
    assert confidence_each(0.95, 5) == pytest.approx(0.99)


def test_when_nothing_is_left_open():
    assert is_decided(["symmetric", "abstained"])
    assert is_decided(["inconclusive", "asymmetric"])
    assert not is_decided(["symmetric", "inconclusive"])
    assert not is_decided(["symmetric", "inconclusive: too few blocks"])


def squares(*starts):
    planes = np.zeros((len(starts), 20, 60), np.uint8)
    for plane, start in zip(planes, starts, strict=True):
        plane[5:15, start : start + 20] = 1
    return planes


def test_a_model_that_answers_with_the_next_slice_lags_by_one():
    truths = squares(10, 20, 30)
    top, bottom = lag_parts(
        truths[[2, 0]], truths, 2
    )  # given the reversal it answers with the slice before
    # Dice of a square with itself, moved by half, moved apart: 1, .5, 0; parabola through (0, .5, 1): no top between
    assert (top, bottom) == (1.0, 0.0)
    top, bottom = lag_parts(truths[[1, 1]], truths, 2)
    assert (top, bottom) == (0.0, 2.0)


def test_half_a_slice_by_hand():
    truths = squares(10, 20, 30)
    later, earlier = squares(25, 15)
    top, bottom = lag_parts(np.stack([later, earlier]), truths, 2)
    # Dice with z - 1, z, z + 1: .25, .75, .75
    assert top == pytest.approx(0.5)
    assert bottom == pytest.approx(1.0)
    assert top / bottom == pytest.approx(0.5)


def test_what_moves_with_the_tissue_is_not_the_models():
    truths = squares(10, 20, 30)
    later = squares(25)[0]
    top, _ = lag_parts(np.stack([later, later]), truths, 2)
    assert top == 0.0


def test_no_foreground_no_lag():
    truths = squares(10, 20, 30)
    truths[2] = 0
    assert lag_parts(truths[[1, 1]], truths, 2) is None
