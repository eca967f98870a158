"""Slicing along another axis: the same voxels, turned, however they are asked for."""

import numpy as np
import pytest

from counting import Counting
from evenslice.errors import BadInputError
from evenslice.volume import array as module
from evenslice.volume.array import Volume, reorder_axes, swap_axis

ALL = (slice(None),) * 3
TURNS = {"z": (0, 1, 2), "y": (1, 0, 2), "x": (2, 1, 0)}


@pytest.fixture
def volume():
    pixels = np.arange(5 * 7 * 6, dtype=np.uint16).reshape(5, 7, 6)
    return Volume(pixels, (50.0, 8.0, 4.0), "made.tif", "labels")


@pytest.mark.parametrize("axis", "zyx")
def test_it_is_the_transposed_volume_with_its_facts(volume, axis):
    found = swap_axis(volume, axis)
    np.testing.assert_array_equal(found.read(ALL), volume.pixels.transpose(TURNS[axis]))
    assert found.shape == volume.pixels.transpose(TURNS[axis]).shape
    assert (found.dtype, found.source, found.meaning) == (np.uint16, "made.tif", "labels")
    sizes = {"z": (50.0, 8.0, 4.0), "y": (8.0, 50.0, 4.0), "x": (4.0, 8.0, 50.0)}
    assert found.voxel_nm == sizes[axis]
    assert swap_axis(Volume(volume.pixels), axis).voxel_nm is None


@pytest.mark.parametrize("axis", "zyx")
def test_done_twice_it_is_the_volume_again(volume, axis):
    twice = swap_axis(swap_axis(volume, axis), axis)
    np.testing.assert_array_equal(twice.read(ALL), volume.pixels)
    assert (twice.shape, twice.voxel_nm) == (volume.shape, volume.voxel_nm)
    assert reorder_axes(reorder_axes("abc", axis), axis) == tuple("abc")


@pytest.mark.parametrize("slab", [1, 200, 2**20])
@pytest.mark.parametrize("axis", "yx")
def test_any_box_in_any_order_equals_numpy(volume, axis, slab, monkeypatch):
    monkeypatch.setattr(module, "SLAB_BYTES", slab)
    turn, whole = swap_axis(volume, axis), volume.pixels.transpose(TURNS[axis])
    rng = np.random.default_rng(0)
    areas = [
        tuple(slice(*sorted(rng.choice(n + 1, 2, False))) for n in whole.shape[1:])
        for _ in range(3)
    ]
    for _ in range(200):
        low, high = sorted(rng.choice(whole.shape[0] + 1, 2, False))
        box = (slice(low, high), *areas[rng.integers(3)])
        np.testing.assert_array_equal(turn.read(box), whole[box])


def test_slices_after_each_other_are_read_from_the_file_once(volume):
    counting = Counting(volume.pixels)
    turn = swap_axis(Volume(counting), "x")
    area = (slice(1, 5), slice(0, 3))
    for z in range(6):
        np.testing.assert_array_equal(
            turn.read((slice(z, z + 1), *area)), counting._pixels.T[z : z + 1, 1:5, :3]
        )
    assert counting.reads == [(slice(0, 3), slice(1, 5), slice(0, 6))]


@pytest.mark.parametrize("axis", ["c", "", "Z", "zy"])
def test_an_unknown_axis_is_refused(volume, axis):
    with pytest.raises(BadInputError, match="is unknown, expected z, y or x"):
        swap_axis(volume, axis)
