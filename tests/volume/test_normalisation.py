"""Normalisation: exact in small, seeded blocks in large, and one scalar keeps the symmetry."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenslice.errors import BadInputError, InputWarning
from evenslice.volume import normalisation as module
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import (
    Normalisation,
    check_finite,
    estimate,
    measure_intensities,
)
from evenslice.volume.windows import reverse
from volume.voxels import noise

rng = np.random.default_rng(0)
TWO = (65000 + rng.integers(0, 2, (4, 50, 50))).astype(np.uint16)
LOW = np.where(np.arange(TWO.size).reshape(TWO.shape) == 0, 0, TWO)
SPREAD = rng.normal(size=(3, 8, 8))
DTYPES = ("uint8", "uint16", "int16", "int32", "uint32", "float32", "float64", "bool")
EXACT = {
    **{dtype: noise(dtype) for dtype in DTYPES},
    "a large offset": TWO,
    "a first voxel far from the mean": LOW,
    **{f"{o} + {s}": o + s * SPREAD for o, s in ((0, 1e-8), (1e-7, 1e-8), (1e9, 10), (-1e9, 10))},
}


@pytest.mark.parametrize("name", EXACT)
def test_a_small_volume_is_estimated_exactly(name):
    found, exact = estimate(Volume(EXACT[name])), EXACT[name].astype(np.float64)
    assert found.mean[0] == pytest.approx(exact.mean(), rel=1e-6, abs=1e-6 * exact.std())
    assert found.std[0] == pytest.approx(exact.std(), rel=1e-6)


def test_mean_and_std_by_hand():
    found = estimate(Volume(np.array([[[1, 3], [5, 7]]], np.uint8)))
    assert found.mean == (4.0,)
    assert found.std == pytest.approx((5**0.5,))
    assert found.uniform
    assert found.source == "volume"


@pytest.mark.parametrize("value", [0, 0.1, 255, -7, 1e12])
def test_a_constant_volume_is_refused(value):
    with pytest.raises(BadInputError, match="is constant"):
        estimate(Volume(np.full((3, 11, 7), value)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -3.4e38])
def test_voxels_that_are_no_numbers_do_not_count_and_are_refused_where_they_are_used(bad):
    pixels = noise("float32")
    pixels[2, 1, 1:3] = bad
    pixels[3] = bad
    found, good = measure_intensities(Volume(pixels)), np.delete(pixels, 3, 0)
    good = good[np.isfinite(good) & (good > -1e30)].astype(np.float64)
    assert (found.mean, found.std) == pytest.approx((good.mean(), good.std()), rel=1e-6)
    assert found.bad == 2 + pixels[3].size
    with pytest.raises(
        BadInputError, match=r"here has 2 voxels that are NaN or infinite, or beyond"
    ):
        check_finite(pixels[2], "here")
    check_finite(pixels[0], "here")
    check_finite(np.array([1, 2]), "here")


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("lost", [[0], [2], [1, 3, 4]])
def test_blank_sections_do_not_count(value, lost):
    pixels = np.random.default_rng(0).normal(128, 40, (6, 30, 30)).clip(1, 254).astype(np.uint8)
    good = np.delete(pixels, lost, 0).astype(np.float64)
    pixels[lost] = value
    found = measure_intensities(Volume(pixels))
    assert (found.mean, found.std) == pytest.approx((good.mean(), good.std()), rel=1e-9)
    assert found.counted == pytest.approx(1 - len(lost) / 6)
    assert estimate(Volume(pixels)) == estimate(Volume(np.delete(pixels, lost, 0)))


def test_a_section_of_another_contrast_counts():
    pixels = noise("uint8")
    pixels[2] = 100 + pixels[2] % 2  # two values
    found = measure_intensities(Volume(pixels))
    assert found.mean == pytest.approx(pixels.mean()) and found.counted == 1


def test_sections_of_one_value_each_count_where_there_are_no_others():
    assert estimate(Volume(np.arange(4.0).repeat(30).reshape(4, 5, 6))).mean == (1.5,)


def test_blank_blocks_of_large_volumes_do_not_count(small_blocks):
    pixels = noise("float32", (40, 40, 50)) + 9
    mean = float(pixels.mean())
    pixels[::3] = 0
    found = measure_intensities(Volume(pixels))
    assert found.mean == pytest.approx(mean, abs=0.03 * float(pixels[1].std()))
    assert 0.4 < found.counted < 0.9


@pytest.mark.parametrize(
    ("border", "value", "warned"), [(8, 0, True), (6, 255, True), (1, 0, False), (0, 0, False)]
)
def test_padding_that_counts_is_said(border, value, warned):
    side = 64 - 2 * border
    inner = np.random.default_rng(0).normal(128, 40, (3, side, side)).clip(1, 254).astype(np.uint8)
    pixels = np.pad(inner, ((0, 0), (border, border), (border, border)), constant_values=value)
    if not warned:
        estimate(Volume(pixels))  # a warning would be an error
        return
    with pytest.warns(InputWarning, match=rf"\d+% of the voxels of array are {value} in long"):
        estimate(Volume(pixels))


def test_mean_std_and_skew_by_hand():
    found = measure_intensities(Volume(np.array([[[0, 0, 0, 4]]], np.uint8)))
    assert (found.mean, found.std, found.skew) == pytest.approx((1, 3**0.5, 2 / 3**0.5))
    assert found.text == "mean 1, std 1.732 (uint8)"


SKEWED = np.random.default_rng(0).gamma(2.0, 20.0, (3, 40, 40)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (lambda v: v, False),
        (lambda v: v * np.float32(1.3) + 15, False),
        (lambda v: v.astype(np.float32), False),  # another type alone does not matter
        (lambda v: v.astype(np.uint16) * 257, True),
        (lambda v: (v / 255).astype(np.float32), True),
        (lambda v: (v.astype(int) - 128).astype(np.int8), True),
        (lambda v: 255 - v, True),
        (lambda v: 80 - v.astype(np.int16), True),  # mean and std fit: inverted
    ],
)
def test_intensities_of_another_range_or_inverted_differ(change, differs):
    one, other = (measure_intensities(Volume(v)) for v in (SKEWED, change(SKEWED)))
    assert one.differs(other) == other.differs(one) == differs


def test_only_the_slices_asked_for_are_read():
    pixels = noise("uint8")
    pixels[3:] = 0
    found = estimate(Volume(pixels), zs=[0, 1, 2])
    assert found.mean[0] == pytest.approx(pixels[:3].mean())
    with pytest.raises(BadInputError, match="constant"):
        estimate(Volume(pixels), zs=[3, 4])


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_SIDE", 16)


def test_a_large_volume_is_estimated_from_seeded_blocks(small_blocks):
    pixels = noise("float32", (40, 40, 50))
    one, again, other = (estimate(Volume(pixels), seed) for seed in (3, 3, 4))
    assert one == again
    assert one != other
    assert one.mean[0] == pytest.approx(pixels.mean(), abs=0.03 * float(pixels.std()))
    assert one.std[0] == pytest.approx(pixels.std(), rel=0.05)


@pytest.mark.parametrize("shape", [(3, 200, 200), (300, 9, 40), (200, 40, 9)])
def test_blocks_stay_inside_flat_and_narrow_volumes(small_blocks, shape):
    class Watched:
        def __init__(self, pixels):
            self.pixels, self.shape, self.dtype, self.voxels = pixels, pixels.shape, pixels.dtype, 0

        def __getitem__(self, key):
            part = self.pixels[key]
            assert part.shape == (1, min(16, shape[1]), min(16, shape[2]))
            self.voxels += part.size
            return part

    pixels = Watched(noise("uint8", shape))
    estimate(Volume(pixels))
    assert pixels.voxels == 64 * min(16, shape[1]) * min(16, shape[2])


def test_applying_by_hand():
    windows = np.array([[[10]], [[20]], [[30]]], np.uint8)
    for norm, values in (
        (Normalisation((20.0,), (5.0,)), [-2, 0, 2]),
        (Normalisation((10.0, 20.0, 20.0), (1.0, 1.0, 5.0)), [0, 0, 2]),
    ):
        np.testing.assert_array_equal(norm.apply(windows).ravel(), values)
    with pytest.raises(BadInputError, match="expected 1 or 3"):
        Normalisation((0.0,) * 5, (1.0,) * 5).apply(windows)


def test_normalised_noise_has_mean_0_and_std_1():
    pixels = noise("int16", (5, 40, 40))
    done = estimate(Volume(pixels)).apply(pixels)
    assert done.dtype == np.float32
    assert done.mean() == pytest.approx(0, abs=1e-5)
    assert done.std() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("dtype", ["uint32", "int32", "float64"])
def test_wide_numbers_keep_their_contrast(dtype):
    pixels = (2_000_000_000 + np.arange(12).reshape(3, 2, 2)).astype(dtype)
    done = estimate(Volume(pixels)).apply(pixels)
    np.testing.assert_allclose(np.diff(done.ravel()), 1 / pixels.astype(float).std(), rtol=1e-4)


three = st.lists(st.integers(1, 50), min_size=3, max_size=3)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(three, three)
def test_one_scalar_for_all_slots_commutes_with_reversal_and_one_per_slot_does_not(means, stds):
    window = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 4)).astype(np.uint8)
    scalar = Normalisation((means[0],), (stds[0],))
    np.testing.assert_array_equal(scalar.apply(reverse(window)), reverse(scalar.apply(window)))
    each = Normalisation(tuple(means), tuple(stds))
    commutes = np.array_equal(each.apply(reverse(window)), reverse(each.apply(window)))
    assert commutes == ((means[0], stds[0]) == (means[2], stds[2]))


@pytest.mark.parametrize(
    ("mean", "std", "uniform"),
    [
        ((1.0,), (2.0,), True),
        ((1.0,) * 3, (2.0,) * 3, True),
        ((1.0, 1.0, 2.0), (2.0,) * 3, False),
        ((1.0,) * 3, (2.0, 2.0, 3.0), False),
    ],
)
def test_uniform_means_every_slot_alike(mean, std, uniform):
    assert Normalisation(mean, std).uniform is uniform


@pytest.mark.parametrize(
    ("mean", "std"),
    [((), ()), ((0,), (0,)), ((0,), (-1,)), ((np.nan,), (1,)), ((0,), (np.inf,)), ((0, 1), (1,))],
)
def test_numbers_that_cannot_normalise_are_refused(mean, std):
    with pytest.raises(BadInputError, match="normalisation has"):
        Normalisation(mean, std)
