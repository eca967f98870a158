"""What is read of a segmentation: its windows, the part to compare, the slices trained on."""

import json

import numpy as np
import pytest

from evenslice import evaluate, open_volume, segment
from evenslice.options import SegmentOptions
from evenslice.segmentation.result import open_prediction, segmentation_views, trained_spans
from evenslice.volume.array import Volume
from evenslice.volume.inputs import fingerprint
from verbs.scenes import arrays_of, blurring, identity

WHOLE = (slice(None),) * 3


@pytest.mark.parametrize("axis", ["z", "x"])
def test_windows_hold_what_was_written_there(tmp_path, axis):
    grey = np.random.default_rng(0).integers(0, 255, (9, 40, 48), np.uint8)
    volume = Volume(grey, (40.0, 4.0, 8.0), "raw")
    roi = "2:8,4:40,0:48"
    options = SegmentOptions(roi=roi, axis=axis, output="probabilities", precision="fp32")
    result = segment(identity(), volume, tmp_path / "s.tif", options)
    views = segmentation_views(volume, result, options, count=2, side=20)
    written = open_volume(tmp_path / "s.tif").read(WHOLE)
    raw, box = (grey, (2, 4, 0)) if axis == "z" else (grey.transpose(2, 1, 0), (0, 4, 2))
    made = written if axis == "z" else written.transpose(2, 1, 0)
    assert len(views) == 2
    for view in views:
        z, y, x = view.origin
        height, width = view.prediction.shape
        assert view.slices.shape == (result.slices, height, width)
        assert max(height, width) <= 20
        np.testing.assert_array_equal(
            view.slices[result.slices // 2], raw[z, y : y + height, x : x + width]
        )
        there = made[z - box[0], y - box[1] : y - box[1] + height, x - box[2] : x - box[2] + width]
        np.testing.assert_allclose(view.prediction, there / 255, atol=1e-6)
        assert view.voxel_nm == ((40.0, 4.0, 8.0) if axis == "z" else (8.0, 4.0, 40.0))


def test_objects_are_shown_where_there_are_any(tmp_path):
    grey = np.zeros((5, 32, 32), np.uint8)
    grey[:, 4:8, 4:8] = grey[:, 20:28, 20:28] = 255
    result = segment(
        identity(), grey, tmp_path / "s.zarr", instances="components", precision="fp32"
    )
    views = segmentation_views(grey, result, count=9)
    assert len(views) == 5
    assert all(view.numbered for view in views)
    assert set(np.unique(views[0].prediction)) == {0, 1, 2}


def test_scores_of_a_store_find_their_part(tmp_path, grey):
    labels = np.uint8(grey > 128)
    model = blurring(
        training={"fingerprint": fingerprint(Volume(grey)), "slices": [[0, 5], [7, 8]]}
    )
    result = segment(model, grey, tmp_path / "s.zarr", instances="components")
    assert result.trained_slices == [[0, 5], [7, 8]]
    found = arrays_of(result)
    semantic = evaluate(result.path, labels)
    assert semantic.dice == evaluate(np.uint8(found["0"][0] > 0.5), labels).dice
    assert (
        evaluate(result.path, labels, threshold=0.7).dice
        == evaluate(np.uint8(found["0"][0] > 0.7), labels).dice
    )
    objects = evaluate(result.path, found["labels/segmentation/0"], as_="instances")
    assert (objects.partition.adapted_rand_error, objects.partition.voi) == (0, 0)
    for scores in (semantic, objects):
        (warning,) = [one for one in scores.warnings if "was trained on" in one]
        assert "6 of the 9 slices compared (z 0:5, 7:8)" in warning
    other = segment(model, grey, tmp_path / "box.zarr", roi="3:8,:,:")
    assert other.trained_slices == [[0, 2], [4, 5]]
    assert segment(model, grey[::-1], tmp_path / "back.zarr").trained_slices == []
    assert not evaluate(tmp_path / "back.zarr", labels[::-1]).warnings


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A folder that looks like a store of segment, and what would be opened of it."""
    folder = tmp_path / "s.zarr"
    (folder / "labels" / "segmentation").mkdir(parents=True)
    (folder / "0").mkdir()
    (folder / "0" / "zarr.json").write_text(json.dumps({"shape": [1, 9, 1, 8]}))
    attributes = {"attributes": {"ome": {}, "evenslice": {"trained_slices": [[0, 3], [5, 7]]}}}
    (folder / "zarr.json").write_text(json.dumps(attributes))
    monkeypatch.setattr(
        "evenslice.segmentation.result.volume_of", lambda path: opened.append(path) or whole
    )
    opened, whole = [], Volume(np.array([[[0, 0, 1, 1, 1, 1, 2, 2]]]).repeat(9, axis=0))
    return folder, opened, whole


def test_of_a_store_the_fitting_part_is_taken(store):
    folder, opened, _ = store
    labels = folder / "labels" / "segmentation"
    open_prediction(folder, "instances")
    open_prediction(str(folder), "semantic")
    (folder / "0" / "zarr.json").write_text(json.dumps({"shape": [3, 9, 1, 8]}))
    open_prediction(folder, "semantic")
    open_prediction(labels, "semantic")
    assert opened == [labels, str(folder), labels, labels]


def test_slices_that_the_model_was_trained_on_are_named(store):
    folder, _, whole = store
    found = evaluate(folder, whole, roi="2:6,:,:")
    assert found.trained_slices == ((2, 3), (5, 6))
    assert "trained on 2 of the 4 slices compared (z 2:3, 5:6)" in found.warnings[0]
    assert found.to_dict()["trained_slices"] == [[2, 3], [5, 6]]
    assert evaluate(folder / "labels" / "segmentation", whole, as_="instances").trained_slices == (
        (0, 3),
        (5, 7),
    )
    assert evaluate(folder, whole, roi="7:9,:,:").warnings == ()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"attributes": {"evenslice": {"trained_slices": []}}}', '{"attributes": 3}'],
)
def test_a_store_that_says_nothing_is_taken_as_it_is(store, text):
    (store[0] / "zarr.json").write_text(text)
    assert trained_spans(store[0]) == []
