"""Segmenting volumes: what is written, along which axis, with which objects, what is refused."""

import json
import re
from dataclasses import replace
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
from evenslice.model.spec import Model, Spec
from evenslice.segmentation.blocks import Work
from evenslice.verbs.inspect import inspect
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
    found = (result.path, result.complete, result.objects, result.blank)
    assert found == (tmp_path / "s.zarr", True, None, {})
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


@pytest.mark.parametrize(
    ("axis", "turn", "ending", "classes"),
    [("y", (1, 0, 2), "zarr", 3), ("x", (2, 1, 0), "zarr", 1), ("x", (2, 1, 0), "tif", 3)],
)
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


@pytest.mark.parametrize("classes", [1, 3])
def test_along_all_axes_it_is_the_mean_of_the_three_whoever_does_it(
    tmp_path, grey, classes, monkeypatch
):
    monkeypatch.setattr("evenslice.segmentation.blocks.AVERAGED", (4, 16, 16))
    model, volume = blurring(classes=classes), Volume(grey[:, :33, :47], (4.0, 5.0, 4.0))
    options = {"tile": 32, "roi": "1:9,3:33,0:40", "instances": "components"}
    alone = [
        arrays_of(segment(model, volume, tmp_path / f"{axis}.zarr", axis=axis, **options))["0"]
        for axis in "zyx"
    ]
    segment(model, volume, tmp_path / "a.zarr", axis="all", shard=(2, 2), **options)
    real, times = Work.average, iter(range(3))

    def stopped(self, index):
        real(self, index)
        if next(times) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Work, "average", stopped)
    with pytest.raises(KeyboardInterrupt):
        segment(model, volume, tmp_path / "a.zarr", axis="all", shard=(1, 2), **options)
    monkeypatch.setattr(Work, "average", real)
    out = segment(model, volume, tmp_path / "a.zarr", axis="all", resume=True, **options)
    mean = sum(alone) / np.float32(3)
    assert np.ptp(alone, 0).max() > 0.1
    np.testing.assert_array_equal(arrays_of(out)["0"], mean)
    found = mean[0] > 0.5 if classes == 1 else mean.argmax(0)
    np.testing.assert_array_equal(arrays_of(out)[LABELS], components_of(found))
    with pytest.raises(BadInputError, match="50 x 4 x 4 nm, expected sides that differ by a fac"):
        segment(model, replace(volume, voxel_nm=(50, 4, 4)), tmp_path / "b.zarr", axis="all")


sizes = st.tuples(st.integers(2, 6), st.integers(30, 50), st.integers(30, 50))


@settings(derandomize=True, deadline=None, max_examples=6)
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


@pytest.mark.parametrize("options", [{"instances": "components"}, {"axis": "y"}])
@pytest.mark.parametrize("ending", ["zarr", "tif"])
def test_a_box_lies_where_it_was_taken(tmp_path, grey, ending, options):
    raw = Volume(grey, (50.0, 4.0, 4.0), origin=(10.0, 0.0, 0.5))
    result = segment(blurring(), raw, tmp_path / f"s.{ending}", roi="2:7,5:60,17:96", **options)
    places = ["", "labels/segmentation"] if ending == "zarr" else [""]
    for place in places:
        assert open_volume(result.path / place if place else result).origin == (12.0, 5.0, 17.5)


@pytest.mark.parametrize("instances", ["none", "components"])
def test_a_scale_without_unit_is_kept(tmp_path, grey, instances):
    raw = Volume(np.tile(grey, (1, 5, 1)), origin=(1.0, 0.0, 0.0), sides=(40.0, 4.0, 5.0))
    path = segment(blurring(), raw, tmp_path / "s.zarr", instances=instances).path
    for place in ("0", "labels/segmentation/0"):
        written = open_volume(path / place)
        assert (written.voxel_nm, written.sides) == (None, (40.0, 4.0, 5.0))
        assert written.origin == (1.0, 0.0, 0.0)
    assert open_volume(path / "1").sides == (40.0, 8.0, 10.0)


