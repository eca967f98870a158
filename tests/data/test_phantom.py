import dataclasses

import numpy as np
import pytest

from evenslice.data.phantom import Phantom, phantom, smooth

ARRAYS = ("raw", "membranes", "neurons", "mitochondria")
SMALL = (3, 48, 80)


@pytest.fixture(scope="module")
def default() -> Phantom:
    return phantom((9, 192, 192))


@pytest.fixture(scope="module")
def several() -> list[Phantom]:
    return [phantom((12, 48, 64), seed) for seed in range(12)]


def same(one: Phantom, two: Phantom) -> list[bool]:
    return [np.array_equal(getattr(one, name), getattr(two, name)) for name in ARRAYS]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def areas(neurons: np.ndarray) -> np.ndarray:
    return np.stack(
        [np.bincount(s.ravel(), minlength=int(neurons.max()) + 1)[1:] for s in neurons]
    ).astype(float)


def overlaps(neurons: np.ndarray, apart: int = 1) -> list[float]:
    found = []
    for one, two in zip(neurons[:-apart], neurons[apart:], strict=True):
        for number in np.unique(one[one > 0]):
            a, b = one == number, two == number
            if a.sum() >= 100:
                found.append((a & b).sum() / (a | b).sum())
    return found


def asymmetry(raw: np.ndarray, membranes: np.ndarray) -> float:
    """How much better a picture shows the next section's membranes than the previous one's."""
    dark, on = (v - v.mean(axis=(1, 2), keepdims=True, dtype=float) for v in (raw, membranes))
    return float(
        (np.sum(dark[1:] * on[:-1]) - np.sum(dark[:-1] * on[1:]))
        / np.sqrt(np.sum(dark**2) * np.sum(on**2))
    )


def irreversibility(neurons: np.ndarray) -> float:
    """Third-order lag statistic of areas: 0 for growth like shrinkage; its sign flips with z."""
    area = areas(neurons)
    one, two = area[:-1], area[1:]
    return float(np.sum(one**2 * two - one * two**2) / np.sum(np.abs(two - one) * one * two))


def trend(values: np.ndarray) -> float:
    return correlation(np.arange(len(values)), values) if np.ptp(values) > 0 else 0.0


def zero_within(values: list[float], limit: float) -> bool:
    """Whether the mean over seeds is 0 within four standard errors and below `limit`."""
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return bool(abs(np.mean(values)) < min(4 * error, limit))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_or_section_another_view():
    made = phantom(SMALL, seed=3)
    assert all(same(made, phantom(SMALL, seed=3)))
    assert not any(same(made, phantom(SMALL, seed=4))[:3])
    assert correlation(made.raw[0], made.raw[1]) < 0.9


