from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenslice.errors import BadInputError
from evenslice.labels.targets import Target, boundaries
from evenslice.learn.multi_volume import MultiVolume
from evenslice.learn.patches import PatchSource, split_slices, turn
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


def patch(made: PatchSource, seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    return MultiVolume((made,)).patch(seed, number)


def patches(
    made: PatchSource, count: int = 60, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    drawn = (patch(made, seed, i) for i in range(count))
    return [(window.astype(int), target) for window, target in drawn]


@pytest.mark.parametrize("slices", [1, 3, 5])
@pytest.mark.parametrize("crop", [(8, 8), (6, 10), (HEIGHT, WIDTH), (1, 5)])
@pytest.mark.parametrize("reversal", [False, True])
def test_window_and_target_are_the_same_place_of_the_volume(slices, crop, reversal):
    for window, target in patches(source(slices=slices, crop=crop, augment_reversal=reversal), 40):
        assert window.shape == (slices, *target.shape)
        assert target.shape == crop
        np.testing.assert_array_equal(window[slices // 2], target)
        (z,) = set((target // PLANE).ravel().tolist())
        assert z in (0, 2, 3, 6)
        expected = neighbours(z, slices, DEPTH)
        found = (window // PLANE)[:, 0, 0]
        assert found.tolist() in (
            [expected.tolist(), expected[::-1].tolist()] if reversal else [expected.tolist()]
        )
        assert (window % PLANE == target % PLANE).all()
        y, x = target % PLANE // WIDTH, target % WIDTH
        assert (np.ptp(y) + 1, np.ptp(x) + 1) == crop


@pytest.mark.parametrize("changes", [{}, {"augment_reversal": True}, {"em": EM(), "slices": 5}])
def test_the_reversed_order_reverses_every_window(changes):
    one, two = (patches(source(reversed_order=order, **changes)) for order in (False, True))
    for (window, target), (opposite, same) in zip(one, two, strict=True):
        np.testing.assert_array_equal(window, opposite[::-1])
        np.testing.assert_array_equal(target, same)


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


def test_a_patch_depends_on_seed_and_number_alone():
    made = source(augment_reversal=True)
    one = [patch(made, 5, i) for i in range(20)]
    for i in reversed(range(20)):
        for a, b in zip(one[i], patch(made, 5, i), strict=True):
            np.testing.assert_array_equal(a, b)
    drawn = {patch(made, seed, i)[0].tobytes() for seed in range(4) for i in range(10)}
    assert len(drawn) > 35


@pytest.mark.parametrize("at", [(0, 0), (HEIGHT - 1, WIDTH - 1), (10, 11), (1, 20)])
def test_a_patch_lies_around_its_voxel_as_far_as_the_volume_allows(at):
    labels = np.zeros((3, HEIGHT, WIDTH), np.uint8)
    labels[(1, *at)] = 1
    made = source(labels=Volume(labels), volume=Volume(labels), crop=(8, 6), turns=False)
    _, target = made.draw_around(np.random.default_rng(0), 1, *at)
    assert target.shape == (8, 6)
    assert target.sum() == 1
    assert at != (10, 11) or target[4, 3] == 1


def test_half_of_the_windows_are_reversed_before_they_are_normalised():
    each = Normalisation((0.0, 0.0, 5000.0), (1.0, 1.0, 1.0))
    made = source(centres=(3,), augment_reversal=True, normalisation=each)
    ways = []
    for window, target in patches(made, 80):
        offset = (window - target)[:, 0, 0].tolist()
        assert offset in ([-PLANE, 0, PLANE - 5000], [PLANE, 0, -PLANE - 5000])
        ways.append(offset[0] > 0)
    assert 25 < sum(ways) < 55
    assert not any(
        w[0, 0, 0] > w[1, 0, 0] for w, _ in patches(replace(made, augment_reversal=False), 40)
    )


def test_windows_are_normalised():
    made = source(normalisation=Normalisation((10.0,), (4.0,)))
    window, target = patch(made, 0, 0)
    np.testing.assert_allclose(window[1], (target - 10) / 4, rtol=1e-6)
    assert (window.dtype, target.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("ignore", [None, 0, 255, -1])
def test_the_label_to_ignore_becomes_minus_1(ignore):
    raw = np.random.default_rng(0).choice([0, 1, -1, 255], (DEPTH, HEIGHT, WIDTH)).astype(np.int16)
    made = source(labels=Volume(raw), target=Target("foreground", 1, ignore))
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
    whole = boundaries(raw, ignore).astype(int)
    if ignore is not None:
        whole[raw == ignore] = -1
    made = source(labels=Volume(raw), target=Target("boundary", 1, ignore), crop=(5, 5))
    edges = 0
    for window, target in patches(made, 60):
        np.testing.assert_array_equal(target, whole.ravel()[window[1]])
        edges += (target != boundaries(raw.ravel()[window[1]], ignore))[target >= 0].sum()
    assert edges > 20  # what the patch alone would have missed


@pytest.mark.parametrize("reversal", [False, True])
def test_patches_that_are_not_turned_lie_as_they_do_in_the_volume(reversal):
    for _, target in patches(source(turns=False, augment_reversal=reversal), 30):
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
    one, again, other = (patch(made, seed, 2)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert not one[[0, 2]].any()
    assert one[1].any()


odd = st.sampled_from([1, 3, 5, 7, 9])


@st.composite
def plans(draw):
    slices, depth = draw(odd), draw(st.integers(12, 60))
    low = draw(st.integers(0, depth - 1))
    return (
        depth,
        slices,
        draw(st.one_of(st.none(), st.just(range(low, draw(st.integers(low + 1, depth)))))),
    )


@settings(derandomize=True, deadline=None, max_examples=60)
@given(plans())
def test_training_and_validation_windows_share_no_slice(plan):
    depth, slices, validation = plan
    if validation is not None and validation.start <= slices and validation.stop >= depth - slices:
        with pytest.raises(BadInputError, match="leaves none to train on"):
            split_slices(depth, slices, validation)
        return
    train, check = split_slices(depth, slices, validation)

    def seen(centres):
        return {int(n) for z in centres for n in neighbours(z, slices, depth)}

    assert not seen(train) & seen(check)
    assert sorted({*train, *check}) == sorted([*train, *check])
    assert {*train, *check} <= set(range(depth))
    if validation is not None:
        assert check == list(validation)


@pytest.mark.parametrize("slices", [1, 3, 5, 9])
def test_by_default_the_last_fifth_validates_after_a_gap_of_s(slices):
    train, check = split_slices(50, slices)
    assert check == list(range(40, 50))
    assert train == list(range(40 - slices))


def test_validation_in_the_middle_leaves_a_gap_on_both_sides():
    train, check = split_slices(20, 3, range(8, 10))
    assert train == [*range(5), *range(13, 20)]
    assert check == [8, 9]


def test_the_smallest_volume_that_can_be_split():
    assert split_slices(5, 3) == ([0], [4])
    with pytest.raises(BadInputError, match="the volume has 4 slices"):
        split_slices(4, 3)


@pytest.mark.parametrize(
    "validation", [range(3, 3), range(5, 3), range(-1, 3), range(8, 11), range(10, 12)]
)
def test_validation_outside_the_volume_is_refused(validation):
    with pytest.raises(BadInputError, match="expected some of 0:10"):
        split_slices(10, 3, validation)
