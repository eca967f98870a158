"""Results from importance: by hand where every window says the same, and by law where not."""

import numpy as np
import pytest

from evenslice.errors import BadInputError
from evenslice.evidence.result import MethodResult
from evenslice.evidence.stats import Interval
from evenslice.evidence.summary import (
    apply_abstention,
    lag_parts,
    lag_result,
    latin_result,
    method_result,
)

MARGIN, CONFIDENCE = 0.05, 0.95


def alike(slots, blocks=8, arrangements=2):
    """Importance of windows that all say the same, one in each block."""
    return np.tile(np.array(slots, float), (blocks, arrangements, 1)), np.arange(blocks)


@pytest.mark.parametrize(
    ("slots", "blocks", "pairs", "index", "verdict"),
    [
        ([2, 4, 2], 8, [0.0], 0.0, "symmetric"),
        ([2, 4, 2], 5, [0.0], 0.0, "inconclusive: too few blocks"),
        ([1, 4, 3], 6, [0.5], 0.5, "asymmetric"),
        ([3, 4, 1], 6, [-0.5], -0.5, "asymmetric"),
        ([95, 400, 105], 6, [0.05], 0.05, "symmetric"),  # on the margin is inside
        # opposite pairs cancel in the index only
        ([1, 3, 2, 1, 3], 6, [-0.5, 0.5], 0.0, "asymmetric"),
        ([1, 400, 3], 6, [0.5], 0.5, "abstained"),
        ([7], 8, [], None, "abstained"),
    ],
)
def test_windows_that_agree_give_a_point(slots, blocks, pairs, index, verdict):
    importance, clusters = alike(slots, blocks)
    found = method_result(importance, clusters, MARGIN + 1e-9, CONFIDENCE, 0)
    for end in ("value", "low", "high"):
        assert [getattr(pair, end) for pair in found.pairs] == pytest.approx(pairs)
    assert (found.index and found.index.value) == (index and pytest.approx(index))
    assert [share.value for share in found.shares] == pytest.approx(np.array(slots) / sum(slots))
    assert found.verdict == verdict
    shown = found.to_dict()["mirror_index"]
    assert shown == pytest.approx(np.nan if index is None else index, nan_ok=True)


def test_windows_without_importance_are_left_out_and_not_all_of_them_may_be():
    importance, clusters = alike([1, 4, 3])
    importance[3] = 0
    fewer = np.delete(importance, 3, 0), np.delete(clusters, 3)
    options = MARGIN, CONFIDENCE, 0
    assert method_result(importance, clusters, *options) == method_result(*fewer, *options)
    for result in (method_result, latin_result):
        with pytest.raises(BadInputError, match="no window has any importance, expected a picture"):
            result(importance * 0, clusters, *options)


def test_intervals_stay_within_what_can_be():
    random = np.random.default_rng(0)
    importance = np.where(random.random((7, 2, 3)) < 0.5, 0.001, 1.0)
    found = method_result(importance, np.arange(7), MARGIN, CONFIDENCE, 0)
    assert all(0 <= share.low <= share.value <= share.high <= 1 for share in found.shares)
    pairs = (*found.pairs, found.index)
    assert all(-1 <= pair.low <= pair.value <= pair.high <= 1 for pair in pairs)
    alone = method_result(importance, np.zeros(7, int), MARGIN, CONFIDENCE, 0)
    assert np.isnan(alone.index.low)
    assert alone.verdict.endswith("too few blocks")


@pytest.mark.parametrize(
    ("slots", "verdict"),
    [
        ([1, 1, 1], "alike"),
        ([1, 1.02, 1], "alike"),
        ([2, 1, 2], "unlike"),
        ([1, 1, 1, 1, 2], "unlike"),
    ],
)
def test_slots_are_alike_or_not(slots, verdict):
    found = latin_result(*alike(slots, arrangements=2 * len(slots)), MARGIN, CONFIDENCE, 0)
    assert found.verdict == verdict
    assert found.to_dict()["shares"] == pytest.approx(np.array(slots) / sum(slots))


def test_slots_that_may_be_alike_or_not_are_left_open():
    random = np.random.default_rng(1)
    importance = 1 + random.random((8, 6, 3)) * [[[0.5, 1.5, 0.5]]] * random.random((8, 1, 1))
    assert latin_result(importance, np.arange(8), MARGIN, CONFIDENCE, 0).verdict == "inconclusive"


def of(verdict):
    at = Interval(0.0, 0.0, 0.0)
    return MethodResult((at,) * 3, (at,), at, verdict)


def test_the_copy_abstains_where_all_that_see_the_centre_do():
    gradient, copy = {"gradient": of("abstained")}, {"ablation-copy": of("asymmetric")}
    found = apply_abstention(gradient | {"ablation": of("abstained")} | copy)
    assert {method.verdict for method in found.values()} == {"abstained"}
    for kept in ({"gradient": of("symmetric")} | copy, copy, gradient):
        assert apply_abstention(kept) == kept


def squares(*starts):
    planes = np.zeros((len(starts), 20, 60), np.uint8)
    for plane, start in zip(planes, starts, strict=True):
        plane[5:15, start : start + 20] = 1
    return planes


TRUTHS = squares(10, 20, 30)


@pytest.mark.parametrize(
    ("predictions", "parts"),
    [
        # It answers with the next slice, to the reversal with the one before. Dice of a square with
        # itself, moved by half, moved apart: 1, .5, 0; a parabola through (0, .5, 1) has no top.
        (TRUTHS[[2, 0]], (1.0, 0.0)),
        (TRUTHS[[1, 1]], (0.0, 2.0)),
        # Half a slice late. Dice with z - 1, z, z + 1: .25, .75, .75
        (squares(25, 15), (0.5, 1.0)),
        # What moves to one side in both directions is the tissue, not the model.
        (squares(25, 25), (0.0, 1.0)),
    ],
)
def test_the_lag_of_a_window_by_hand(predictions, parts):
    assert lag_parts(predictions, TRUTHS, 2) == pytest.approx(parts)


def test_no_foreground_no_lag():
    truths = TRUTHS.copy()
    truths[2] = 0
    assert lag_parts(truths[[1, 1]], truths, 2) is None


@pytest.mark.parametrize(
    ("parts", "lag"),
    [
        ([(0.25, 1.0)] * 4, 0.25),
        ([(0.25, 1.0), None, None, (0.25, 1.0)], 0.25),
        ([(0.25, 1.0), None, None], None),  # one is not enough
        ([None] * 4, None),
        # slices do not differ enough
        ([(0.1, 1.0), (0.1, -1.0), (0.1, 1.0), (0.1, -1.0)], None),
    ],
)
def test_the_lag_is_estimated_where_slices_differ(parts, lag):
    found = lag_result(parts, np.arange(len(parts)), CONFIDENCE, 0)
    assert (found and found.value) == (lag and pytest.approx(lag))
