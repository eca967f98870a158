import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evenslice.labels.blocks import grid_of, with_halo
from evenslice.labels.watershed import flood_box, seed_distance, seed_halo, seeds_in

law = settings(derandomize=True, deadline=None, max_examples=30)
side = st.integers(1, 7)
voxels = st.sampled_from([None, (1.0, 1.0, 1.0), (5.0, 2.0, 2.0), (2.5, 1.0, 1.5)])
SHAPE = (4, 9, 8)
maps = st.one_of(
    arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 0, 0, 0, 0, 40, 200])),
    arrays(np.float32, SHAPE, elements=st.sampled_from([0, 0, 0, 0, 0, 0, 0.25, 1])),
)
EVERYTHING = (slice(None),) * 3


def seeds_by_blocks(boundary, block, voxel_nm, distance):
    mask = np.zeros(boundary.shape, bool)
    for box in grid_of(boundary.shape, block):
        read, inside = with_halo(box, seed_halo(voxel_nm, distance), boundary.shape)
        mask[box] = seeds_in(boundary[read], inside, 0.5, voxel_nm, distance)
    return mask


def flood_by_blocks(boundary, seeds, block, halo, voxel_nm=None, distance=3.0, fill=False):
    labels = np.zeros_like(seeds)
    for box in grid_of(boundary.shape, block):
        read, inside = with_halo(box, halo, boundary.shape)
        labels[box] = flood_box(boundary[read], seeds[read], inside, 0.5, voxel_nm, distance, fill)
    return labels


@law
@given(maps, st.tuples(side, side, side), voxels, st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0, 5.0]))
def test_seeds_by_blocks_are_the_seeds_of_the_whole(boundary, block, voxel_nm, distance):
    sides = np.array(voxel_nm or (1, 1, 1))
    high = boundary >= (128 if boundary.dtype == np.uint8 else 0.5)
    walls = np.argwhere(high) * sides
    expected = np.array(
        [
            all(((np.array(at) * sides - walls) ** 2).sum(axis=1) > distance**2)
            for at in np.ndindex(SHAPE)
        ]
    )
    np.testing.assert_array_equal(
        seeds_by_blocks(boundary, block, voxel_nm, distance).ravel(), expected
    )


def test_seeds_by_hand():
    boundary = np.zeros((3, 1, 9), np.uint8)
    boundary[0, 0, 0] = 255
    mask = seeds_by_blocks(boundary, (1, 1, 2), (50.0, 4.0, 4.0), 12.0)
    assert mask[:, 0].astype(int).tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 1], [1] * 9, [1] * 9]
    # Past one slice of 50 nm, the membrane counts in the next slice too: sqrt(50^2 + 12^2) is 51.4.
    mask = seeds_by_blocks(boundary, (1, 1, 2), (50.0, 4.0, 4.0), 51.0)
    assert mask[1, 0].astype(int).tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert mask[2].all()


def test_without_boundary_all_is_seed_and_with_nothing_else_none():
    assert seeds_by_blocks(np.zeros((2, 5, 5), np.uint8), (1, 2, 2), None, 4.0).all()
    assert not seeds_by_blocks(np.ones((2, 5, 5), np.float32), (1, 2, 2), None, 4.0).any()


def test_the_threshold_itself_is_boundary():
    boundary = np.array([[[0.25, 0.5, 0.75]]], np.float32)
    assert seeds_in(boundary, EVERYTHING, 0.5, None, 0.0).tolist() == [[[True, False, False]]]
    whole = flood_box(boundary, np.ones((1, 1, 3), np.uint32), EVERYTHING, 0.75, None, 1.0)
    assert whole.tolist() == [[[1, 1, 0]]]


def test_distance_and_halo_follow_the_voxel():
    assert seed_distance((50.0, 4.0, 4.0)) == pytest.approx(60)
    assert seed_distance((5.0, 5.0, 5.0)) == 15
    assert seed_distance(None) == 3
    assert seed_halo((50.0, 4.0, 4.0), 60.0) == (2, 15, 15)
    assert seed_halo(None, 3.0) == (3, 3, 3)


def two_cells(leak=200):
    """Two cells beside each other, a membrane with a weak spot between them; one seed each."""
    boundary = np.full((3, 9, 13), 10, np.uint8)
    boundary[:, :, 6] = 255
    boundary[:, 4, 6] = leak
    seeds = np.zeros(boundary.shape, np.uint32)
    seeds[1, 4, 1], seeds[1, 4, 11] = 70000, 5
    return boundary, seeds


@pytest.mark.parametrize("block", [(3, 9, 13), (1, 4, 5), (2, 9, 7), (1, 9, 13)])
def test_a_flood_stops_at_membranes(block):
    boundary, seeds = two_cells()
    labels = flood_by_blocks(boundary, seeds, block, (3, 9, 13))
    assert (labels[:, :, :6] == 70000).all()
    assert (labels[:, :, 7:] == 5).all()
    assert (labels[:, :, 6] == 0).all()
    assert labels.dtype == np.uint32


