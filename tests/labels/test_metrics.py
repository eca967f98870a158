"""Dice, IoU, boundary F-score and how scores are written: by hand, as laws, by scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from evenslice.errors import BadInputError
from evenslice.labels.metrics import (
    BoundaryCounter,
    BoundaryScores,
    Scores,
    check_classes,
    confusion,
    near,
    outline,
    scores_of,
)
from evenslice.labels.overlap import PERCENTS, Matching, Partition

labels = arrays(np.uint8, (4, 5), elements=st.integers(0, 3))
masks = arrays(bool, (9, 11))
law = settings(derandomize=True, deadline=None, max_examples=30)


@law
@given(labels)
def test_a_perfect_prediction_scores_1(truth):
    scores = scores_of(confusion(truth, truth, 4))
    if not truth.any():
        assert (scores.dice, scores.iou) == (None, None)
    else:
        assert (scores.dice, scores.iou) == (1.0, 1.0)
        assert set(scores.per_class) == set(np.unique(truth)) - {0}


@law
@given(labels, labels)
def test_counts_and_scores_equal_those_of_scikit_learn(prediction, truth):
    table = confusion(prediction, truth, 4)
    np.testing.assert_array_equal(
        table, confusion_matrix(truth.ravel(), prediction.ravel(), labels=range(4))
    )
    present = sorted(set(np.unique(truth).tolist()) - {0})
    for kind, score in (("dice", f1_score), ("iou", jaccard_score)):
        each = (
            score(truth.ravel(), prediction.ravel(), labels=present, average=None)
            if present
            else []
        )
        found = scores_of(table)
        assert [found.per_class[c][kind] for c in present] == pytest.approx(list(each))
        mean = found.to_dict()[kind]
        assert mean == (pytest.approx(np.mean(each)) if present else None)


@law
@given(labels, labels)
def test_tables_of_parts_add_up_to_the_table_of_the_whole(prediction, truth):
    parts = sum(confusion(p, t, 4) for p, t in zip(prediction, truth, strict=True))
    np.testing.assert_array_equal(parts, confusion(prediction, truth, 4))


@law
@given(labels, labels, st.integers(0, 3))
def test_what_is_ignored_may_be_predicted_as_anything(prediction, truth, ignore):
    other = np.where(truth == ignore, 3 - prediction, prediction)
    table = confusion(prediction, truth, 4, ignore)
    np.testing.assert_array_equal(table, confusion(other, truth, 4, ignore))
    assert table.sum() == (truth != ignore).sum()
    assert not table[ignore].any()


def test_counts_by_hand():
    truth = np.array([[0, 0, 1, 1], [1, 2, 2, 9]])
    prediction = np.array([[0, 1, 1, 1], [0, 2, 1, 0]])
    table = confusion(prediction, truth, 3, ignore=9)
    assert table.tolist() == [[1, 1, 0], [1, 2, 0], [0, 1, 1]]
    scores = scores_of(table)
    assert scores.per_class[1] == pytest.approx({"dice": 4 / 7, "iou": 2 / 5, "voxels": 3})
    assert scores.per_class[2] == pytest.approx({"dice": 2 / 3, "iou": 1 / 2, "voxels": 2})
    assert scores.dice == pytest.approx((4 / 7 + 2 / 3) / 2)
    assert scores.iou == pytest.approx((2 / 5 + 1 / 2) / 2)
    assert scores.voxels == 7


def test_classes_absent_from_the_ground_truth_do_not_count_but_cost_their_victims():
    truth, prediction = np.array([1, 1, 0]), np.array([1, 2, 0])
    scores = scores_of(confusion(prediction, truth, 3))
    assert set(scores.per_class) == {1}
    assert scores.dice == pytest.approx(2 / 3)


def test_a_ground_truth_without_foreground_has_no_score():
    scores = scores_of(confusion(np.array([0, 1]), np.array([0, 0]), 2))
    assert (scores.dice, scores.iou, scores.per_class, scores.voxels) == (None, None, {}, 2)
    assert scores_of(confusion(np.array([1]), np.array([7]), 2, ignore=7)).dice is None


@pytest.mark.parametrize(
    ("prediction", "truth"),
    [([0, 2], [0, 0]), ([0, 5], [0, 0]), ([-1, 0], [1, 0]), ([0, 0], [0, 2]), ([0, 0], [-1, 1])],
)
def test_other_numbers_than_classes_are_refused_rather_than_counted_elsewhere(prediction, truth):
    with pytest.raises(ValueError, match="class numbers"):
        confusion(np.array(prediction), np.array(truth), 2)


@pytest.mark.parametrize(
    "values", [np.array([0, 255]), np.array([True]), np.array([0.0, 3.0]), np.array([], "u1")]
)
def test_class_numbers_are_taken(values):
    check_classes(values, "here")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([0.5]), "fractions"),
        (np.array([np.nan]), "fractions"),
        (np.array([np.inf]), "0 to 255"),
        (np.array([-1, 3]), "-1 to 3"),
        (np.array([0, 256]), "0 to 256"),
    ],
)
def test_other_values_are_no_class_numbers(values, words):
    with pytest.raises(BadInputError, match=words):
        check_classes(values, "here")


def test_what_was_not_asked_for_is_written_as_null():
    """Keys may be added, never renamed: scripts read them."""
    null = (
        "dice iou ignore threshold boundary_f tolerance adapted_rand_error adapted_rand_precision "
        "adapted_rand_recall voi_split voi_merge voi f1 matching mean_matched_iou panoptic_quality "
        "objects truth_asymmetry"
    )
    assert Scores(None, None, {}, 5).to_dict() == {
        **dict.fromkeys(null.split()),
        "schema": "evenslice.scores/1",
        "as": "semantic",
        "voxels": 5,
        "per_class": {},
        **{key: [] for key in ("per_slice", "trained_slices", "warnings")},
    }


def test_what_was_asked_for_is_written_under_the_same_names():
    scores = Scores(
        dice=0.5,
        iou=0.375,
        per_class={
            1: {"dice": 0.8, "iou": 0.6, "voxels": 4},
            3: {"dice": 0.2, "iou": 0.1, "voxels": 2},
        },
        voxels=12,
        as_="instances",
        ignore=0,
        threshold=0.25,
        boundary=BoundaryScores(2.5, {1: 0.75}),
        per_slice=({"z": 4, "dice": 0.5, "iou": None},),
        partition=Partition(0.1, 0.2, 0.3, 1.5, 0.25),
        matching=Matching(3, 1, dict.fromkeys(PERCENTS, 1), 0.9, 0.45),
        trained_slices=((2, 3), (5, 7)),
        warnings=("check",),
        provenance={"seed": 7},
    )
    found = scores.to_dict()
    assert found["per_class"] == {
        "1": {"dice": 0.8, "iou": 0.6, "voxels": 4, "boundary_f": 0.75},
        "3": {"dice": 0.2, "iou": 0.1, "voxels": 2},
    }
    assert (found["as"], found["ignore"]) == ("instances", 0)
    assert (found["threshold"], found["voxels"]) == (0.25, 12)
    assert (found["dice"], found["iou"]) == (0.5, 0.375)
    assert (found["boundary_f"], found["tolerance"]) == (0.75, 2.5)
    assert found["per_slice"] == [{"z": 4, "dice": 0.5, "iou": None}]
    assert (found["adapted_rand_error"], found["voi"]) == (0.1, 1.75)
    assert (found["f1"], found["objects"]) == (0.5, {"truth": 3, "prediction": 1})
    assert found["trained_slices"] == [[2, 3], [5, 7]] and found["warnings"] == ["check"]
    assert found["provenance"] == {"seed": 7}
    assert found.keys() == Scores(None, None, {}, 5).to_dict().keys() | {"provenance"}
    assert scores.per_class[1] == {"dice": 0.8, "iou": 0.6, "voxels": 4}  # writing changes nothing


def test_the_boundary_score_is_the_mean_of_the_classes_that_have_an_outline():
    assert BoundaryScores(2, {1: 0.5, 2: None, 3: 1.0, 4: 0.0}).mean == 0.5
    assert BoundaryScores(2, {1: None}).mean is None
    assert BoundaryScores(2, {}).mean is None


ALL = slice(None)


def score(prediction, truth, tolerance=0.0, keep=None):
    counter = BoundaryCounter(tolerance)
    counter.add(prediction.astype(np.uint8), truth.astype(np.uint8), keep, ALL, [1])
    return counter.score(1)


def square(y, x, side=4):
    mask = np.zeros((20, 20), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_outlines_by_hand():
    assert outline(square(5, 5)).sum() == 12
    assert score(square(5, 5), square(5, 5)) == 1
    # moved by one: of 12 outline pixels, 3 + 3 + 1 - 1 = 6 lie on the other outline
    hits = (outline(square(5, 5)) & outline(square(5, 6))).sum()
    assert hits == 6
    assert score(square(5, 6), square(5, 5)) == 6 / 12
    assert score(square(5, 6), square(5, 5), 1) == 1
    assert score(square(5, 7), square(5, 5), 1.9) < 1
    assert score(square(5, 7), square(5, 5), 2) == 1


def test_precision_and_recall_are_distinguished():
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