@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 33, 57)])
def test_shapes_and_types(shape):
    made = phantom(shape, seed=1)
    assert [getattr(made, name).shape for name in ARRAYS] == [shape] * 4
    kinds = [np.uint8, np.uint8, np.uint16, np.uint8]
    assert [getattr(made, name).dtype for name in ARRAYS] == kinds
    assert made.voxel_nm == (50.0, 4.0, 4.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.raw = made.membranes


def test_ground_truth_is_consistent(default):
    assert set(np.unique(default.membranes)) == {0, 1}
    assert set(np.unique(default.mitochondria)) == {0, 1}
    np.testing.assert_array_equal(default.neurons == 0, default.membranes == 1)
    assert not np.any((default.mitochondria == 1) & (default.membranes == 1))
    np.testing.assert_array_equal(np.unique(default.neurons), np.arange(default.neurons.max() + 1))


def test_touching_neurons_are_always_parted_by_membrane(default):
    for axis in (1, 2):
        one, two = (np.take(default.neurons, range(*ends), axis) for ends in ((0, 191), (1, 192)))
        assert np.mean((one != two) & (one > 0) & (two > 0)) < 1e-4


@pytest.mark.parametrize("seed", range(4))
def test_membrane_fraction(seed):
    assert 0.15 < phantom((2, 192, 192), seed).membranes.mean() < 0.30


def test_default_view_has_neurites_of_many_sizes_and_some_mitochondria(default):
    sizes = areas(default.neurons)[0]
    sizes = sizes[sizes > 30]
    assert len(sizes) >= 12
    assert np.percentile(sizes, 90) > 5 * np.percentile(sizes, 10)
    assert 0.005 < default.mitochondria.mean() < 0.10


def test_mitochondria_last_for_several_sections(default):
    there = default.mitochondria == 1
    kept = (there[:-1] & there[1:]).sum() / there[:-1].sum()
    assert 0.3 < kept < 0.98


def test_neighbouring_sections_overlap_but_move(default):
    near, far = np.mean(overlaps(default.neurons)), np.mean(overlaps(default.neurons, apart=4))
    assert 0.5 < near < 0.95
    assert far < near - 0.1


def test_membranes_are_dark_and_where_the_ground_truth_says(default):
    dark = default.membranes == 1
    assert default.raw[~dark].mean() - default.raw[dark].mean() > 30
    inside = -correlation(default.raw, default.membranes)
    for axis in (1, 2):
        for shift in (-2, 2):
            assert (
                inside > -correlation(default.raw, np.roll(default.membranes, shift, axis)) + 0.05
            )


def test_mitochondria_are_darker_than_cytoplasm(default):
    cytoplasm = (default.membranes == 0) & (default.mitochondria == 0)
    assert default.raw[cytoplasm].mean() - default.raw[default.mitochondria == 1].mean() > 20


def test_sections_differ_in_brightness_and_grey_values_are_not_clipped(default):
    assert default.raw.mean(axis=(1, 2)).std() > 2
    assert np.mean((default.raw == 0) | (default.raw == 255)) < 0.02


def test_structures_keep_their_size_in_nm():
    fine = phantom((2, 192, 192), 5, (50.0, 4.0, 4.0))
    coarse = phantom((2, 96, 96), 5, (50.0, 8.0, 8.0))
    assert coarse.voxel_nm == (50.0, 8.0, 8.0)
    assert abs(fine.membranes.mean() - coarse.membranes.mean()) < 0.03


def test_neighbours_are_symmetric(several):
    assert zero_within([asymmetry(p.raw, p.membranes) for p in several], 0.04)
    blurred = [0.75 * p.raw[1:] + 0.25 * p.raw[:-1] for p in several]
    assert not zero_within(
        [asymmetry(b, p.membranes[1:]) for b, p in zip(blurred, several, strict=True)], 0.04
    )


def test_no_arrow_of_time_in_the_shapes_of_neurites(several):
    assert zero_within([irreversibility(p.neurons) for p in several], 0.3)
    saw = [(np.arange(400) < 40 * (1 + z % 6)).astype(np.uint16) for z in range(20)]
    assert abs(irreversibility(np.stack(saw))) > 0.3


@pytest.mark.parametrize("name", ["raw", "membranes", "mitochondria"])
def test_no_trend_through_z(several, name):
    assert zero_within([trend(getattr(p, name).mean(axis=(1, 2))) for p in several], 0.4)
    assert trend(np.arange(14)) > 0.9


def test_smooth_noise_is_stationary_and_of_unit_variance():
    noise = smooth(np.random.default_rng(0), (12, 20000), (3.0, 0.0))
    np.testing.assert_allclose(noise.std(axis=1), 1.0, atol=0.03)
    np.testing.assert_allclose(noise.mean(axis=1), 0.0, atol=0.04)
    lag = np.mean(noise[:-3] * noise[3:], axis=1)
    np.testing.assert_allclose(lag, np.exp(-(3**2) / (4 * 3.0**2)), atol=0.04)


@pytest.mark.parametrize("shape", [(0, 64, 64), (4, 31, 64), (4, 64, 31), (64, 64), (4, 64.0, 64)])
def test_too_small_or_malformed_shape_is_named(shape):
    with pytest.raises(ValueError, match="expected three integers") as caught:
        phantom(shape)
    assert str(shape) in str(caught.value)
    assert "(1, 32, 32)" in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ((SMALL, 0, (50.0, 0.0, 4.0)), "voxel_nm is .* expected three positive numbers"),
        ((SMALL, 0, (50.0, 4.0)), "voxel_nm is .* expected three positive numbers"),
        ((SMALL, 0, (float("nan"), 4.0, 4.0)), "voxel_nm is .* expected three positive numbers"),
        ((SMALL, -1), "seed is -1, expected"),
        (((1, 400, 400), 0, (50.0, 100.0, 100.0)), "at most 65535"),
    ],
)
def test_what_cannot_be_made_is_named(asked, words):
    with pytest.raises(ValueError, match=words):
        phantom(*asked)
