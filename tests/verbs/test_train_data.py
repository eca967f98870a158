"""Training data: several volumes, rare classes, instances; how they are split and recorded."""

import re

import numpy as np
import pytest

from evenslice import load_model, save_volume, train
from evenslice.errors import BadInputError
from evenslice.evidence.label_asymmetry import label_asymmetry
from evenslice.labels.targets import Target
from evenslice.model.opening import trained_slices
from evenslice.options import TrainOptions
from evenslice.verbs.train_data import plan_data, training_record
from evenslice.volume.array import Volume
from evenslice.volume.inputs import fingerprint

QUICK = {"weights": "none", "encoder": "test_resnet.r160_in1k", "encoder_depth": 2}
QUICK |= {"steps": 2, "batch": 2, "crop": 32}


@pytest.fixture
def labels(grey):
    return (grey > 128).astype(np.uint8)


@pytest.fixture
def other(grey):
    """A second volume, of another size and brightness."""
    return (grey[1:8, :40, ::-1] // 2).astype(np.uint8)


def volumes(*arrays):
    return [Volume(array, source=f"{n}.tif") for n, array in enumerate(arrays)]


def test_several_volumes_are_trained_on_and_each_is_known_again(tmp_path, grey, labels, other):
    save_volume(tmp_path / "a.tif", grey, (50.0, 4.0, 4.0))
    save_volume(tmp_path / "b.tif", other)
    marks = (other > 64).astype(np.uint8)
    given = [tmp_path / "a.tif", tmp_path / "b.tif"], [labels, marks]
    found = train(*given, tmp_path / "m.safetensors", TrainOptions(**QUICK, balance=0.5))
    model = load_model(found.path)
    first, second = model.training["volumes"]
    assert {key: model.training[key] for key in first} == first
    assert (first["volume"], second["volume"]) == ("a.tif", "b.tif")
    assert (first["voxel_nm"], second["voxel_nm"]) == ([50.0, 4.0, 4.0], None)
    assert (first["slices"], first["validation"]) == ([[0, 5]], [[7, 9]])
    assert (second["slices"], second["validation"]) == ([[0, 4]], [[6, 7]])
    assert trained_slices(model, Volume(grey)) == set(range(5))
    assert trained_slices(model, Volume(other)) == set(range(4))
    assert trained_slices(model, Volume(grey[::-1].copy())) == set()
    pixels = np.concatenate([grey[:4].ravel(), other[:3].ravel()]).astype(float)
    assert model.normalisation.mean == pytest.approx((pixels.mean(),), rel=1e-12)
    assert model.normalisation.std == pytest.approx((pixels.std(),), rel=1e-12)
    assert found.scores.voxels == labels[7:].size + marks[6:].size


def test_one_volume_is_recorded_alone(grey, labels):
    options = TrainOptions(**QUICK)
    record = training_record(plan_data(volumes(grey), volumes(labels), options), options)
    assert "volumes" not in record
    assert record["fingerprint"] == fingerprint(Volume(grey))
    seen = grey[:4].astype(float)
    assert record["intensities"]["mean"] == pytest.approx(seen.mean(), rel=0.1)
    assert record["intensities"]["dtype"] == "uint8"
    fit = label_asymmetry(Volume(grey[:5]), Volume(labels[:5]), Target("foreground", 1))
    assert record["label_asymmetry"] == fit.to_dict()
    assert fit.sections == 1


def test_blank_sections_do_not_count_in_the_normalisation_of_a_training(grey, labels, other):
    lost = grey.copy()
    lost[2] = 0
    plan = plan_data(
        volumes(lost, other), volumes(labels, (other > 64).astype(np.uint8)), TrainOptions(**QUICK)
    )
    pixels = np.concatenate([grey[[0, 1, 3]].ravel(), other[:3].ravel()]).astype(float)
    assert plan.source.sources[0].normalisation.mean == pytest.approx((pixels.mean(),))
    assert plan.source.sources[1].normalisation.std == pytest.approx((pixels.std(),))


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (lambda v: v.astype(np.uint16) * 257, r"mean 3.*\(uint16\), 0.tif of mean 1.*\(uint8\)"),
        (lambda v: (v / 255).astype(np.float32), r"mean 0.*\(float32\), 0.tif of mean 1"),
        (lambda v: v, ""),
    ],
)
def test_volumes_of_another_range_in_one_training_are_said(grey, labels, change, facts):
    plan = plan_data(volumes(grey, change(grey)), volumes(labels, labels), TrainOptions(**QUICK))
    assert len(plan.warnings) == bool(facts)
    assert all(re.match(f"1.tif has intensities of .*{facts}", said) for said in plan.warnings)


def test_volumes_of_another_voxel_size_in_one_training_are_said(grey, labels):
    fine, coarse = (Volume(grey, (50.0, side, side), f"{side:g}.tif") for side in (4, 8))
    data = [fine, fine, coarse], volumes(labels, labels, labels)
    (said,) = plan_data(*data, TrainOptions(**QUICK)).warnings
    assert "4.tif has voxels of 50 x 4 x 4 nm, 8.tif of 50 x 8 x 8 nm" in said


