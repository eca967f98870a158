"""Matching objects one to one by IoU."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evenslice.labels.overlap import PERCENTS, PairCounter, match_objects

labels = arrays(np.uint8, (6, 8), elements=st.integers(0, 3))
law = settings(derandomize=True, deadline=None, max_examples=60)


def matched(prediction, truth):
    counter = PairCounter()
    counter.add(np.asarray(prediction), np.asarray(truth))
    return match_objects(counter.table())


def test_by_hand():
    truth = np.zeros(40, int)
    prediction = np.zeros(40, int)
    truth[0:10], prediction[0:8] = 1, 5  # IoU 8/10
    truth[10:20], prediction[14:24] = 2, 6  # IoU 6/14, not found
    prediction[30:33] = 7  # nothing there
    found = matched(prediction, truth)
    assert (found.truth_objects, found.predicted_objects) == (2, 3)
    assert [p for p in PERCENTS if found.matched[p] == 1] == [50, 55, 60, 65, 70, 75]
    assert found.f1() == 2 * 1 / (2 + 3)
    assert found.mean_iou == 0.8
    assert found.panoptic_quality == pytest.approx(0.8 / (1 + 2 / 2 + 1 / 2))
    assert found.to_dict()["matching"]["0.50"] == {
        "f1": 0.4,
        "precision": 1 / 3,
        "recall": 1 / 2,
        "matched": 1,
    }
    assert found.to_dict()["matching"]["0.95"] == {
        "f1": 0.0,
        "precision": 0.0,
        "recall": 0.0,
        "matched": 0,
    }


def test_an_iou_of_exactly_the_threshold_is_no_match():
    assert matched([5, 0], [1, 1]).matched[50] == 0
    assert matched([5] * 11 + [0] * 9, [1] * 20).matched == {p: int(p < 55) for p in PERCENTS}


def test_an_object_in_the_background_is_wrong():
    assert matched([1, 0, 0, 2], [1, 0, 0, 0]).f1() == 2 / 3


@pytest.mark.parametrize(
    ("prediction", "truth", "f1", "precision", "recall"),
    [
        ([0, 0], [0, 0], None, None, None),
        ([1, 0], [0, 0], None, 0, None),
        ([0, 0], [1, 0], 0, None, 0),
    ],
)
def test_nothing_to_find_or_nothing_found(prediction, truth, f1, precision, recall):
    found = matched(prediction, truth)
    at = found.to_dict()["matching"]["0.50"]
    assert (found.f1(), at["precision"], at["recall"]) == (f1, precision, recall)
    assert found.mean_iou is None


@law
@given(labels, labels, st.permutations([1, 2, 3]))
def test_as_a_loop_would_match_and_names_do_not_matter(prediction, truth, names):
    ious = []
    for t in set(truth.flat) - {0}:
        for p in set(prediction.flat) - {0}:
            a, b = truth == t, prediction == p
            ious.append((a & b).sum() / (a | b).sum())
    found = matched(prediction, truth)
    for percent in PERCENTS:
        assert found.matched[percent] == sum(100 * iou > percent + 1e-9 for iou in ious)
    assert matched(np.array([0, *names])[prediction], truth) == found


@law
@given(labels)
def test_perfect(truth):
    found = matched(truth, truth)
    assert found.f1(95) == (1 if truth.any() else None)
    assert found.panoptic_quality == (1 if truth.any() else None)
