import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume, as_volume, crop, read_planes

ALL = (slice(None),) * 3
bounds = st.one_of(st.none(), st.integers(-9, 12))
spans = st.builds(slice, bounds, bounds)
boxes = st.tuples(spans, spans, spans)


def cube(shape: tuple[int, ...] = (6, 7, 5)) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.int32).reshape(shape)


class Recorder:
    """Lazy pixels that remember what was read."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels, self.shape, self.dtype, self.asked = pixels, pixels.shape, pixels.dtype, []

    def __getitem__(self, key):
        self.asked.append(key)
        return self.pixels[key]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(boxes, boxes)
def test_a_crop_of_a_crop_equals_numpy_slicing(first, second):
    expected = cube()[first]
    if 0 in expected.shape:
        with pytest.raises(BadInputError, match="is empty"):
            crop(Volume(cube()), first)
        return
    part = crop(Volume(cube()), first)
    assert part.shape == expected.shape
    np.testing.assert_array_equal(part.read(ALL), expected)
    np.testing.assert_array_equal(part.read(second), expected[second])
    if 0 not in expected[second].shape:
        np.testing.assert_array_equal(crop(part, second).read(ALL), expected[second])


def test_a_crop_reads_nothing_until_asked_and_then_only_its_box():
    pixels = Recorder(cube())
    part = crop(Volume(pixels), (slice(1, 4), slice(2, 6), slice(0, 3)))
    assert pixels.asked == []
    part.read((slice(0, 1), slice(1, 2), slice(None)))
    assert pixels.asked == [(slice(1, 2), slice(3, 4), slice(0, 3))]


def test_a_crop_keeps_voxel_size_source_and_meaning():
    part = crop(Volume(cube(), (30.0, 6.0, 6.0), "here", "probabilities"), (slice(0, 2), *ALL[1:]))
    assert (part.voxel_nm, part.source, part.meaning) == ((30.0, 6.0, 6.0), "here", "probabilities")


def test_a_step_is_refused_rather_than_ignored():
    with pytest.raises(ValueError, match="step of 2"):
        crop(Volume(cube()), (slice(0, 6, 2), *ALL[1:]))
    with pytest.raises(ValueError, match="step of -1"):
        crop(Volume(cube()), ALL).read((slice(None, None, -1), *ALL[1:]))


@pytest.mark.parametrize("z", [0, 3, 5])
def test_slice_at_is_the_slice(z):
    np.testing.assert_array_equal(Volume(cube()).slice_at(z), cube()[z])
    np.testing.assert_array_equal(
        crop(Volume(cube()), (slice(0, 6), *ALL[1:])).slice_at(z), cube()[z]
    )


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
def test_what_is_not_a_volume_is_refused_in_one_line(pixels, words):
    with pytest.raises(BadInputError, match=words) as caught:
        Volume(pixels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "voxel", [(0.0, 6.0, 6.0), (30.0, -6.0, 6.0), (float("nan"), 6.0, 6.0), (30.0, 6.0)]
)
def test_an_impossible_voxel_size_is_refused(voxel):
    with pytest.raises(BadInputError, match="voxel size"):
        Volume(cube(), voxel)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "uint16", "int16", "int32", "uint32", "float32", "float64"]
)
def test_a_volume_keeps_the_type_of_its_voxels(dtype):
    volume = Volume(cube().astype(dtype))
    assert volume.dtype == dtype
    assert volume.read(ALL).dtype == dtype


def test_as_volume_wraps_arrays_and_keeps_volumes():
    volume = Volume(cube())
    assert as_volume(volume) is volume
    np.testing.assert_array_equal(as_volume(cube()).read(ALL), cube())


@settings(derandomize=True, deadline=None, max_examples=40)
@given(boxes)
def test_reading_plane_by_plane_equals_numpy_slicing(box):
    pixels = cube()
    np.testing.assert_array_equal(
        read_planes(lambda z: pixels[z], pixels.shape, pixels.dtype, box), pixels[box]
    )


def test_reading_plane_by_plane_holds_no_whole_planes():
    made = []

    def plane(z):
        held = [weak for weak in made if weak() is not None]
        assert len(held) <= 1
        array = Plane((64, 64))
        array[...] = z
        made.append(weakref.ref(array))
        return array

    class Plane(np.ndarray):
        pass

    read_planes(plane, (8, 64, 64), np.dtype(float), (slice(None), slice(0, 2), slice(0, 2)))
    assert len(made) == 8


def test_a_crop_keeps_what_is_known():
    volume = Volume(np.zeros((3, 4, 5)), (3.0, 2.0, 1.0), "a", "labels", {"format": "TIFF"})
    part = crop(volume, (slice(0, 2), slice(None), slice(None)))
    assert (part.voxel_nm, part.source, part.meaning, part.facts) == (
        (3.0, 2.0, 1.0),
        "a",
        "labels",
        {"format": "TIFF"},
    )
