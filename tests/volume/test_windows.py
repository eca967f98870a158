"""Windows: neighbours reflected at the ends, read as one stack, and reversed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume
from evenslice.volume.windows import check_slices, inner_centres, neighbours, read_window, reverse

SLICES = (1, 3, 5, 7, 9)
odd = st.sampled_from(SLICES)
WHOLE = slice(None), slice(None)


@st.composite
def places(draw):
    slices = draw(odd)
    depth = draw(st.integers(slices // 2 + 1, 14))
    return slices, depth, draw(st.integers(0, depth - 1))


def ramp(depth: int) -> Volume:
    return Volume(np.arange(depth * 6, dtype=np.int16).reshape(depth, 2, 3))


@settings(derandomize=True, deadline=None, max_examples=25)
@given(places())
def test_neighbours_are_what_numpy_calls_reflected(place):
    slices, depth, z = place
    reach = slices // 2
    expected = np.pad(np.arange(depth), reach, mode="reflect")[z : z + slices]
    np.testing.assert_array_equal(neighbours(z, slices, depth), expected)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(places())
def test_a_window_of_the_reversed_volume_is_the_reversed_window(place):
    slices, depth, z = place
    volume = ramp(depth)
    upside_down = Volume(np.ascontiguousarray(volume.pixels[::-1]))
    np.testing.assert_array_equal(
        read_window(upside_down, depth - 1 - z, slices, *WHOLE),
        reverse(read_window(volume, z, slices, *WHOLE)),
    )
    np.testing.assert_array_equal(
        neighbours(depth - 1 - z, slices, depth), depth - 1 - neighbours(z, slices, depth)[::-1]
    )


@settings(derandomize=True, deadline=None, max_examples=30)
@given(places())
def test_a_window_holds_its_slices_and_its_centre(place):
    slices, depth, z = place
    volume = ramp(depth)
    window = read_window(volume, z, slices, slice(1, 2), slice(0, 2))
    assert window.shape == (slices, 1, 2)
    assert window.dtype == volume.dtype
    assert window.flags.c_contiguous
    np.testing.assert_array_equal(window, volume.pixels[neighbours(z, slices, depth)][:, 1:2, 0:2])
    np.testing.assert_array_equal(window[slices // 2], volume.pixels[z][1:2, 0:2])


def test_the_ends_of_a_small_volume_by_hand():
    assert neighbours(0, 5, 4).tolist() == [2, 1, 0, 1, 2]
    assert neighbours(1, 5, 4).tolist() == [1, 0, 1, 2, 3]
    assert neighbours(3, 5, 4).tolist() == [1, 2, 3, 2, 1]
    assert neighbours(1, 3, 2).tolist() == [0, 1, 0]


@pytest.mark.parametrize("slices", SLICES)
@pytest.mark.parametrize("depth", range(1, 10))
def test_a_volume_is_deep_enough_from_half_a_window(slices, depth):
    if depth < (slices + 1) // 2:
        with pytest.raises(BadInputError, match=f"expected at least {(slices + 1) // 2}"):
            read_window(ramp(depth), 0, slices, *WHOLE)
    else:
        assert read_window(ramp(depth), depth - 1, slices, *WHOLE).shape == (slices, 2, 3)


@pytest.mark.parametrize("slices", SLICES)
def test_inner_windows_reflect_nothing_and_no_other_does(slices):
    for depth in range(slices // 2 + 1, 13):
        reach = slices // 2
        inside = [
            z
            for z in range(depth)
            if neighbours(z, slices, depth).tolist() == list(range(z - reach, z + reach + 1))
        ]
        assert list(inner_centres(slices, depth)) == inside


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 5, 4, 4), (1, 2, 2)])
def test_a_reversed_reversal_is_the_window(shape):
    window = np.random.default_rng(0).random(shape)
    np.testing.assert_array_equal(reverse(reverse(window)), window)
    np.testing.assert_array_equal(reverse(window)[..., 0, :, :], window[..., -1, :, :])


@pytest.mark.parametrize("slices", range(-3, 12))
def test_odd_numbers_of_slices_up_to_nine_are_taken(slices):
    if slices in SLICES:
        assert check_slices(slices) == slices
    else:
        with pytest.raises(BadInputError, match=f"{slices} slices were asked for"):
            check_slices(slices)
