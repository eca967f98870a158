"""From shares to results and what is said of them: verdicts by hand where every window says the same, and by law where not."""

import numpy as np
import pytest

from evenslice.errors import BadInputError
from evenslice.evidence.checks import agreement_check
from evenslice.evidence.methods import METHODS, check_methods
from evenslice.evidence.result import MethodResult
from evenslice.evidence.stats import Interval
from evenslice.evidence.summary import apply_abstention, lag_result, latin_result, method_result

MARGIN, CONFIDENCE = 0.05, 0.95


def alike(slots, blocks=8, arrangements=2):
    """Importance of windows that all say the same, one in each block."""
    return np.tile(np.array(slots, float), (blocks, arrangements, 1)), np.arange(blocks)


def said(verdict, value=0.0):
    at = Interval(value, value, value)
    return MethodResult((at,) * 3, (at,), None if verdict == "none" else at, verdict)


@pytest.mark.parametrize(
    ("slots", "blocks", "pairs", "index", "verdict"),
    [
        ([2, 4, 2], 8, [0.0], 0.0, "symmetric"),
        ([2, 4, 2], 5, [0.0], 0.0, "inconclusive: too few blocks"),
        ([1, 4, 3], 6, [0.5], 0.5, "asymmetric"),
        ([3, 4, 1], 6, [-0.5], -0.5, "asymmetric"),
        ([95, 400, 105], 6, [0.05], 0.05, "symmetric"),  # on the margin is inside
        (
            [1, 3, 2, 1, 3],
            6,
            [-0.5, 0.5],
            0.0,
            "asymmetric",
        ),  # opposite pairs cancel in the index only
        ([1, 400, 3], 6, [0.5], 0.5, "abstained"),
        ([7], 8, [], None, "abstained"),
    ],
)
def test_windows_that_agree_give_a_point(slots, blocks, pairs, index, verdict):
    importance, clusters = alike(slots, blocks)
    found = method_result(importance, clusters, MARGIN + 1e-9, CONFIDENCE, 0)
    assert [pair.value for pair in found.pairs] == pytest.approx(pairs)
    assert (
        [pair.low for pair in found.pairs]
        == [pair.high for pair in found.pairs]
        == pytest.approx(pairs)
    )
    assert found.index is None if index is None else found.index.value == pytest.approx(index)
    assert [share.value for share in found.shares] == pytest.approx(np.array(slots) / sum(slots))
    assert found.verdict == verdict
    assert found.to_dict()["mirror_index"] == pytest.approx(
        np.nan if index is None else index, nan_ok=True
    )


def test_windows_without_importance_are_left_out_and_not_all_of_them_may_be():
    importance, clusters = alike([1, 4, 3])
    importance[3] = 0
    assert method_result(importance, clusters, MARGIN, CONFIDENCE, 0) == method_result(
        np.delete(importance, 3, 0), np.delete(clusters, 3), MARGIN, CONFIDENCE, 0
    )
    for result in (method_result, latin_result):
        with pytest.raises(
            BadInputError, match=r"^no window has any importance, expected a picture in the windows"
        ):
            result(importance * 0, clusters, MARGIN, CONFIDENCE, 0)


def test_intervals_stay_within_what_can_be():
    random = np.random.default_rng(0)
    importance = np.where(random.random((7, 2, 3)) < 0.5, 0.001, 1.0)
    found = method_result(importance, np.arange(7), MARGIN, CONFIDENCE, 0)
    assert all(0 <= share.low <= share.value <= share.high <= 1 for share in found.shares)
    assert all(
        -1 <= pair.low <= pair.value <= pair.high <= 1 for pair in (*found.pairs, found.index)
    )
    alone = method_result(importance, np.zeros(7, int), MARGIN, CONFIDENCE, 0)
    assert np.isnan(alone.index.low) and alone.verdict.endswith("too few blocks")


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


def test_the_copy_abstains_where_all_who_see_the_centre_do():
    methods = {
        "ablation": said("abstained"),
        "gradient": said("abstained"),
        "ablation-copy": said("asymmetric"),
    }
    found = apply_abstention(methods)
    assert {name: method.verdict for name, method in found.items()} == dict.fromkeys(
        methods, "abstained"
    )
    assert found["ablation-copy"].pairs == methods["ablation-copy"].pairs
    for others in ({"gradient": said("symmetric")}, {}):
        kept = methods | others if others else {"ablation-copy": methods["ablation-copy"]}
        assert apply_abstention(kept) == kept
    without = {"gradient": said("abstained")}
    assert apply_abstention(without) == without


@pytest.mark.parametrize(
    ("methods", "value", "passed", "words"),
    [
        ({}, None, None, "fewer than two families of evidence spoke"),
        ({"a": said("asymmetric", 0.3), "b": said("abstained", 0.9)}, None, None, "fewer than two"),
        ({"a": said("asymmetric", 0.3), "b": said("none")}, None, None, "fewer than two"),
        (
            {"a": said("symmetric", 0.01), "b": said("symmetric", -0.02)},
            0.03,
            True,
            "over the families of evidence",
        ),
        (
            {"a": said("asymmetric", 0.3), "b": said("asymmetric", 0.1)},
            0.2,
            True,
            "over the families of evidence",
        ),
        (
            {"a": said("asymmetric", 0.3), "b": said("asymmetric", -0.1)},
            0.4,
            False,
            "; a, b lean to different sides",
        ),
        (
            {"b": said("asymmetric", 0.3), "a": said("symmetric", 0.0)},
            0.3,
            True,
            "; b lean, a do not: they answer",
        ),
    ],
)
def test_families_that_contradict_each_other_are_named(methods, value, passed, words):
    found = agreement_check(methods)
    assert (
        found.value == (None if value is None else pytest.approx(value)) and found.passed is passed
    )
    assert words in found.reason


@pytest.mark.parametrize(
    ("parts", "lag"),
    [
        ([(0.25, 1.0)] * 4, 0.25),
        ([(0.25, 1.0), None, None, (0.25, 1.0)], 0.25),
        ([(0.25, 1.0), None, None], None),  # one is not enough
        ([None] * 4, None),
        (
            [(0.1, 1.0), (0.1, -1.0), (0.1, 1.0), (0.1, -1.0)],
            None,
        ),  # slices do not differ enough to tell
    ],
)
def test_the_lag_is_told_where_slices_differ(parts, lag):
    found = lag_result(parts, np.arange(len(parts)), CONFIDENCE, 0)
    assert found is None if lag is None else found.value == pytest.approx(lag)


def test_methods_are_taken_once_each_in_the_order_asked():
    assert check_methods(["gradient", "reversal", "ablation", "gradient"], 3, True) == (
        "gradient",
        "ablation",
    )
    assert check_methods(["reversal"], 3, True) == ()
    assert check_methods(METHODS, 3, True) == METHODS


@pytest.mark.parametrize(
    ("methods", "slices", "differentiable", "message"),
    [
        (
            ["zebra", "apple", "gradient"],
            3,
            True,
            r"^the method apple, zebra is unknown, expected reversal, ablation",
        ),
        ([], 3, True, r"^the method \(none\) is unknown"),
        (
            ["gradient", "ablation"],
            3,
            False,
            r"^the method gradient needs gradients, which an \.onnx model has not",
        ),
        (
            ["ablation-copy"],
            1,
            True,
            r"^the method ablation-copy puts the centre slice .* 3 slices or more; leave it out$",
        ),
    ],
)
def test_methods_that_cannot_be_had_are_refused(methods, slices, differentiable, message):
    with pytest.raises(BadInputError, match=message):
        check_methods(methods, slices, differentiable)
