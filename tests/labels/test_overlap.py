"""Rand error, variation of information, matching: by hand, as laws, against scikit-image."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.metrics import adapted_rand_error, variation_of_information

from evenslice.errors import BadInputError
from evenslice.labels import overlap as contingency
from evenslice.labels.blocks import bands
from evenslice.labels.overlap import PERCENTS, PairCounter, match_objects, partition_scores

labels = arrays(np.int32, (2, 4, 6), elements=st.integers(0, 4))
planes = arrays(np.uint8, (6, 8), elements=st.integers(0, 3))
law = settings(derandomize=True, deadline=None, max_examples=30)


def pairs_of(prediction, truth, ignore=None):
    counter = PairCounter(ignore)
    counter.add(np.asarray(prediction), np.asarray(truth))
    return counter.table()


def scores(prediction, truth, ignore=None):
    return partition_scores(pairs_of(prediction, truth, ignore))


def test_two_by_two_by_hand():
    # truth 1 has 4 voxels (3 predicted 5, 1 predicted 6), truth 2 has 2 (both predicted 6)
    truth, prediction = [1, 1, 1, 1, 2, 2], [5, 5, 5, 6, 6, 6]
    pairs = pairs_of(prediction, truth)
    assert list(zip(pairs.truth, pairs.prediction, pairs.count, strict=True)) == [
        (1, 5, 3),
        (1, 6, 1),
        (2, 6, 2),
    ]
    found = partition_scores(pairs)
    together, by_truth, by_prediction = 3 * 2 + 0 + 2 * 1, 4 * 3 + 2 * 1, 3 * 2 + 3 * 2
    assert found.adapted_rand_precision == together / by_prediction
    assert found.adapted_rand_recall == together / by_truth
    assert found.adapted_rand_error == pytest.approx(
        1 - 2 * together / (by_truth + by_prediction), abs=1e-15
    )
    split = 3 / 6 * math.log2(4 / 3) + 1 / 6 * math.log2(4 / 1)
    merge = 1 / 6 * math.log2(3 / 1) + 2 / 6 * math.log2(3 / 2)
    assert (found.voi_split, found.voi_merge) == (pytest.approx(split), pytest.approx(merge))
    assert found.voi == found.voi_split + found.voi_merge


def oracle(prediction, truth, ignore=()):
    """Scores of scikit-image, with precision and recall named rightly."""
    error, recall, precision = adapted_rand_error(truth, prediction, ignore_labels=ignore)
    split, merge = variation_of_information(truth, prediction, ignore_labels=ignore)
    return [error, precision, recall, split, merge]


def in_a_row(found):
    return [
        found.adapted_rand_error,
        found.adapted_rand_precision,
        found.adapted_rand_recall,
        found.voi_split,
        found.voi_merge,
    ]


@pytest.mark.parametrize("ignore", [None, 0, 3])
def test_scores_equal_those_of_scikit_image(ignore):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 40, (5, 30, 40)).repeat(7, axis=2)
    prediction = np.where(
        rng.random(truth.shape) < 0.3, rng.integers(0, 60, truth.shape), truth // 2
    )
    expected = oracle(prediction, truth, () if ignore is None else (ignore,))
    np.testing.assert_allclose(
        in_a_row(scores(prediction, truth, ignore)), expected, rtol=0, atol=1e-12
    )


def test_scores_equal_those_of_scikit_image_on_neurons(shared):
    from evenslice import open_volume

    volume = open_volume(shared / "data" / "isbi2012" / "neurons.tif")
    truth = volume.read((slice(0, 8), slice(None), slice(None)))
    prediction = np.roll(truth, (3, 5), (1, 2))
    prediction[prediction % 5 == 1] += 1
    found = in_a_row(partition_scores(pairs_of(prediction, truth).without(0)))
    np.testing.assert_allclose(found, oracle(prediction, truth, (0,)), rtol=0, atol=1e-12)
    assert 0 < found[0] < 1


@law
@given(labels, labels)
def test_a_perfect_prediction_has_no_error_and_every_other_has(prediction, truth):
    perfect = scores(truth, truth)
    assert (perfect.adapted_rand_error, perfect.voi_split, perfect.voi_merge) == (0, 0, 0)
    found = scores(prediction, truth)
    one_to_one = (
        len(set(zip(truth.flat, prediction.flat, strict=True)))
        == len(set(truth.flat))
        == len(set(prediction.flat))
    )
    assert (found.voi == 0) == one_to_one
    assert 0 <= found.adapted_rand_error <= 1


@law
@given(labels, labels, st.permutations(range(5)), st.permutations(range(5)))
def test_names_change_no_digit(prediction, truth, names, others):
    renamed = scores(np.array(names)[prediction] * 10**12, np.array(others)[truth] + 2**40)
    assert renamed == scores(prediction, truth)


@law
@given(labels, labels)
def test_exchanging_the_two_exchanges_split_and_merge(prediction, truth):
    found, back = scores(prediction, truth), scores(truth, prediction)
    assert (found.voi_split, found.adapted_rand_precision) == (
        back.voi_merge,
        back.adapted_rand_recall,
    )
    assert found.adapted_rand_error == back.adapted_rand_error


@law
@given(labels, labels, st.sampled_from([None, 0]))
def test_boxes_and_strips_of_any_size_give_the_same_table(prediction, truth, ignore):
    whole = pairs_of(prediction, truth, ignore)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contingency, "STRIP", 5)
        patch.setattr(contingency, "MOST_RUNS", 3)
        patch.setattr(contingency, "MOST_CELLS", 0)
        counter = PairCounter(ignore)
        for band in bands(truth.shape, most=7):
            counter.add(prediction[band.box], truth[band.box])
        parts = counter.table()
    for name in ("truth", "prediction", "count"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_merging_changes_voi_merge_alone_and_splitting_voi_split_alone():
    truth = np.repeat([1, 2, 3], 4)
    merged, split = np.where(truth == 2, 1, truth), truth.copy()
    split[:2] = 9
    one, other = scores(merged, truth), scores(split, truth)
    assert one.voi_split == 0 and one.voi_merge == pytest.approx(8 / 12)
    assert other.voi_merge == 0 and other.voi_split == pytest.approx(4 / 12)
    assert one.adapted_rand_recall == other.adapted_rand_precision == 1
    assert one.adapted_rand_precision < 1 and other.adapted_rand_recall < 1


BIG = [2**32 + 1, 2**53 + 1, 2**63 + 5, 2**64 - 1]


def test_numbers_of_64_bits_keep_all_their_bits():
    """Also beyond what a pair of 32-bit halves or a float64 can tell apart."""
    truth, prediction = np.random.default_rng(0).choice(np.array([0, *BIG], np.uint64), (2, 60))
    pairs = pairs_of(prediction - np.uint64(1), truth)  # of 0: the largest there is
    expected = Counter(zip(truth.tolist(), (prediction - np.uint64(1)).tolist(), strict=True))
    found = zip(pairs.truth.tolist(), pairs.prediction.tolist(), pairs.count.tolist(), strict=True)
    assert list(found) == [(*names, count) for names, count in sorted(expected.items())]


def test_signed_numbers_are_taken_and_negative_ones_refused_unless_left_out():
    truth, prediction = np.array([-1, 3, 3]), np.array([0, 2**40, 4], np.int64)
    assert pairs_of(prediction, truth, ignore=-1).count.tolist() == [1, 1]
    with pytest.raises(
        BadInputError,
        match=r"the ground truth holds the negative label -1 \(slice 4\), expected 0 or more",
    ):
        PairCounter().add(prediction, truth, "slice 4")
    with pytest.raises(BadInputError, match="the prediction holds the negative label -1"):
        pairs_of(truth, prediction)


def test_nothing_counted_has_no_score_and_one_voxel_is_perfect():
    assert scores([1, 2], [7, 7], ignore=7).to_dict() == dict.fromkeys(scores([1], [1]).to_dict())
    lone = scores([4], [2])
    assert (lone.adapted_rand_error, lone.adapted_rand_precision, lone.voi) == (0, None, 0)


def test_counts_beyond_64_bits_when_squared():
    pairs = contingency.Pairs(
        *(np.array(v, d) for v, d in (([1, 1], "u8"), ([1, 2], "u8"), ([2**40, 2**40], "i8")))
    )
    half = 2**40 * (2**40 - 1)
    assert partition_scores(pairs).adapted_rand_recall == pytest.approx(
        2 * half / (2**41 * (2**41 - 1)), rel=1e-15
    )


def matched(prediction, truth):
    return match_objects(pairs_of(prediction, truth))


def test_matching_by_hand():
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
    table = found.to_dict()["matching"]
    assert table["0.50"] == {"f1": 0.4, "precision": 1 / 3, "recall": 1 / 2, "matched": 1}
    assert table["0.95"] == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "matched": 0}


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


@settings(law, max_examples=20)
@given(planes, planes, st.permutations([1, 2, 3]))
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
@given(planes)
def test_a_perfect_prediction_matches_all(truth):
    found = matched(truth, truth)
    assert found.f1(95) == (1 if truth.any() else None)
    assert found.panoptic_quality == (1 if truth.any() else None)
