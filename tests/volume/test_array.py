"""Volumes, boxes of them, and slicing along another axis: the same voxels however asked."""

import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counting import Counting
from evenslice.errors import BadInputError
from evenslice.volume import array as module
from evenslice.volume.array import Volume, as_volume, crop, read_planes, reorder_axes, swap_axis
from volume.voxels import ALL

bounds = st.one_of(st.none(), st.integers(-9, 12))
spans = st.builds(slice, bounds, bounds)
boxes = st.tuples(spans, spans, spans)
CUBE = np.arange(6 * 7 * 5, dtype=np.uint16).reshape(6, 7, 5)
SIZE = (50.0, 8.0, 4.0)
TURNS = {"z": (0, 1, 2), "y": (1, 0, 2), "x": (2, 1, 0)}


def known():
    return Volume(CUBE, SIZE, "made.tif", "probabilities", {"format": "TIFF"})


@settings(derandomize=True, deadline=None, max_examples=25)
@given(boxes, boxes)
def test_a_crop_of_a_crop_equals_numpy_slicing(first, second):
    expected = CUBE[first]
    if 0 in expected.shape:
        with pytest.raises(BadInputError, match="is empty"):
            crop(Volume(CUBE), first)
        return
    part = crop(Volume(CUBE), first)
    assert part.shape == expected.shape
    np.testing.assert_array_equal(part.read(ALL), expected)
    np.testing.assert_array_equal(part.slice_at(0), expected[0])
    np.testing.assert_array_equal(part.read(second), expected[second])
    if 0 not in expected[second].shape:
        np.testing.assert_array_equal(crop(part, second).read(ALL), expected[second])


def test_a_crop_reads_nothing_until_asked_and_then_only_its_box():
    pixels = Counting(CUBE)
    part = crop(Volume(pixels), (slice(1, 4), slice(2, 6), slice(0, 3)))
    assert pixels.reads == []
    part.read((slice(0, 1), slice(1, 2), slice(None)))
    assert pixels.reads == [(slice(1, 2), slice(3, 4), slice(0, 3))]


def test_a_crop_keeps_what_is_known():
    part = crop(known(), (slice(0, 2), *ALL[1:]))
    found = part.voxel_nm, part.source, part.meaning, part.facts
    assert found == (SIZE, "made.tif", "probabilities", {"format": "TIFF"})


@pytest.mark.parametrize("step", [2, -1])
def test_a_step_is_refused_rather_than_ignored(step):
    with pytest.raises(ValueError, match=f"step of {step}"):
        crop(Volume(CUBE), (slice(None, None, step), *ALL[1:]))
    with pytest.raises(ValueError, match=f"step of {step}"):
        crop(Volume(CUBE), ALL).read((slice(None, None, step), *ALL[1:]))


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((4, 5)), "a 2-D image of shape"),
        (np.zeros((2, 3, 4, 5)), "an array of 4 axes"),
        (np.zeros((0, 4, 5)), "is empty"),
        (np.zeros((2, 4, 5), complex), "voxels of type complex128"),
        (np.full((2, 4, 5), "a"), "voxels of type"),
    ],
)
def test_what_is_not_a_volume_is_refused(pixels, words):
    with pytest.raises(BadInputError, match=words):
        Volume(pixels)


@pytest.mark.parametrize("voxel", [(0.0, 6, 6), (30, -6, 6), (float("nan"), 6, 6), (30, 6)])
def test_an_impossible_voxel_size_is_refused(voxel):
    with pytest.raises(BadInputError, match="voxel size"):
        Volume(CUBE, voxel)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint32", "float32", "float64"])
def test_arrays_become_volumes_of_their_type_and_volumes_stay(dtype):
    volume = as_volume(CUBE.astype(dtype))
    assert volume.dtype == volume.read(ALL).dtype == dtype
    np.testing.assert_array_equal(volume.read(ALL), CUBE.astype(dtype))
    assert as_volume(volume) is volume


@settings(derandomize=True, deadline=None, max_examples=40)
@given(boxes)
def test_reading_plane_by_plane_equals_numpy_slicing(box):
    found = read_planes(lambda z: CUBE[z], CUBE.shape, CUBE.dtype, box)
    np.testing.assert_array_equal(found, CUBE[box])


def test_reading_plane_by_plane_keeps_no_whole_planes():
    made = []

    class Plane(np.ndarray):
        pass

    def plane(z):
        assert sum(weak() is not None for weak in made) <= 1
        array = Plane((64, 64))
        made.append(weakref.ref(array))
        return array

    read_planes(plane, (8, 64, 64), np.dtype(float), (slice(None), slice(0, 2), slice(0, 2)))
    assert len(made) == 8


@pytest.mark.parametrize("axis", "zyx")
def test_along_another_axis_it_is_the_transposed_volume_and_twice_itself(axis):
    found = swap_axis(known(), axis)
    np.testing.assert_array_equal(found.read(ALL), CUBE.transpose(TURNS[axis]))
    assert found.shape == CUBE.transpose(TURNS[axis]).shape
    assert (found.dtype, found.source, found.meaning) == (np.uint16, "made.tif", "probabilities")
    assert found.voxel_nm == {"z": SIZE, "y": (8.0, 50.0, 4.0), "x": (4.0, 8.0, 50.0)}[axis]
    assert swap_axis(Volume(CUBE), axis).voxel_nm is None
    twice = swap_axis(found, axis)
    np.testing.assert_array_equal(twice.read(ALL), CUBE)
    assert (twice.shape, twice.voxel_nm) == (CUBE.shape, SIZE)
    assert reorder_axes(reorder_axes("abc", axis), axis) == tuple("abc")


@pytest.mark.parametrize("slab", [1, 200, 2**20])
@pytest.mark.parametrize("axis", "yx")
def test_any_box_along_another_axis_equals_numpy(axis, slab, monkeypatch):
    monkeypatch.setattr(module, "SLAB_BYTES", slab)
    turn, whole = swap_axis(known(), axis), CUBE.transpose(TURNS[axis])
    rng = np.random.default_rng(0)

    def span(size):
        return slice(*sorted(rng.choice(size + 1, 2, False)))

    areas = [tuple(map(span, whole.shape[1:])) for _ in range(3)]
    for _ in range(100):
        box = (span(whole.shape[0]), *areas[rng.integers(3)])
        np.testing.assert_array_equal(turn.read(box), whole[box])


def test_slices_after_each_other_are_read_from_the_file_once():
    counting = Counting(CUBE)
    turn = swap_axis(Volume(counting), "x")
    for z in range(5):
        found = turn.read((slice(z, z + 1), slice(1, 5), slice(0, 3)))
        np.testing.assert_array_equal(found, CUBE.T[z : z + 1, 1:5, :3])
    assert counting.reads == [(slice(0, 3), slice(1, 5), slice(0, 5))]


@pytest.mark.parametrize("axis", ["c", "", "Z", "zy"])
def test_an_unknown_axis_is_refused(axis):
    with pytest.raises(BadInputError, match="is unknown, expected z, y or x"):
        swap_axis(known(), axis)
