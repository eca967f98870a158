"""Dice, IoU and how scores are written: by hand, as laws, and beside scikit-learn."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from evenslice.errors import BadInputError
from evenslice.labels.metrics import BoundaryScores, Scores, check_classes, confusion, scores_of
from evenslice.labels.overlap import PERCENTS, Matching, Partition

labels = arrays(np.uint8, (4, 5), elements=st.integers(0, 3))
law = settings(derandomize=True, deadline=None, max_examples=60)


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


@law
@given(labels, labels)
def test_dice_and_iou_of_a_class_tell_the_same(prediction, truth):
    for entry in scores_of(confusion(prediction, truth, 4)).per_class.values():
        assert entry["dice"] == pytest.approx(2 * entry["iou"] / (1 + entry["iou"]))


def test_counts_by_hand():
    truth = np.array([[0, 0, 1, 1], [1, 2, 2, 9]])
    prediction = np.array([[0, 1, 1, 1], [0, 2, 1, 0]])
    table = confusion(prediction, truth, 3, ignore=9)
    assert table.tolist() == [[1, 1, 0], [1, 2, 0], [0, 1, 1]]
    scores = scores_of(table)
    assert scores.per_class[1] == {
        "dice": pytest.approx(4 / 7),
        "iou": pytest.approx(2 / 5),
        "voxels": 3,
    }
    assert scores.per_class[2] == {
        "dice": pytest.approx(2 / 3),
        "iou": pytest.approx(1 / 2),
        "voxels": 2,
    }
    assert scores.dice == pytest.approx((4 / 7 + 2 / 3) / 2)
    assert scores.iou == pytest.approx((2 / 5 + 1 / 2) / 2)
    assert scores.voxels == 7


def test_classes_absent_from_the_truth_do_not_count_but_cost_their_victims():
    truth, prediction = np.array([1, 1, 0]), np.array([1, 2, 0])
    scores = scores_of(confusion(prediction, truth, 3))
    assert set(scores.per_class) == {1}
    assert scores.dice == pytest.approx(2 / 3)


def test_a_truth_without_foreground_has_no_score():
    scores = scores_of(confusion(np.array([0, 1]), np.array([0, 0]), 2))
    assert (scores.dice, scores.iou, scores.per_class, scores.voxels) == (None, None, {}, 2)
    assert scores_of(confusion(np.array([1]), np.array([7]), 2, ignore=7)).dice is None


def test_a_missed_class_scores_0():
    scores = scores_of(confusion(np.zeros(4, int), np.ones(4, int), 2))
    assert (scores.dice, scores.iou) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("prediction", "truth"),
    [([0, 2], [0, 0]), ([0, 5], [0, 0]), ([-1, 0], [1, 0]), ([0, 0], [0, 2]), ([0, 0], [-1, 1])],
)
def test_other_numbers_than_classes_are_refused_rather_than_counted_elsewhere(prediction, truth):
    with pytest.raises(ValueError, match="class numbers"):
        confusion(np.array(prediction), np.array(truth), 2)


def test_shapes_must_be_equal():
    with pytest.raises(ValueError, match="shape"):
        confusion(np.zeros((2, 3), int), np.zeros((3, 2), int), 2)


def test_masks_can_be_compared():
    assert confusion(np.array([True, False]), np.array([True, True]), 2).tolist() == [
        [0, 0],
        [1, 1],
    ]


def test_scores_can_be_written_as_json():
    scores = scores_of(confusion(np.array([0, 1, 2]), np.array([0, 1, 1]), 3))
    again = json.loads(json.dumps(scores.to_dict()))
    assert again["schema"] == "evenslice.scores/1"
    assert again["per_class"]["1"]["voxels"] == 2
    assert again["dice"] == pytest.approx(scores.dice)


@pytest.mark.parametrize(
    "values",
    [
        np.array([0, 255]),
        np.array([True]),
        np.array([0.0, 3.0]),
        np.array([], np.uint8),
        np.array([255], "u1"),
    ],
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
    assert Scores(None, None, {}, 5).to_dict() == {
        "schema": "evenslice.scores/1",
        "as": "semantic",
        "dice": None,
        "iou": None,
        "per_class": {},
        "voxels": 5,
        "ignore": None,
        "threshold": None,
        "boundary_f": None,
        "tolerance": None,
        "per_slice": [],
        "adapted_rand_error": None,
        "adapted_rand_precision": None,
        "adapted_rand_recall": None,
        "voi_split": None,
        "voi_merge": None,
        "voi": None,
        "f1": None,
        "matching": None,
        "mean_matched_iou": None,
        "panoptic_quality": None,
        "objects": None,
        "trained_slices": [],
        "warnings": [],
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
        warnings=("look here",),
        provenance={"seed": 7},
    )
    found = scores.to_dict()
    assert found["per_class"] == {
        "1": {"dice": 0.8, "iou": 0.6, "voxels": 4, "boundary_f": 0.75},
        "3": {"dice": 0.2, "iou": 0.1, "voxels": 2},
    }
    assert (found["as"], found["ignore"], found["threshold"], found["voxels"]) == (
        "instances",
        0,
        0.25,
        12,
    )
    assert (found["dice"], found["iou"], found["boundary_f"], found["tolerance"]) == (
        0.5,
        0.375,
        0.75,
        2.5,
    )
    assert found["per_slice"] == [{"z": 4, "dice": 0.5, "iou": None}]
    assert (found["adapted_rand_error"], found["voi"]) == (0.1, 1.75)
    assert (found["f1"], found["objects"]) == (0.5, {"truth": 3, "prediction": 1})
    assert found["trained_slices"] == [[2, 3], [5, 7]] and found["warnings"] == ["look here"]
    assert found["provenance"] == {"seed": 7}
    assert found.keys() == Scores(None, None, {}, 5).to_dict().keys() | {"provenance"}
    assert scores.per_class[1] == {"dice": 0.8, "iou": 0.6, "voxels": 4}  # writing changes nothing


def test_the_boundary_score_is_the_mean_of_the_classes_that_have_an_outline():
    assert BoundaryScores(2, {1: 0.5, 2: None, 3: 1.0, 4: 0.0}).mean == 0.5
    assert BoundaryScores(2, {1: None}).mean is None
    assert BoundaryScores(2, {}).mean is None


def test_messages_say_what_was_found_what_was_expected_and_what_to_do():
    with pytest.raises(ValueError, match=r"^class numbers 0 to 7, expected 0 to 3$"):
        confusion(np.array([0, 7]), np.array([0, 1]), 4)
    with pytest.raises(
        ValueError, match=r"^prediction of shape \(2, 3\), expected \(3, 2\) like the truth$"
    ):
        confusion(np.zeros((2, 3), int), np.zeros((3, 2), int), 2)
    with pytest.raises(BadInputError) as caught:
        check_classes(np.array([0, 300]), "truth.tif")
    assert str(caught.value) == (
        "truth.tif holds values 0 to 300, expected class numbers 0 to 255; for objects use --as instances, else give one number "
        "a class"
    )
    with pytest.raises(BadInputError) as caught:
        check_classes(np.array([0.5]), "found.tif")
    assert str(caught.value) == (
        "found.tif holds fractions, expected class numbers; give labels, or probabilities as float with --threshold"
    )
