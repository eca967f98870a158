"""Segmenting volumes: what is written, along which axis, for which networks, with which objects."""

import json
from functools import partial

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from evenslice import evaluate, load_model, open_volume, save_model, save_volume
from evenslice import segment as segment_as_ever
from evenslice.errors import BadInputError
from evenslice.model.inputs import fingerprint, model_of
from evenslice.model.spec import Model, Spec
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import estimate
from model.exports import as_onnx, as_pt2
from verbs.scenes import NORM, arrays_of, blurring, identity, run

segment = partial(segment_as_ever, precision="fp32")
EVERYTHING = (slice(None),) * 3
LABELS = "labels/segmentation/0"


def pixels(path):
    return open_volume(path).read(EVERYTHING)


def predicted(model, grey):
    """The probabilities (C, z, y, x) by numpy and torch alone, the whole volume at once."""
    depth, reach = len(grey), model.slices // 2
    index = np.abs(np.arange(-reach, depth + reach))
    padded = grey[np.where(index >= depth, 2 * (depth - 1) - index, index)]
    windows = np.stack([padded[z : z + model.slices] for z in range(depth)]).astype(np.float32)
    norm = model.normalisation
    with torch.no_grad():
        logits = model.module(
            torch.from_numpy((windows - np.float32(norm.mean[0])) / np.float32(norm.std[0]))
        )
        found = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
    return found.numpy().swapaxes(0, 1)


def by_first_voxel(labels):
    """Number labels anew, in the order in which they appear."""
    first = {0: 0}
    return np.array([first.setdefault(v, len(first)) for v in labels.ravel().tolist()]).reshape(
        labels.shape
    )


def components_of(classes):
    """Connected components of each class, numbered by their first voxel."""
    found = np.zeros(classes.shape, np.int64)
    for value in range(1, int(classes.max()) + 1):
        labels, _ = ndimage.label(classes == value)
        found[labels > 0] = labels[labels > 0] + found.max()
    return by_first_voxel(found)


def test_a_store_holds_probabilities_and_labels(tmp_path, grey):
    from yaozarrs import validate_zarr_store

    model = blurring()
    result = segment(
        model, Volume(grey, (50.0, 4.0, 4.0)), tmp_path / "s.zarr", threshold=0.4, tile=40
    )
    assert (result.path, result.complete, result.objects, result.blank) == (
        tmp_path / "s.zarr",
        True,
        None,
        {},
    )
    assert [f.name for f in tmp_path.iterdir()] == ["s.zarr"]
    validate_zarr_store(str(result.path))
    found = arrays_of(result)
    assert set(found) == {"0", LABELS}
    assert (found["0"].dtype, found["0"].shape) == (np.float32, (1, *grey.shape))
    np.testing.assert_allclose(found["0"], predicted(model, grey), atol=1e-6)
    assert found[LABELS].dtype == np.uint8
    np.testing.assert_array_equal(found[LABELS], found["0"][0] > 0.4)
    assert 0.05 < found[LABELS].mean() < 0.95
    assert (
        open_volume(result).voxel_nm
        == open_volume(tmp_path / "s.zarr" / "labels" / "segmentation").voxel_nm
    )
    assert open_volume(result).voxel_nm == (50.0, 4.0, 4.0)
    segment(model, Volume(grey, (50.0, 4.0, 4.0)), tmp_path / "s.tif", threshold=0.4)
    np.testing.assert_array_equal(pixels(tmp_path / "s.tif"), found[LABELS])