@pytest.mark.parametrize("as_", ["semantic", "instances"])
@pytest.mark.parametrize("ending", ["zarr", "tif"])
def test_a_box_is_compared_where_it_lies(tmp_path, grey, ending, as_):
    truth = (predicted(blurring(), grey)[0] > 0.5).astype(np.uint8)
    box = segment(blurring(), grey, tmp_path / f"s.{ending}", roi="2:7,5:60,17:96").path
    found = evaluate(box, truth, as_=as_)
    assert found.dice == 1.0
    assert any("is the box 2:7,5:60,17:96 of array" in one for one in found.warnings)
    with pytest.raises(BadInputError, match=r"expected .* like array"):
        evaluate(box, truth[:6])  # the box is not inside
    with pytest.raises(BadInputError, match=r"expected .* like array"):
        evaluate(truth[:6], truth)  # says nothing of a place


def test_what_is_written_as_labels_is_labels(tmp_path, grey):
    for name, options in (("a.tif", {}), ("b.tif", {"instances": "components"})):
        result = segment(blurring(), grey, tmp_path / name, **options)
        assert open_volume(result).meaning == "labels"
    segment(blurring(), grey, tmp_path / "p.tif", output="probabilities")
    assert open_volume(tmp_path / "p.tif").meaning == "probabilities"


def test_the_volumes_own_statistics(tmp_path, grey):
    other = np.uint8(grey // 2 + 30)
    model = blurring()
    result = segment(model, other, tmp_path / "s.zarr", normalisation="volume")
    own = replace(model, normalisation=estimate(Volume(other)))
    np.testing.assert_allclose(arrays_of(result)["0"], predicted(own, other), atol=1e-6)
    assert result.plan.normalisation.source == "volume"
    segment(model, other, tmp_path / "m.zarr")
    assert np.abs(arrays_of(tmp_path / "m.zarr")["0"] - arrays_of(result)["0"]).max() > 0.05


def test_a_voxel_size_given_is_written(tmp_path, grey):
    for name in ("s.zarr", "s.tif"):
        segment(blurring(), Volume(grey, (1.0, 2.0, 3.0)), tmp_path / name, voxel_nm=[30, 8, 4])
        assert open_volume(tmp_path / name).voxel_nm == (30.0, 8.0, 4.0)


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


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (lambda v: v.astype(np.uint16) * 257, r"mean 3\d+, std .* \(uint16\), the model"),
        (lambda v: (v / 255).astype(np.float32), r"mean 0.\d+, std 0.\d+ \(float32\), the model"),
        (lambda v: (v.astype(int) - 128).astype(np.int8), r"mean -?\d+.*\(int8\), the model"),
        (np.zeros_like, r"is constant \(every voxel read is 0\)"),
        (lambda v: v, ""),
    ],
)
def test_intensities_of_another_range_than_in_training_are_said(tmp_path, grey, change, facts):
    known = {"dtype": "uint8", "mean": 128.0, "std": 40.0, "skew": 0.0}
    model, volume = blurring(training={"intensities": known}), change(grey)
    found = segment(model, volume, tmp_path / "s.tif").warnings
    assert len(found) == bool(facts) and all(re.search(facts, said) for said in found)
    if "uint16" in facts:
        assert "the model was trained on mean 128, std 40 (uint8)" in found[0]
        assert "--normalisation volume" in found[0]
        own = segment(model, volume, tmp_path / "n.tif", normalisation="volume")
        assert own.warnings == ()


def test_numbers_given_that_do_not_fit_the_volume_are_said(tmp_path, grey):
    model = blurring()
    (said,) = segment(model, grey, tmp_path / "s.tif", mean=0.5, std=0.2).warnings
    assert "the model is normalised by mean 0.5, std 0.2" in said


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


@pytest.mark.parametrize(
    ("classes", "tile", "ending"),
    [(1, 48, "zarr"), (3, 48, "zarr"), (3, None, "tif"), (1, None, "tif")],
)
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
    given = {"mean": [128.0], "std": [40.0], "trust": True}
    model = Model(module, Spec(), NORM, stride=1)
    large = arrays_of(segment(path, grey, tmp_path / "large.zarr", **given))["0"]
    apart = np.abs(large - predicted(model, grey))
    assert np.median(apart) < 1e-5 and apart.max() < 0.5  # blended tiles: exact in the middle
    part = grey[:, :20, :30]
    small = arrays_of(segment(path, part, tmp_path / "small.zarr", **given))["0"]
    expected = predicted(model, part)  # padded at the far edges
    np.testing.assert_allclose(small[..., :18, :28], expected[..., :18, :28], atol=1e-5)
    with pytest.raises(BadInputError, match="--tile is 64, expected 32 x 48"):
        segment(path, grey, tmp_path / "t.zarr", tile=64, **given)


