from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from evenslice.labels.targets import Target, boundaries
from evenslice.learn.patches import Patches, PatchSource, turn
from evenslice.options import EM
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation
from evenslice.volume.windows import neighbours

DEPTH, HEIGHT, WIDTH = 7, 20, 23
PLANE = HEIGHT * WIDTH


class Place(Target):
    """A target that keeps its labels, to follow where each pixel came from."""

    def apply(self, labels):
        return labels


def coordinates(shape=(DEPTH, HEIGHT, WIDTH)) -> Volume:
    """A volume whose voxels are their own numbers."""
    return Volume(np.arange(np.prod(shape), dtype=np.int32).reshape(shape))


def source(**changes) -> PatchSource:
    settings = {
        "volume": coordinates(),
        "labels": coordinates(),
        "centres": (0, 2, 3, 6),
        "slices": 3,
        "crop": (8, 8),
        "target": Place("classes", 2),
        "normalisation": Normalisation((0.0,), (1.0,)),
    }
    return PatchSource(**(settings | changes))


def patches(
    made: PatchSource, count: int = 60, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (w.numpy().astype(int), t.numpy())
        for w, t in (Patches(made, seed, 0, count)[i] for i in range(count))
    ]


@pytest.mark.parametrize("slices", [1, 3, 5])
@pytest.mark.parametrize("crop", [(8, 8), (6, 10), (HEIGHT, WIDTH), (1, 5)])
@pytest.mark.parametrize("reverse_z", [False, True])
def test_window_and_target_are_the_same_place_of_the_volume(slices, crop, reverse_z):
    for window, target in patches(source(slices=slices, crop=crop, reverse_z=reverse_z), 40):
        assert window.shape == (slices, *target.shape)
        assert target.shape == crop
        np.testing.assert_array_equal(window[slices // 2], target)
        (z,) = set((target // PLANE).ravel().tolist())
        assert z in (0, 2, 3, 6)
        expected = neighbours(z, slices, DEPTH)
        found = (window // PLANE)[:, 0, 0]
        assert found.tolist() in (
            [expected.tolist(), expected[::-1].tolist()] if reverse_z else [expected.tolist()]
        )
        assert (window % PLANE == target % PLANE).all()
        y, x = target % PLANE // WIDTH, target % WIDTH
        assert (np.ptp(y) + 1, np.ptp(x) + 1) == crop


def way(target: np.ndarray) -> tuple[int, int]:
    """How the number of the voxel grows down and to the right: which of the eight turns it was."""
    return int(target[1, 0] - target[0, 0]), int(target[0, 1] - target[0, 0])


def test_square_patches_are_turned_in_all_eight_ways_and_others_in_the_four_that_fit():
    straight = {(a * WIDTH, b) for a in (1, -1) for b in (1, -1)}
    assert {way(target) for _, target in patches(source(crop=(6, 9)))} == straight
    assert {way(target) for _, target in patches(source())} == straight | {
        (b, a) for a, b in straight
    }


def test_the_eight_turns_are_a_group():
    window, target = np.arange(3 * 16).reshape(3, 4, 4), np.arange(16).reshape(4, 4)
    made = [turn(window, target, which) for which in range(8)]
    known = {t.tobytes() for _, t in made}
    assert len(known) == 8
    np.testing.assert_array_equal(made[0][0], window)
    for one in range(8):
        for other in range(8):
            again, both = turn(*made[one], other)
            assert np.ascontiguousarray(both).tobytes() in known
            np.testing.assert_array_equal(again % 16, np.stack([both] * 3))
            np.testing.assert_array_equal(again[:, 0, 0] // 16, [0, 1, 2])


def test_every_place_and_centre_is_drawn():
    corners = [(t // PLANE).min() for _, t in patches(source(crop=(HEIGHT, WIDTH)), 60)]
    assert set(corners) == {0, 2, 3, 6}
    firsts = {
        (int(t.min()) % PLANE)
        for _, t in patches(source(centres=(3,), crop=(HEIGHT - 1, WIDTH - 1)), 60)
    }
    assert firsts == {0, 1, WIDTH, WIDTH + 1}


def test_the_same_patch_is_the_same_whatever_ran_before():
    made = source(reverse_z=True)
    one, other = Patches(made, 5, 0, 20), Patches(made, 5, 7, 13)
    backwards = {i: one[i] for i in reversed(range(20))}
    for i in range(20):
        for a, b in zip(one[i], backwards[i], strict=True):
            assert torch.equal(a, b)
    for i in range(13):
        for a, b in zip(other[i], one[7 + i], strict=True):
            assert torch.equal(a, b)


def test_other_seeds_and_other_numbers_are_other_patches():
    made = source()
    drawn = [
        Patches(made, seed, 0, 10)[i][0].numpy().tobytes() for seed in range(4) for i in range(10)
    ]
    assert len(set(drawn)) > 35


def test_a_stretch_is_finite():
    made = Patches(source(), 0, 0, 5)
    assert len(made) == 5
    assert len(list(made)) == 5
    with pytest.raises(IndexError):
        made[5]
    with pytest.raises(IndexError):
        made[-1]


def test_patches_make_batches():
    window, target = next(iter(DataLoader(Patches(source(), 0, 0, 4), batch_size=4)))
    assert (window.shape, window.dtype) == ((4, 3, 8, 8), torch.float32)
    assert (target.shape, target.dtype) == ((4, 8, 8), torch.int64)


def test_half_of_the_windows_are_reversed_before_they_are_normalised():
    each = Normalisation((0.0, 0.0, 5000.0), (1.0, 1.0, 1.0))
    made = source(centres=(3,), reverse_z=True, normalisation=each)
    ways = []
    for window, target in patches(made, 80):
        offset = (window - target)[:, 0, 0].tolist()
        assert offset in ([-PLANE, 0, PLANE - 5000], [PLANE, 0, -PLANE - 5000])
        ways.append(offset[0] > 0)
    assert 25 < sum(ways) < 55
    assert not any(w[0, 0, 0] > w[1, 0, 0] for w, _ in patches(replace(made, reverse_z=False), 40))


def test_windows_are_normalised():
    made = source(normalisation=Normalisation((10.0,), (4.0,)))
    window, target = Patches(made, 0, 0, 1)[0]
    np.testing.assert_allclose(window[1].numpy(), (target.numpy() - 10) / 4, rtol=1e-6)


@pytest.mark.parametrize("ignore", [None, 0, 255, -1])
def test_the_label_to_ignore_becomes_minus_1(ignore):
    raw = np.random.default_rng(0).choice([0, 1, -1, 255], (DEPTH, HEIGHT, WIDTH)).astype(np.int16)
    made = source(labels=Volume(raw), target=Target("foreground", 1), ignore=ignore)
    for window, target in patches(made, 20):
        labels = raw.ravel()[window[1]]
        expected = np.where(labels == ignore, -1, labels > 0) if ignore is not None else labels > 0
        np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64", "int32", "int64"])
@pytest.mark.parametrize("ignore", [None, 70_001, -1])
def test_the_boundaries_of_a_patch_are_those_of_the_whole_slice(dtype, ignore):
    """Also where another instance begins just beyond the edge of the patch."""
    numbers = np.repeat(
        np.repeat(np.random.default_rng(0).integers(0, 9, (DEPTH, 7, 8)), 3, 1), 3, 2
    )
    raw = (
        numbers[:, :HEIGHT, :WIDTH] * (10_000 if dtype != "uint16" else 7_000)
        + (numbers[:, :HEIGHT, :WIDTH] > 0)
    ).astype(dtype)
    raw[numbers[:, :HEIGHT, :WIDTH] == 0] = 0
    whole = boundaries(raw).astype(int)
    if ignore is not None:
        whole[raw == ignore] = -1
    made = source(labels=Volume(raw), target=Target("boundary", 1), ignore=ignore, crop=(5, 5))
    edges = 0
    for window, target in patches(made, 60):
        np.testing.assert_array_equal(target, whole.ravel()[window[1]])
        edges += (target != boundaries(raw.ravel()[window[1]]))[target >= 0].sum()
    assert edges > 20  # what the patch alone would have missed


@pytest.mark.parametrize("reverse_z", [False, True])
def test_patches_that_are_not_turned_lie_as_they_do_in_the_volume(reverse_z):
    for _, target in patches(source(turns=False, reverse_z=reverse_z), 30):
        assert way(target) == (WIDTH, 1)


def test_augmented_patches_keep_their_targets_and_their_centre_in_place():
    em = EM(
        **{
            name: {"probability": 0.0}
            for name in ("brightness", "contrast", "blur", "noise", "missing")
        },
        shift={"probability": 1.0, "size": 3},
    )
    moved = 0
    for (window, target), (plain, _) in zip(
        patches(source(em=em)), patches(source(turns=False)), strict=True
    ):
        np.testing.assert_array_equal(window[1], target)
        moved += (window[0] % PLANE != target % PLANE).any()
        assert {int(z) for z in window[0].ravel() // PLANE} <= set(range(DEPTH))
        assert plain.shape == window.shape
    assert moved > 50


def test_augmentation_is_seeded_by_the_patch_and_normalised_after():
    em = EM(missing={"probability": 1.0, "blank": 1.0})
    made = source(em=em, normalisation=Normalisation((500.0,), (20.0,)))
    one, again, other = (Patches(made, seed, 0, 3)[2][0] for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not one[[0, 2]].any()
    assert one[1].any()