@pytest.mark.parametrize(
    ("rows", "ignore", "facts"),
    [
        (slice(7, 9), None, ["training slices of 0.tif hold only the label 0"]),
        (slice(0, 4), None, ["validation slices of 0.tif hold only the label 0"]),
        (slice(0, 7), 3, ["validation slices of 0.tif hold only the label 0"]),
        (slice(0, 9), None, []),
    ],
)
def test_slices_without_foreground_are_said(grey, labels, rows, ignore, facts):
    marks = np.zeros_like(labels)
    marks[rows] = labels[rows]
    if ignore is not None:
        marks[:, :8] = ignore
    options = TrainOptions(**QUICK, ignore_label=ignore)
    found = plan_data(volumes(grey), volumes(marks), options).warnings
    assert len(found) == len(facts)
    assert all(fact in said for fact, said in zip(facts, found, strict=True))
    # another volume makes up for it
    options = TrainOptions(**QUICK, target="foreground")
    assert plan_data(volumes(grey, grey), volumes(marks, labels), options).warnings == ()


def test_voxels_that_are_no_numbers_are_refused_before_training(grey, labels):
    volume = grey.astype(np.float32)
    volume[1, :3] = np.nan
    with pytest.raises(BadInputError, match=r"0.tif has 288 voxels that are NaN"):
        plan_data(volumes(volume), volumes(labels), TrainOptions(**QUICK))


def test_the_target_is_resolved_from_all_labels_together(grey, labels, other):
    classes = np.digitize(grey, [100, 150]).astype(np.uint8)
    marks = (other > 64).astype(np.uint8)
    for first, kind, count in [(classes, "classes", 3), (labels, "foreground", 1)]:
        plan = plan_data(volumes(grey, other), volumes(first, marks), TrainOptions(**QUICK))
        assert {source.target.kind for source in plan.source.sources} == {kind}
        assert plan.target.classes == count


@pytest.mark.parametrize(
    ("validation", "expected"),
    [(None, [[7, 8], [6]]), ("0:2", [[0, 1], [0, 1]]), (["0:1", "5:7"], [[0], [5, 6]])],
)
def test_each_volume_is_split_for_itself(grey, labels, other, validation, expected):
    options = TrainOptions(**QUICK, validation=validation)
    plan = plan_data(volumes(grey, other), volumes(labels, (other > 64).astype(np.uint8)), options)
    assert [list(zs) for zs in plan.validation] == expected
    for source, zs in zip(plan.source.sources, plan.validation, strict=True):
        assert min(abs(a - b) for a in source.centres for b in zs) == 4


def test_patches_fit_the_smallest_volume(grey, labels, other):
    plan = plan_data(
        volumes(grey, other),
        volumes(labels, (other > 64).astype(np.uint8)),
        TrainOptions(**QUICK | {"crop": 60}),
    )
    assert {source.crop for source in plan.source.sources} == {(40, 60)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation": ["0:2"]}, "--validation names slices of 1 volumes, expected 2"),
        ({"validation": "4:8"}, "--validation is '4:8', expected a part of 0:7"),
        ({"loss": "bce"}, "--loss is 'bce' for 3 classes"),
        ({"class_weights": [1.0, 1.0]}, "--class-weights holds 2 numbers, expected 3"),
        (
            {"target": "boundary", "ignore_label": 0, "balance": 1.0, "validation": "0:1"},
            "hold no foreground",
        ),
    ],
)
def test_options_that_do_not_fit_the_volumes_are_refused(grey, other, change, message):
    marks = np.digitize(grey, [100, 150]).astype(np.uint8), np.zeros_like(other)
    if "target" in change:
        marks = tuple(
            np.repeat(np.arange(len(m), dtype=np.uint8), m[0].size).reshape(m.shape) for m in marks
        )
    with pytest.raises(BadInputError, match=message):
        plan_data(volumes(grey, other), volumes(*marks), TrainOptions(**QUICK | change))


def test_each_volume_needs_labels_of_its_shape(grey, labels):
    with pytest.raises(BadInputError, match=r"has shape \(9, 64, 96\), expected \(5, 64, 96\)"):
        plan_data(volumes(grey, grey[:5]), volumes(labels, labels), TrainOptions(**QUICK))


@pytest.mark.parametrize("dtype", ["uint64", pytest.param("int32", marks=pytest.mark.slow)])
def test_boundaries_are_learnt_of_instances_with_large_numbers(tmp_path, grey, dtype):
    blocks = np.arange(9 * 8 * 12).reshape(9, 8, 12) * 1000 + 70_000
    instances = np.repeat(np.repeat(blocks, 8, 1), 8, 2).astype(dtype)
    instances[:, 20:22] = 0
    found = train(
        grey,
        instances,
        tmp_path / "m.safetensors",
        TrainOptions(**QUICK, target="boundary", ignore_label=71_000),
    )
    assert found.model.training["target"] == "boundary"
    assert found.model.spec.classes == 1
    assert found.scores.per_class[1]["voxels"] == 2 * np.count_nonzero(edge_of_blocks())


def edge_of_blocks():
    """The boundary of one slice by hand: both sides of every grid step, and the rows of label 0."""
    y, x = np.mgrid[:64, :96]
    rows = (y % 8 == 7) & (y < 63) | (y % 8 == 0) & (y > 0)
    columns = (x % 8 == 7) & (x < 95) | (x % 8 == 0) & (x > 0)
    zero = (y == 20) | (y == 21)
    return rows | columns | zero