def test_the_command_line_says_what_was_done(tmp_path, monkeypatch, grey, make_model, capfd):
    monkeypatch.chdir(tmp_path)
    grey[4] = 7
    save_volume("raw.tif", grey, (50.0, 4.0, 4.0))
    save_model("m.safetensors", make_model())
    words = "segment m.safetensors raw.tif s.zarr --instances components --json - --tile 48"
    more = "--precision fp32 --voxel-size 40,4,4 --min-size 3"
    assert run(*words.split(), *more.split()) == 0
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert err.startswith("Wrote s.zarr, s.report.html\nNext: evenslice evaluate s.zarr ")
    assert found["schema"] == "evenslice.segment/1"
    assert (found["complete"], found["path"], list(found["blank"])) == (True, "s.zarr", ["4"])
    assert found["objects"] == arrays_of("s.zarr")[LABELS].max()
    assert found["plan"]["settings"]["precision"] == "fp32"
    assert found["plan"]["cut"]["overlap"] == 12  # the halo of 24 leaves nothing of 48 pixels
    assert found["plan"]["tiles_differ"][0] > 0
    assert open_volume("s.zarr").voxel_nm == (40.0, 4.0, 4.0)
    attributes = zarr.open_group("s.zarr", mode="r").attrs["evenslice"]
    assert (attributes["meaning"], attributes["request"]["min_size"]) == ("probabilities", 3)
    assert run("segment", "m.safetensors", "raw.tif", "s.zarr") == 2
    assert "exists, expected a new name" in capfd.readouterr().err
    assert load_model("m.safetensors").slices == 3


@pytest.mark.parametrize("classes", [1, 3])
def test_labels_are_written_with_their_voxel_size(tmp_path, grey, make_model, classes):
    volume = Volume(grey[:3], (50.0, 4.0, 4.0))
    found = open_volume(segment(make_model(classes=classes), volume, tmp_path / "s.tif"))
    assert (found.shape, found.dtype, found.voxel_nm) == ((3, 64, 96), np.uint8, volume.voxel_nm)
    assert set(np.unique(found.read(EVERYTHING))) <= set(range(max(2, classes)))


def test_probabilities_are_known_as_such_again(tmp_path, grey):
    segment(blurring(), grey, tmp_path / "p.tif", output="probabilities")
    segment(blurring(), grey, tmp_path / "l.tif")
    probability = open_volume(tmp_path / "p.tif")
    assert probability.meaning == "probabilities"
    assert ((pixels(tmp_path / "p.tif") > 127) == pixels(tmp_path / "l.tif")).mean() > 0.99
    assert evaluate(probability, tmp_path / "l.tif").dice > 0.99
    with pytest.raises(BadInputError, match="holds probabilities, expected labels"):
        evaluate(probability, probability)


