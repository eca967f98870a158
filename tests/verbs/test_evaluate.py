"""Scores by hand: classes, probabilities, objects, boundaries, slices and boxes."""

import json
import re

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import evenslice.verbs.evaluate
from evenslice import save_volume
from evenslice.cli import app as cli
from evenslice.errors import BadInputError
from evenslice.evidence.label_asymmetry import label_asymmetry
from evenslice.labels.blocks import bands
from evenslice.labels.targets import Target
from evenslice.verbs.evaluate import evaluate
from evenslice.volume.array import Volume

INSTANCES = {"as_": "instances"}


def row(*values):
    return np.array(values).reshape(1, 1, -1)


TRUTH = row(0, 0, 1, 1, 1, 1, 2, 2)
FOUND = row(5, 0, 5, 5, 5, 6, 6, 6)


MASK = row(0, 0, 1, 1, 1, 0, 0, 0).astype(np.uint8)
FRACTIONS = row(0, 0.9, 0.8, 0.6, 0.5, 0, 0, 0.1)


@pytest.mark.parametrize(
    ("prediction", "options", "dice", "iou"),
    [
        (row(0, 1, 1, 1, 0, 0, 0, 0), {}, 2 * 2 / (3 + 3), 2 / 4),
        (FRACTIONS, {}, 2 * 2 / 6, 2 / 4),
        (FRACTIONS, {"threshold": 0.85}, 0.0, 0.0),
        (row(0, 255, 255, 255, 0, 0, 0, 0), {}, 4 / 6, 2 / 4),
        (MASK, {}, 1.0, 1.0),
        (row(0, 1, 1, 1, 0, 0, 0, 0), {"roi": "0:1,0:1,0:4"}, 4 / 5, 2 / 3),
    ],
)
def test_dice_and_iou_by_hand(prediction, options, dice, iou):
    for truth in (MASK, MASK * 255):
        found = evaluate(prediction, truth, **options)
        assert found.dice == pytest.approx(dice)
        assert found.iou == pytest.approx(iou)


def test_several_classes_and_an_ignored_label():
    found = evaluate(row(0, 1, 2, 2, 2, 0, 5, 1), row(0, 1, 1, 2, 2, 2, 9, 9), ignore=9)
    assert found.per_class[1]["dice"] == pytest.approx(2 / 3)
    assert found.per_class[2]["dice"] == pytest.approx(4 / 6)
    assert set(found.per_class) == {1, 2}
    assert found.voxels == 6
    assert found.to_dict()["schema"] == "evenslice.scores/1"
    assert found.to_dict()["per_class"]["1"]["voxels"] == 2


def test_another_class_in_the_same_place_is_wrong():
    assert evaluate(MASK, MASK * 2).per_class[2]["dice"] == 0.0
    assert evaluate(MASK * 2, MASK).dice == 0.0
    classes = row(0, 1, 2, 2, 0, 3, 3, 3)
    box = "0:1,:,4:8"  # with class 3 alone, predicted as 0
    assert evaluate(classes % 3, classes, roi=box).dice == 0.0


def test_no_foreground_has_no_score():
    assert evaluate(MASK, MASK * 0).dice is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.uint32])
def test_files_of_every_integer_type(tmp_path, dtype):
    save_volume(tmp_path / "t.tif", MASK.astype(dtype))
    assert evaluate(tmp_path / "t.tif", MASK).dice == 1.0


def test_objects_by_hand():
    found = evaluate(FOUND, TRUTH, **INSTANCES)
    assert found.partition.adapted_rand_error == pytest.approx(1 - 2 * (6 + 2) / (14 + 12))
    assert found.matching.matched[50] == 2  # 3 of 5 and 2 of 3
    assert found.dice == pytest.approx(2 * 6 / (6 + 7))
    assert found.iou == pytest.approx(6 / 7)
    assert (found.voxels, found.ignore) == (8, 0)
    as_json = json.loads(json.dumps(found.to_dict()))
    assert as_json["schema"] == "evenslice.scores/1"
    assert as_json["as"] == "instances"
    assert as_json["objects"] == {"truth": 2, "prediction": 2}
    assert as_json["voi"] == pytest.approx(as_json["voi_split"] + as_json["voi_merge"])
    assert as_json["boundary_f"] is None and as_json["threshold"] is None
    assert set(as_json) == set(evaluate(TRUTH, TRUTH).to_dict())


