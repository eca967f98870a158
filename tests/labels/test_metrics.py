import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from evenslice.errors import BadInputError
from evenslice.labels.metrics import check_classes, confusion, scores_of

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
    np.testing.assert_array_equal(table, confusion_matrix(truth.ravel(), prediction.ravel(), labels=range(4)))
    present = sorted(set(np.unique(truth).tolist()) - {0})
    for kind, score in (("dice", f1_score), ("iou", jaccard_score)):
        each = score(truth.ravel(), prediction.ravel(), labels=present, average=None) if present else []
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
    assert scores.per_class[1] == {"dice": pytest.approx(4 / 7), "iou": pytest.approx(2 / 5), "voxels": 3}
    assert scores.per_class[2] == {"dice": pytest.approx(2 / 3), "iou": pytest.approx(1 / 2), "voxels": 2}
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
    assert confusion(np.array([True, False]), np.array([True, True]), 2).tolist() == [[0, 0], [1, 1]]


def test_scores_can_be_written_as_json():
    scores = scores_of(confusion(np.array([0, 1, 2]), np.array([0, 1, 1]), 3))
    again = json.loads(json.dumps(scores.to_dict()))
    assert again["schema"] == "evenslice.scores/1"
    assert again["per_class"]["1"]["voxels"] == 2
    assert again["dice"] == pytest.approx(scores.dice)


@pytest.mark.parametrize(
    "values",
    [np.array([0, 255]), np.array([True]), np.array([0.0, 3.0]), np.array([], np.uint8), np.array([255], "u1")],
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