def test_a_large_store_has_a_pyramid(tmp_path):
    from yaozarrs import validate_zarr_store

    grey = np.random.default_rng(0).integers(0, 255, (3, 300, 520), dtype=np.uint8)
    segment(blurring(reach=0), Volume(grey, (4.0, 4.0, 4.0)), tmp_path / "s.zarr")
    validate_zarr_store(str(tmp_path / "s.zarr"))
    found = arrays_of(tmp_path / "s.zarr")
    assert found["1"].shape == (1, 2, 150, 260)
    assert found["labels/segmentation/2"].shape == (1, 75, 130)
    np.testing.assert_allclose(found["1"][0, 0, 0, 0], found["0"][0, :2, :2, :2].mean(), atol=1e-6)
    np.testing.assert_array_equal(found["labels/segmentation/1"], found[LABELS][::2, ::2, ::2])


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize(("axis", "turn"), [("y", (1, 0, 2)), ("x", (2, 1, 0))])
@pytest.mark.parametrize("ending", ["zarr", "tif"])
def test_along_another_axis_it_is_the_turned_volume(tmp_path, grey, axis, turn, ending, classes):
    model, grey = blurring(classes=classes), grey[:, :33, :47]
    for roi, box in (
        (None, EVERYTHING),
        ("2:8,3:30,0:40", (slice(2, 8), slice(3, 30), slice(0, 40))),
    ):
        out = segment(
            model, grey, tmp_path / f"a.{ending}", axis=axis, tile=32, roi=roi, force=True
        )
        expected = predicted(model, grey.transpose(turn)).transpose(0, *(1 + n for n in turn))[
            (slice(None), *box)
        ]
        classes_there = expected[0] > 0.5 if classes == 1 else expected.argmax(0)
        if ending == "zarr":
            np.testing.assert_allclose(arrays_of(out)["0"], expected, atol=1e-6)
            np.testing.assert_array_equal(arrays_of(out)[LABELS], classes_there)
        else:
            np.testing.assert_array_equal(pixels(out), classes_there)


sizes = st.tuples(st.integers(2, 6), st.integers(30, 50), st.integers(30, 50))


@settings(derandomize=True, deadline=None, max_examples=8)
@given(sizes, st.sampled_from([1, 3]), st.sampled_from([None, 32, 37]), st.booleans())
def test_any_size_any_tile_is_the_network_on_the_whole(
    tmp_path_factory, shape, slices, tile, per_class
):
    out = tmp_path_factory.mktemp("any") / "s.zarr"
    grey = np.random.default_rng(sum(shape)).integers(1, 255, shape, dtype=np.uint8)
    model = blurring(slices=slices, classes=2 if per_class else 1)
    segment(model, grey, out, tile=tile)
    np.testing.assert_allclose(arrays_of(out)["0"], predicted(model, grey), atol=1e-6)


@pytest.mark.parametrize(("slices", "depth"), [(1, 1), (1, 4), (5, 3), (5, 9)])
def test_one_slice_and_many(tmp_path, grey, slices, depth):
    model = blurring(slices=slices)
    out = segment(model, grey[:depth, :33, :47], tmp_path / "s.zarr")
    np.testing.assert_allclose(
        arrays_of(out)["0"], predicted(model, grey[:depth, :33, :47]), atol=1e-6
    )