def test_what_is_left_out_of_object_scores():
    usual = evaluate(FOUND, TRUTH, **INSTANCES)
    assert usual == evaluate(FOUND, TRUTH, ignore=0, **INSTANCES)
    every = evaluate(FOUND, TRUTH, ignore=None, **INSTANCES)
    assert every.partition.adapted_rand_error == pytest.approx(
        1 - 2 * (3 * 2 + 2) / ((2 + 12 + 2) + (12 + 6))
    )
    assert every.matching == usual.matching
    other = evaluate(FOUND, TRUTH, ignore=2, **INSTANCES)
    assert (other.voxels, other.matching.truth_objects) == (6, 1)
    assert (
        other.partition
        == evaluate(FOUND[..., :6], TRUTH[..., :6], ignore=None, **INSTANCES).partition
    )
    assert (
        evaluate(TRUTH, np.where(TRUTH == 0, -1, TRUTH), ignore=-1, **INSTANCES).partition.voi == 0
    )


@pytest.mark.parametrize("label", [-1, 60000])
def test_a_label_left_out_need_not_be_a_class(label):
    assert evaluate(TRUTH, np.where(TRUTH == 0, label, TRUTH), ignore=label).dice == 1


def test_an_empty_truth_has_no_object_scores():
    found = evaluate(TRUTH, TRUTH * 0, **INSTANCES).to_dict()
    assert [
        found[key] for key in ("dice", "f1", "adapted_rand_error", "voi", "panoptic_quality")
    ] == [None] * 5
    assert found["objects"] == {"truth": 0, "prediction": 2}


def test_the_size_of_boxes_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (5, 7, 1)).repeat(6, axis=2)
    found = np.where(rng.random(truth.shape) < 0.2, 0, truth)
    options = [
        {"tolerance": 1},
        {"roi": "1:4,2:7,0:5", "ignore": 2},
        INSTANCES,
        {**INSTANCES, "roi": "0:3,:,1:4"},
    ]
    whole = [evaluate(found, truth, **o) for o in options]
    for most in (1, 12, 50, 100):
        monkeypatch.setattr(
            evenslice.verbs.evaluate,
            "bands",
            lambda shape, halo=0, _=0, most=most: bands(shape, halo, most),
        )
        assert [evaluate(found, truth, **o) for o in options] == whole