def test_the_mean_over_the_reversal_does_not_know_the_direction(tmp_path, grey):
    options = {"output": "probabilities", "tta": "reversal"}
    there = pixels(segment(blurring(), grey, tmp_path / "there.tif", **options)).astype(int)
    back = pixels(segment(blurring(), grey[::-1], tmp_path / "back.tif", **options)).astype(int)
    assert np.abs(there - back[::-1]).max() <= 1
    one = pixels(segment(blurring(), grey, tmp_path / "one.tif", output="probabilities"))
    assert np.abs(one - there).max() > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "magic"}, "--output is 'magic'"),
        ({"threshold": 2.0}, "--threshold is 2.0"),
        ({"tta": "all"}, "--tta is 'all', expected 'none' or 'reversal'"),
        ({"roi": "0:99,:,:"}, "expected a part of 0:9"),
        ({"roi": "abc"}, "expected Z0:Z1,Y0:Y1,X0:X1"),
        ({"tile": 1}, "--tile is 1, expected 32 or more"),
        ({"min_size": 2}, "--min-size was given without objects"),
        ({"output": "probabilities", "instances": "components"}, "asked for in one TIFF"),
        ({"voxel_nm": (0, 0, 0)}, "three numbers of nm"),
        ({"voxel_nm": [30, 8]}, "three numbers of nm"),
        ({"voxel_nm": (np.nan, 4, 4)}, "three numbers of nm"),
    ],
)
def test_bad_options_leave_nothing(tmp_path, grey, options, message):
    with pytest.raises(BadInputError, match=message):
        segment(blurring(), grey, tmp_path / "s.tif", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "probabilities"}, "3 classes, expected one for probabilities"),
        ({"instances": "watershed"}, "3 classes, expected one, the boundary"),
    ],
)
def test_classes_that_do_not_fit_are_refused(tmp_path, grey, options, message):
    with pytest.raises(BadInputError, match=message):
        segment(blurring(classes=3), grey, tmp_path / "s.tif", **options)


def test_any_error_leaves_nothing(tmp_path, grey, monkeypatch):
    monkeypatch.setattr(Work, "_write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        segment(blurring(), grey, tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_kept(tmp_path, grey):
    (tmp_path / "s.tif").write_text("mine")
    with pytest.raises(BadInputError, match="exists, expected a new name"):
        segment(blurring(), grey, tmp_path / "s.tif")
    assert (tmp_path / "s.tif").read_text() == "mine"
    segment(blurring(), grey, tmp_path / "s.tif", force=True)
    assert pixels(tmp_path / "s.tif").shape == grey.shape


@pytest.mark.parametrize("name", ["v.tif", "v.zarr", "v.zarr/in.zarr"])
def test_what_is_read_is_not_written_over(tmp_path, grey, name):
    for ending in ("tif", "zarr"):
        save_volume(tmp_path / f"v.{ending}", grey)
    source = tmp_path / name.split("/")[0]
    with pytest.raises(BadInputError, match="is read by this command"):
        segment(blurring(), source, tmp_path / name, force=True)
    np.testing.assert_array_equal(pixels(source), grey)
    with pytest.raises(BadInputError, match="is read by this command"):
        segment(blurring(), tmp_path / "v.zarr" / "0", tmp_path / "v.zarr", force=True)


def test_an_ending_counts_in_any_case(tmp_path, grey):
    segment(blurring(), grey, tmp_path / "s.ZARR")
    assert (tmp_path / "s.ZARR" / "zarr.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_box_of_a_huge_volume_costs_what_a_box_costs(tmp_path):
    huge, box = tmp_path / "huge.zarr", "5:7,0:64,0:64"
    zarr.create_array(str(huge), shape=(10**6,) * 3, chunks=(1, 64, 64), dtype="uint8")
    assert inspect(huge).to_dict()["size_bytes"] == 10**18
    done = segment(blurring(), huge, tmp_path / "o.zarr", roi=box)
    assert open_volume(done).shape == (2, 64, 64)
    assert sorted(done.blank) == ["4", "5", "6", "7"]
    assert evaluate(huge, huge, roi=box).voxels == 2 * 64 * 64


@pytest.mark.slow
def test_the_smallest_exact_tile_is_named_and_exact(tmp_path, grey, make_model):
    wide = np.tile(grey, (1, 3, 2))
    small = segment(make_model(), wide, tmp_path / "s.zarr", tile=33).plan
    assert small.exact_from > 33 and small.cut.overlap > 0
    exact = segment(make_model(), wide, tmp_path / "e.zarr", tile=small.exact_from).plan
    assert exact.exact_from is None and exact.cut.overlap == 0


def test_a_chunk_that_cannot_be_read_is_said(tmp_path, grey):
    save_volume(tmp_path / "raw.zarr", grey)
    chunks = [file for file in (tmp_path / "raw.zarr" / "0" / "c").rglob("*") if file.is_file()]
    chunks[-1].write_bytes(b"\x00broken")
    with pytest.raises(BadInputError, match="cannot be decoded at"):
        segment(blurring(), tmp_path / "raw.zarr", tmp_path / "s.zarr")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["raw.zarr"]