def test_too_few_slices_are_refused_and_leave_nothing(tmp_path, grey):
    with pytest.raises(BadInputError, match="has 2 slices, expected at least 3 for windows of 5"):
        segment(blurring(slices=5), grey[:2], tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_box_is_that_part_of_the_whole(tmp_path, grey):
    model = blurring(reach=2)
    whole = predicted(model, grey)
    result = segment(
        model, grey, tmp_path / "s.zarr", roi="2:7,5:60,17:96", tile=40, instances="components"
    )
    found = arrays_of(result)
    np.testing.assert_allclose(found["0"], whole[:, 2:7, 5:60, 17:96], atol=1e-6)
    np.testing.assert_array_equal(found[LABELS], components_of(found["0"][0] > 0.5))


def test_the_volumes_own_statistics(tmp_path, grey):
    other = np.uint8(grey // 2 + 30)
    model = blurring()
    result = segment(model, other, tmp_path / "s.zarr", normalisation="volume")
    own = model.with_facts(normalisation=estimate(Volume(other)))
    np.testing.assert_allclose(arrays_of(result)["0"], predicted(own, other), atol=1e-6)
    assert result.plan.normalisation.source == "volume"
    segment(model, other, tmp_path / "m.zarr")
    assert np.abs(arrays_of(tmp_path / "m.zarr")["0"] - arrays_of(result)["0"]).max() > 0.05


def test_a_voxel_size_given_is_written(tmp_path, grey):
    for name in ("s.zarr", "s.tif"):
        segment(blurring(), Volume(grey, (1.0, 2.0, 3.0)), tmp_path / name, voxel_nm=[30, 8, 4])
        assert open_volume(tmp_path / name).voxel_nm == (30.0, 8.0, 4.0)
    with pytest.raises(BadInputError, match="the voxel size is 30, 8, expected three"):
        segment(blurring(), grey, tmp_path / "t.zarr", voxel_nm=[30, 8])


def test_another_voxel_size_than_in_training_is_said(tmp_path, grey):
    model = blurring(training={"voxel_nm": [50.0, 4.0, 4.0]})

    def warnings(voxel, **options):
        return segment(
            model, Volume(grey, voxel), tmp_path / "s.tif", force=True, **options
        ).warnings

    assert warnings((50.0, 4.0, 4.05)) == ()
    assert warnings(None) == ()
    (said,) = warnings((50.0, 4.0, 8.0))
    assert "50 x 4 x 8 nm (z, y, x as sliced), the model was trained on 50 x 4 x 4 nm" in said
    assert warnings((4.0, 50.0, 4.0), axis="y") == ()


def test_blank_sections_are_replaced_and_listed(tmp_path, grey):
    grey[4] = 0
    model = blurring()
    result = segment(model, grey, tmp_path / "s.zarr")
    found = arrays_of(result)["0"]
    assert result.blank == {"4": [3, 5]}
    assert result.to_dict()["blank"] == result.blank
    there = grey.copy()
    there[4] = grey[5]  # what stands in for it behind 3
    np.testing.assert_allclose(found[:, 3], predicted(model, there)[:, 3], atol=1e-6)
    there[4] = grey[3]
    np.testing.assert_allclose(found[:, 5], predicted(model, there)[:, 5], atol=1e-6)
    np.testing.assert_allclose(
        found[:, [0, 1, 2, 4, 6, 7, 8]], predicted(model, grey)[:, [0, 1, 2, 4, 6, 7, 8]], atol=1e-6
    )


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("tile", [None, 48])
@pytest.mark.parametrize("ending", ["zarr", "tif"])
def test_components_are_those_of_the_whole_volume(tmp_path, grey, classes, tile, ending):
    model = blurring(classes=classes)
    probability = predicted(model, grey)
    expected = components_of(probability[0] > 0.55 if classes == 1 else probability.argmax(0))
    out = tmp_path / f"s.{ending}"
    result = segment(model, grey, out, tile=tile, threshold=0.55, instances="components")
    np.testing.assert_array_equal(
        arrays_of(out)[LABELS] if ending == "zarr" else pixels(out), expected
    )
    assert result.objects == expected.max() > 20
    if ending == "zarr":
        np.testing.assert_allclose(
            arrays_of(out)["0"].sum(0), 1 if classes > 1 else probability[0], atol=1e-5
        )


def test_small_objects_are_dropped(tmp_path, grey):
    model = blurring()
    expected = components_of(predicted(model, grey)[0] > 0.5)
    large = np.bincount(expected.ravel()) >= 20
    large[0] = False
    expected = by_first_voxel(np.where(large[expected], expected, 0))
    result = segment(model, grey, tmp_path / "s.zarr", instances="components", min_size=20)
    np.testing.assert_array_equal(arrays_of(result)[LABELS], expected)
    assert result.objects == large.sum()


def cells():
    """Boundaries (z, y, x) around boxes of a known number, dark on light."""
    grey = np.full((6, 120, 120), 40, np.uint8)
    grey[:, ::40], grey[:, :, ::40] = 240, 240
    return np.uint8(ndimage.uniform_filter(grey, (0, 3, 3)) // 1)


def test_a_watershed_finds_the_cells(tmp_path):
    grey = Volume(cells(), (30.0, 8.0, 8.0))
    options = {"instances": "watershed", "threshold": 0.4}
    result = segment(identity(), grey, tmp_path / "a.zarr", **options)
    labels = arrays_of(result)[LABELS]
    assert result.objects == 9
    centres = labels[:, 20::40, 20::40]
    assert sorted(np.unique(centres)) == list(range(1, 10))
    assert (centres == centres[:1]).all()
    segment(identity(), grey, tmp_path / "b.zarr", **options)
    np.testing.assert_array_equal(arrays_of(tmp_path / "b.zarr")[LABELS], labels)


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_exported_network_of_one_size_takes_any_volume(tmp_path, grey, ending):
    module = blurring(reach=2).module
    export = {"pt2": as_pt2, "onnx": as_onnx}[ending]
    path = export(module, tmp_path / f"m.{ending}", dynamic=False)
    given = {"mean": [128.0], "std": [40.0]}
    model = Model(module, Spec(), NORM, stride=1)
    for name, part in (("large", grey), ("odd", grey[:, :33, :47]), ("small", grey[:, :20, :30])):
        read = model_of(path, trust=True)
        out = segment(read, part, tmp_path / f"{name}.zarr", **given)
        expected, found = predicted(model, part), arrays_of(out)["0"]
        if (
            name == "large"
        ):  # tiles of 32 x 48 are blended, so that only places in the middle of one are exact
            assert np.median(np.abs(found - expected)) < 1e-5
            assert np.abs(found - expected).max() < 0.5
        else:
            margin = 0 if name == "odd" else 2
            inner = (
                slice(None),
                slice(None),
                slice(0, 20 - margin or None),
                slice(0, 30 - margin or None),
            )
            np.testing.assert_allclose(
                found[inner], expected[inner], atol=1e-5 if name == "small" else 0.5
            )
    with pytest.raises(
        BadInputError, match="--tile is 64, expected 32 x 48 as the exported network takes"
    ):
        segment(path, grey, tmp_path / "t.zarr", tile=64, trust=True, **given)


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
    objects = evaluate(result.path, found[LABELS], as_="instances")
    assert (objects.partition.adapted_rand_error, objects.partition.voi) == (0, 0)
    for scores in (semantic, objects):
        (said,) = [note for note in scores.warnings if "was trained on" in note]
        assert "6 of the 9 slices looked at (z 0:5, 7:8)" in said
    other = segment(model, grey, tmp_path / "box.zarr", roi="3:8,:,:")
    assert other.trained_slices == [[0, 2], [4, 5]]
    assert segment(model, grey[::-1], tmp_path / "back.zarr").trained_slices == []
    assert not evaluate(tmp_path / "back.zarr", labels[::-1]).warnings


def test_the_command_line_tells_what_was_done(tmp_path, monkeypatch, grey, make_model, capfd):
    monkeypatch.chdir(tmp_path)
    grey[4] = 7
    save_volume("raw.tif", grey, (50.0, 4.0, 4.0))
    save_model("m.safetensors", make_model())
    words = [
        "segment",
        "m.safetensors",
        "raw.tif",
        "s.zarr",
        "--instances",
        "components",
        "--json",
        "-",
    ]
    assert (
        run(*words, "--tile", 48, "--precision", "fp32", "--voxel-size", "40,4,4", "--min-size", 3)
        == 0
    )
    out, err = capfd.readouterr()
    told = json.loads(out)
    assert err == ""
    assert told["schema"] == "evenslice.segment/1"
    assert (told["complete"], told["path"], list(told["blank"])) == (True, "s.zarr", ["4"])
    assert told["objects"] == arrays_of("s.zarr")[LABELS].max()
    assert told["plan"]["settings"]["precision"] == "fp32"
    assert told["plan"]["cut"]["overlap"] == 12  # the halo of 24 leaves nothing of 48 pixels
    assert told["plan"]["tiles_differ"][0] > 0
    assert open_volume("s.zarr").voxel_nm == (40.0, 4.0, 4.0)
    noted = zarr.open_group("s.zarr", mode="r").attrs["evenslice"]
    assert (noted["meaning"], noted["asked"]["min_size"]) == ("probabilities", 3)
    assert run("segment", "m.safetensors", "raw.tif", "s.zarr") == 2
    assert "exists, expected a new name" in capfd.readouterr().err
    assert load_model("m.safetensors").slices == 3


def test_a_chunk_that_cannot_be_read_is_said(tmp_path, grey):
    save_volume(tmp_path / "raw.zarr", grey)
    chunks = [file for file in (tmp_path / "raw.zarr" / "0" / "c").rglob("*") if file.is_file()]
    chunks[-1].write_bytes(b"\x00broken")
    with pytest.raises(BadInputError, match="cannot be decoded at"):
        segment(blurring(), tmp_path / "raw.zarr", tmp_path / "s.zarr")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["raw.zarr"]