class Lazy:
    """Pixels that remember the largest box that was read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.largest = array, array.shape, array.dtype, 0

    def __getitem__(self, key):
        part = self.array[key]
        self.largest = max(self.largest, part.size)
        return part


@pytest.mark.parametrize("as_", ["semantic", "instances"])
def test_a_volume_is_never_read_whole(monkeypatch, as_):
    import evenslice.labels.targets

    monkeypatch.setattr(evenslice.verbs.evaluate, "MOST_VOXELS", 500)
    for module in (evenslice.labels.targets, evenslice.verbs.evaluate):
        monkeypatch.setattr(module, "bands", lambda shape, halo=0, most=0: bands(shape, halo, 500))
    lazy = [Lazy(np.ones((30, 40, 50), np.uint8)) for _ in range(2)]
    evaluate(*map(Volume, lazy), as_=as_, tolerance=1)
    assert all(
        0 < one.largest <= 40 * 50 for one in lazy
    )  # one slice at a time, to recognise the volume by


def test_scores_of_each_slice_carry_the_place_in_the_volume():
    truth = np.zeros((4, 2, 2), np.uint8)
    truth[1:, 0] = 1
    found = truth.copy()
    found[3, 0, 0] = 0
    per_slice = evaluate(found, truth, roi="1:4,:,:").per_slice
    assert per_slice[0] == {"z": 1, "dice": 1, "iou": 1}
    assert per_slice[2] == {"z": 3, "dice": pytest.approx(2 / 3), "iou": 0.5}
    assert evaluate(found, truth).to_dict()["per_slice"][0] == {"z": 0, "dice": None, "iou": None}


def test_boundaries_within_the_tolerance():
    truth = np.zeros((2, 20, 20), np.uint8)
    truth[:, 5:15, 5:15] = 1
    moved = np.roll(truth, 2, axis=2)
    assert evaluate(moved, truth).boundary.mean == 1
    near = evaluate(moved, truth, tolerance=1).to_dict()
    assert near["boundary_f"] == near["per_class"]["1"]["boundary_f"] < 1
    assert near["tolerance"] == 1
    ignored = np.where(np.arange(20) > 9, 9, truth)
    assert evaluate(truth, ignored, ignore=9).boundary.mean == 1
    classes = evaluate(
        truth * 2, np.where(np.arange(20) < 10, truth, truth * 2), tolerance=0
    ).boundary.per_class
    assert classes[1] == 0 < classes[2] < 1


@pytest.mark.parametrize(
    ("prediction", "truth", "options", "message"),
    [
        (FOUND / 9, TRUTH, INSTANCES, "type float64, expected objects as whole numbers"),
        (FOUND, TRUTH / 1.0, INSTANCES, "expected objects as whole numbers"),
        (Volume(FOUND, meaning="probabilities"), TRUTH, INSTANCES, "holds probabilities"),
        (FOUND, -TRUTH, INSTANCES, "the ground truth holds the negative label -2"),
        (-FOUND, TRUTH, INSTANCES, "the prediction holds the negative label -6"),
        (FOUND, TRUTH, {"as_": "both"}, "--as is 'both', expected 'semantic' or 'instances'"),
        (FOUND, TRUTH, {"tolerance": -1.0}, "--tolerance is -1.0, expected 0"),
        (FOUND, TRUTH, {"tolerance": float("nan")}, "--tolerance is nan"),
        (MASK[..., :4], MASK, {}, r"has shape \(1, 1, 4\), expected \(1, 1, 8\)"),
        (MASK + 3.5, MASK, {}, "expected probabilities from 0 to 1"),
        (MASK, -1 * MASK.astype(int), {}, "negative label"),
        (MASK, MASK * 0.5, {}, "fractions"),
        (row(*range(300)), row(*range(300)), {}, "holds more than 255 labels.*use --as instances"),
        (row(0, 1, 2), row(0, 1, 400), {}, "holds values 0 to 400.*use --as"),
    ],
)
def test_what_cannot_be_compared_is_said(prediction, truth, options, message):
    with pytest.raises(BadInputError, match=message):
        evaluate(prediction, truth, **options)


def test_a_truth_of_very_many_objects_is_refused_at_the_first_box(monkeypatch):
    lazy = Lazy(np.arange(4000, dtype=np.uint32).reshape(10, 20, 20))
    monkeypatch.setattr("evenslice.labels.targets.bands", lambda shape: bands(shape, most=400))
    read = []
    monkeypatch.setattr(Lazy, "__getitem__", lambda self, key: read.append(key) or self.array[key])
    with pytest.raises(BadInputError, match="--as instances"):
        evaluate(np.zeros(lazy.shape, np.uint8), Volume(lazy))
    assert len(read) == 1


def test_many_classes_are_doubted():
    many = row(*range(60))
    assert (
        "array holds 59 classes; if these are objects, compare them with --as instances"
        in evaluate(many, many).warnings
    )
    assert evaluate(TRUTH, TRUTH).warnings == ()


def test_voxels_of_another_size_are_doubted():
    truth, near, other = (Volume(TRUTH, (30.0, side, side)) for side in (6.0, 6.05, 6.1))
    assert evaluate(near, truth).warnings == evaluate(TRUTH, truth).warnings == ()
    for options in ({}, INSTANCES):
        [warning] = evaluate(other, truth, **options).warnings
        assert "30 x 6.1 x 6.1 nm" in warning and "30 x 6 x 6 nm (z, y, x)" in warning


BLOBS = row(0, 1, 1, 0, 1, 0, 0, 1)
PARTLY = row(1, 1, 2, 1, 2, 2, 1, 1)


@pytest.mark.parametrize(
    ("prediction", "truth", "options", "facts"),
    [
        (BLOBS, BLOBS * 128, {}, "foreground 1, array 128, expected the same numbers"),
        (BLOBS * 255, BLOBS * 2, {}, "foreground 255, array 2, expected the same numbers"),
        (BLOBS * 128, BLOBS * 255, {}, "foreground 128, array 255, expected"),
        (BLOBS * [1, 1, 2, 1, 1, 1, 1, 1], BLOBS * 7, {}, "foreground 1, 2, array 7, expected"),
        (BLOBS, 1 + BLOBS, {}, "array holds 0, 1, array 1, 2 in .* expected 0 for background"),
        (1 + BLOBS, BLOBS, {}, "array holds 1, 2, array 0, 1 in .* expected 0 for background"),
        (BLOBS, row(0, 1, 1, 0, 2, 0, 0, 3), {}, "foreground 1, array 1, 2, 3, .* --as instances"),
        (BLOBS * 0.9, row(0, 1, 1, 0, 2, 0, 0, 3), {}, "foreground 1, array 1, 2, 3, .* --as inst"),
        (row(0, 1, 1, 0, 2, 0, 0, 3), BLOBS * 255, {}, "foreground 1, 2, 3, array 1, .* --as inst"),
        (BLOBS * 0, BLOBS, {}, "array holds no foreground in what is compared$"),
        (BLOBS * 0.4, BLOBS, {}, "array holds no foreground above the threshold 0.5"),
        (BLOBS, BLOBS * 0, {}, "array holds no foreground in what is compared, so there are no"),
        (BLOBS, BLOBS * 0 + 9, {"ignore": 9}, "every voxel compared has the ignored label 9"),
        (BLOBS, BLOBS + row(0, 0, 0, 0, 0, 255, 255, 0), {}, "holds 255, .* give --ignore 255"),
        (BLOBS * 0, BLOBS * 5, INSTANCES, "array holds no objects"),
        (BLOBS * 5, BLOBS * 0 + 9, INSTANCES | {"ignore": 9}, "every voxel .* the ignored label"),
    ],
)
def test_scores_that_are_not_what_they_seem_are_said(prediction, truth, options, facts):
    (said,) = evaluate(prediction, truth, **options).warnings
    assert re.search(facts, said)


@pytest.mark.parametrize(
    ("prediction", "truth", "options"),
    [
        (BLOBS, BLOBS * 255, {}),
        (BLOBS * 65535, BLOBS, {}),
        (BLOBS * 128, BLOBS * 128, {}),
        (PARTLY, PARTLY, {}),
        (BLOBS, PARTLY % 2 + 1, {"ignore": 2}),
        (BLOBS, BLOBS + row(0, 0, 0, 0, 0, 255, 255, 0), {"ignore": 255}),
        (BLOBS * 5, BLOBS * 7, INSTANCES),
    ],
)
def test_scores_that_are_what_they_seem_are_not_doubted(prediction, truth, options):
    assert evaluate(prediction, truth, **options).warnings == ()


def test_probabilities_stored_as_whole_numbers_are_doubted():
    found = np.arange(60).reshape(1, 6, 10)
    truth = found % 3
    (said,) = evaluate(found, truth).warnings
    assert "57 numbers that array does not" in said and "float from 0 to 1" in said


@pytest.mark.parametrize("mask", [1, 128, 255])
def test_a_mask_is_one_object_unless_its_components_are_asked_for(mask):
    objects = row(0, 1, 1, 0, 2, 0, 0, 3)
    one = evaluate(BLOBS * mask, objects, **INSTANCES)
    (said,) = one.warnings
    assert f"holds 0 and {mask} only" in said and "--components" in said
    assert one.matching.predicted_objects == 1
    for prediction, truth in ((BLOBS * mask, objects), (BLOBS, BLOBS * mask)):
        found = evaluate(prediction, truth, components=True, **INSTANCES)
        assert found.matching.matched[50] == 3
        assert found.partition.adapted_rand_error == 0 and found.warnings == ()


def test_components_of_a_ground_truth_keep_its_ignored_label():
    truth = row(0, 1, 1, 0, 1, 0, 2, 2)  # the second component has the number of the ignored label
    found = evaluate(BLOBS, truth, components=True, ignore=2, **INSTANCES)
    assert (found.voxels, found.matching.truth_objects, found.matching.matched[50]) == (6, 2, 2)


@pytest.mark.parametrize("most", [1, 12, 50])
def test_components_do_not_depend_on_the_boxes(monkeypatch, most):
    import evenslice.labels.components

    rng = np.random.default_rng(0)
    mask = (rng.random((5, 9, 8)) < 0.4).astype(np.uint8)
    whole = evaluate(mask, mask, components=True, **INSTANCES)
    monkeypatch.setattr(evenslice.labels.components, "bands", lambda shape: bands(shape, most=most))
    assert evaluate(mask, mask, components=True, **INSTANCES) == whole
    assert whole.matching.truth_objects == whole.matching.matched[50] > 9


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"components": True}, "--as instances"),
        ({"components": True, "as_": "instances"}, "neither array nor array is a mask"),
    ],
)
def test_components_need_a_mask_and_objects(changes, facts):
    with pytest.raises(BadInputError, match=facts):
        evaluate(TRUTH, TRUTH, **changes)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((4, 6, 5), "y and x"), ((5, 4, 6), "z and y"), ((5, 6, 4), "z and y and x")],
)
def test_exchanged_axes_are_said(shape, axes):
    with pytest.raises(BadInputError, match=f"the axes {axes} seem to be exchanged"):
        evaluate(np.ones(shape, np.uint8), np.ones((4, 5, 6), np.uint8))


def test_the_asymmetry_of_the_ground_truth_stands_beside_the_scores(tmp_path, capfd):
    rng = np.random.default_rng(0)
    raw = gaussian_filter(rng.normal(size=(40, 48, 64)), (1, 3, 3))
    real = (raw > 0.5 * raw.std()).astype(np.uint8)
    copied = real[[0, *range(39)]]
    found = evaluate(real, copied, raw=raw).truth_asymmetry
    assert found["verdict"] == "asymmetric toward previous"
    target = Target("foreground", 1)
    assert found == label_asymmetry(Volume(raw), Volume(copied), target).to_dict()
    assert evaluate(real, copied).truth_asymmetry is None
    objects = evaluate(real, copied, raw=raw, roi="4:40,0:48,0:64", **INSTANCES)
    assert objects.truth_asymmetry["target"] == "boundary"
    with pytest.raises(BadInputError, match="expected"):
        evaluate(real, copied, raw=raw[1:])
    for name, values in (("real", real), ("copied", copied), ("raw", raw.astype("float32"))):
        save_volume(tmp_path / f"{name}.tif", values)
    words = [str(tmp_path / f"{name}.tif") for name in ("real", "copied", "raw")]
    with pytest.raises(SystemExit, match="0"):
        cli.main(["evaluate", *words[:2], "--raw", words[2]])
    assert "Ground truth: Labels (foreground): fit the previous slice" in capfd.readouterr().out