@pytest.mark.parametrize("at", [1, 5])
def test_a_flood_meets_at_a_weak_membrane_wherever_it_came_from(at):
    boundary, seeds = two_cells(leak=100)
    seeds[1, 4, 1] = 0
    seeds[1, 4, at] = 70000
    labels = flood_by_blocks(boundary, seeds, (3, 9, 13), (0, 0, 0))
    assert (labels[:, :, :6] == 70000).all()
    assert (labels[:, :, 7:] == 5).all()
    assert (labels[:, 4, 6] > 0).all()


def test_depth_decides_where_probability_does_not():
    # Two cells and a neck, all of probability 0. By steps, the left seed would take the right cell.
    boundary = np.full((1, 9, 28), 255, np.uint8)
    boundary[0, 1:8, 1:8] = boundary[0, 4, 8:12] = boundary[0, 1:8, 12:27] = 0
    seeds = np.zeros(boundary.shape, np.uint32)
    seeds[0, 4, 5], seeds[0, 4, 23] = 1, 2
    labels = flood_by_blocks(boundary, seeds, (1, 9, 28), (0, 0, 0))
    assert (labels[0, 1:8, 1:8] == 1).all()
    assert (labels[0, 1:8, 12:27] == 2).all()


def test_a_weak_membrane_parts_neurons_before_a_narrow_place_does():
    boundary = np.full((1, 9, 30), 255, np.uint8)
    boundary[0, 1:8, 1:29] = 0
    boundary[0, 1:4, 14:18] = boundary[0, 5:8, 14:18] = 255
    boundary[0, 1:8, 8] = 115
    seeds = np.zeros(boundary.shape, np.uint32)
    seeds[0, 4, 4], seeds[0, 4, 24] = 1, 2
    labels = flood_by_blocks(boundary, seeds, (1, 9, 30), (0, 0, 0))
    assert (labels[0, 1:8, 1:8] == 1).all()
    assert (labels[0, 4, 9:29] == 2).all()


def test_a_flood_does_not_pass_over_an_edge():
    boundary = np.array([[[0, 0, 255], [0, 0, 255], [255, 255, 0]]], np.uint8)
    seeds = np.zeros(boundary.shape, np.uint32)
    seeds[0, 0, 0] = 1
    assert flood_by_blocks(boundary, seeds, (1, 3, 3), (0, 0, 0)).tolist() == [
        [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    ]


def test_255_is_probability_1():
    boundary = np.array([[[254, 255]]], np.uint8)
    assert seeds_in(boundary, EVERYTHING, 1.0, None, 0.0).tolist() == [[[True, False]]]


def test_filling_takes_the_membranes_too():
    boundary, seeds = two_cells()
    labels = flood_by_blocks(boundary, seeds, (2, 5, 5), (3, 9, 13), fill=True)
    assert (labels[:, :, :6] == 70000).all()
    assert (labels[:, :, 7:] == 5).all()
    assert (labels > 0).all()


def test_what_no_seed_reaches_stays_0():
    boundary, seeds = two_cells()
    seeds[1, 4, 11] = 0
    labels = flood_by_blocks(boundary, seeds, (3, 9, 13), (0, 0, 0))
    assert (labels[:, :, :6] == 70000).all()
    assert (labels[:, :, 7:] == 0).all()
    # A block farther from the seed than its halo does not see it; one that is nearer does.
    near = flood_by_blocks(boundary, seeds, (3, 9, 3), (0, 0, 1))
    assert (near[:, :, :3] == 70000).all()
    assert (near[:, :, 3:6] == 0).all()
    assert (flood_by_blocks(boundary, seeds, (3, 9, 3), (0, 0, 2))[:, :, 3:6] == 70000).all()
    assert not flood_by_blocks(boundary, np.zeros_like(seeds), (3, 9, 5), (1, 1, 1)).any()


noise = arrays(np.uint8, SHAPE, elements=st.integers(0, 255))
marks = arrays(np.uint32, SHAPE, elements=st.sampled_from([0] * 12 + [1, 2, 3]))


@settings(law, max_examples=12)
@given(noise, marks, st.tuples(side, side, side), voxels, st.booleans())
def test_with_a_halo_of_the_volume_any_cut_equals_the_whole(boundary, seeds, block, voxel_nm, fill):
    whole = flood_by_blocks(boundary, seeds, SHAPE, (0, 0, 0), voxel_nm, fill=fill)
    np.testing.assert_array_equal(
        flood_by_blocks(boundary, seeds, block, SHAPE, voxel_nm, fill=fill), whole
    )
    if not fill:
        assert (whole[boundary >= 128] == 0).all()
    seeded = (seeds > 0) & ((boundary < 128) | fill)
    np.testing.assert_array_equal(whole[seeded], seeds[seeded])


@law
@given(noise, marks, st.permutations([2**40, 1, 2**31 + 5]))
def test_what_wins_does_not_depend_on_numbers(boundary, seeds, names):
    names = np.array([0, *names], np.uint64)
    whole = flood_box(boundary, seeds, EVERYTHING, 0.5, None, 2.0)
    np.testing.assert_array_equal(
        flood_box(boundary, names[seeds], EVERYTHING, 0.5, None, 2.0), names[whole]
    )


def test_whole_numbers_but_bytes_are_no_probabilities():
    with pytest.raises(ValueError, match="real numbers"):
        seeds_in(np.zeros(SHAPE, np.uint16), EVERYTHING, 0.5, None, 2.0)
