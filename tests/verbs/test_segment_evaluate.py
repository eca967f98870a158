"""Segmenting whole volumes and comparing with the truth."""

import numpy as np
import pytest

from evenslice import evaluate, open_volume, save_volume, segment
from evenslice.errors import BadInputError
from evenslice.volume.array import Volume

EVERYTHING = (slice(None),) * 3


def pixels(path):
    return open_volume(path).read(EVERYTHING)


@pytest.mark.parametrize("classes", [1, 3])
def test_labels_are_written_with_their_voxel_size(tmp_path, grey, make_model, classes):
    out = segment(make_model(classes=classes), Volume(grey, (50.0, 4.0, 4.0)), tmp_path / "s.tif")
    found = open_volume(out)
    assert (found.shape, found.dtype, found.voxel_nm) == (grey.shape, np.uint8, (50.0, 4.0, 4.0))
    assert set(np.unique(pixels(out))) <= set(range(max(2, classes)))


def test_probabilities_are_known_as_such_again(tmp_path, grey, make_model):
    model = make_model()
    segment(model, grey, tmp_path / "p.tif", output="probabilities")
    segment(model, grey, tmp_path / "l.tif", threshold=0.5)
    probability = open_volume(tmp_path / "p.tif")
    assert probability.meaning == "probabilities"
    assert ((pixels(tmp_path / "p.tif") > 127) == pixels(tmp_path / "l.tif")).mean() > 0.999
    assert evaluate(probability, tmp_path / "l.tif").dice > 0.99


def test_a_box_and_the_reversal_ensemble(tmp_path, grey, make_model):
    model = make_model("rgb")
    segment(model, grey, tmp_path / "box.tif", roi="2:5,0:32,32:96")
    assert pixels(tmp_path / "box.tif").shape == (3, 32, 64)
    segment(model, grey, tmp_path / "one.tif", output="probabilities", tta="reversal")
    segment(model, grey[::-1], tmp_path / "back.tif", output="probabilities", tta="reversal")
    difference = pixels(tmp_path / "one.tif").astype(int) - pixels(tmp_path / "back.tif")[::-1]
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "magic"}, "output 'magic' is unknown"),
        ({"threshold": 2.0}, "threshold is 2.0"),
        ({"tta": "all"}, "'all' is unknown, expected one of none, reversal"),
        ({"roi": "0:99,:,:"}, "expected a part of 0:9"),
        ({"roi": "abc"}, "expected Z0:Z1,Y0:Y1,X0:X1"),
        ({"tile": 1}, "--tile is 1, expected 32 pixels or more"),
    ],
)
def test_bad_options_leave_nothing(tmp_path, grey, make_model, options, message):
    with pytest.raises(BadInputError, match=message):
        segment(make_model(), grey, tmp_path / "s.tif", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_middle_leaves_nothing(tmp_path, grey, make_model):
    broken = grey.astype(np.float32)
    broken[6, 3, 3] = np.inf
    with pytest.raises(BadInputError, match="NaN or infinite"):
        segment(make_model(), broken, tmp_path / "s.tif")
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_kept(tmp_path, grey, make_model):
    (tmp_path / "s.tif").write_text("mine")
    with pytest.raises(BadInputError, match="exists, expected a new name"):
        segment(make_model(), grey, tmp_path / "s.tif")
    assert (tmp_path / "s.tif").read_text() == "mine"
    segment(make_model(), grey, tmp_path / "s.tif", force=True)
    assert pixels(tmp_path / "s.tif").shape == grey.shape


def volume(values, shape=(1, 2, 4)):
    return np.array(values).reshape(shape)


TRUTH = volume([0, 0, 1, 1, 1, 0, 0, 0]).astype(np.uint8)


@pytest.mark.parametrize(
    ("prediction", "options", "dice", "iou"),
    [
        (volume([0, 1, 1, 1, 0, 0, 0, 0]), {}, 2 * 2 / (3 + 3), 2 / 4),
        (volume([0, 0.9, 0.8, 0.6, 0.5, 0, 0, 0.1]), {}, 2 * 2 / 6, 2 / 4),
        (volume([0, 0.9, 0.8, 0.6, 0.5, 0, 0, 0.1]), {"threshold": 0.85}, 0.0, 0.0),
        (volume([0, 255, 255, 255, 0, 0, 0, 0]), {}, 4 / 6, 2 / 4),
        (TRUTH, {}, 1.0, 1.0),
        (volume([0, 1, 1, 1, 0, 0, 0, 0]), {"roi": "0:1,0:1,0:4"}, 4 / 5, 2 / 3),
    ],
)
def test_dice_and_iou_by_hand(prediction, options, dice, iou):
    for truth in (TRUTH, TRUTH * 255):
        found = evaluate(prediction, truth, **options)
        assert found.dice == pytest.approx(dice)
        assert found.iou == pytest.approx(iou)


def test_several_classes_and_an_ignored_label():
    truth = volume([0, 1, 1, 2, 2, 2, 9, 9])
    prediction = volume([0, 1, 2, 2, 2, 0, 5, 1])
    found = evaluate(prediction, truth, ignore=9)
    assert found.per_class[1]["dice"] == pytest.approx(2 / 3)
    assert found.per_class[2]["dice"] == pytest.approx(4 / 6)
    assert set(found.per_class) == {1, 2}
    assert found.voxels == 6
    assert found.to_dict()["schema"] == "evenslice.scores/1"
    assert found.to_dict()["per_class"]["1"]["voxels"] == 2


def test_another_class_in_the_same_place_is_wrong():
    assert evaluate(TRUTH, TRUTH * 2).per_class[2]["dice"] == 0.0
    assert evaluate(TRUTH * 2, TRUTH).dice == 0.0
    classes = volume([0, 1, 2, 2, 0, 3, 3, 3])
    assert (
        evaluate(classes % 3, classes, roi="0:1,1:2,0:4").dice == 0.0
    )  # a box with class 3 alone, predicted as 0


def test_probabilities_are_no_truth(tmp_path, grey, make_model):
    segment(make_model(), grey, tmp_path / "p.tif", output="probabilities")
    with pytest.raises(BadInputError, match="holds probabilities, expected labels as the truth"):
        evaluate(tmp_path / "p.tif", tmp_path / "p.tif")


def test_no_foreground_has_no_score():
    assert evaluate(TRUTH, TRUTH * 0).dice is None


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (TRUTH[:, :1], TRUTH, r"has shape \(1, 1, 4\), expected \(1, 2, 4\)"),
        (TRUTH + 3.5, TRUTH, "expected probabilities from 0 to 1"),
        (volume(range(8)) * 100, volume(range(8)), "expected class numbers 0 to 255"),
        (TRUTH, -1 * TRUTH.astype(int), "negative label"),
        (TRUTH, TRUTH * 0.5, "fractions"),
    ],
)
def test_what_cannot_be_compared_is_said(prediction, truth, message):
    with pytest.raises(BadInputError, match=message):
        evaluate(prediction, truth)


def test_files_of_every_integer_type(tmp_path):
    for dtype in (np.uint8, np.uint16, np.int16, np.int32, np.uint32):
        save_volume(tmp_path / "t.tif", TRUTH.astype(dtype))
        assert evaluate(tmp_path / "t.tif", TRUTH).dice == 1.0
