"""Components box by box equal those of the whole volume."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from evenslice.labels.blocks import faces_of, grid_of
from evenslice.labels.components import compact, label_box, number, renumber, same_names, touching

law = settings(derandomize=True, deadline=None, max_examples=50)
NO_PAIRS = np.zeros((0, 4), np.int64)
side = st.integers(1, 6)


def by_blocks(classes, block, min_size=1, order=None, with_classes=True, wide_from=2**32):
    """Label a volume as `segment` does: box by box, then faces, then one numbering."""
    boxes = grid_of(classes.shape, block)
    store, found = np.zeros(classes.shape, np.uint32), [None] * len(boxes)
    for i in order or range(len(boxes)):
        store[boxes[i]], found[i] = label_box(classes[boxes[i]], boxes[i], classes.shape)
    faces = faces_of(boxes)[:: -1 if order else 1]
    read = classes.__getitem__ if with_classes else None
    pairs = np.concatenate([NO_PAIRS, *(touching(store, face, read) for face in faces)])
    numbers = number(found, pairs, min_size, wide_from)
    final = np.zeros(classes.shape, numbers.table.dtype)
    for i, box in enumerate(boxes):
        final[box] = numbers.numbers_of(i)[store[box]]
    return final, numbers


def whole(classes, min_size=1):
    """The same by scipy on the whole volume, written as slowly as it reads."""
    objects = []
    for value in range(1, int(classes.max(initial=0)) + 1):
        labels, count = ndimage.label(classes == value)
        objects += [np.flatnonzero(labels.ravel() == i) for i in range(1, count + 1)]
    final = np.zeros(classes.size, np.int64)
    kept = sorted(
        (voxels for voxels in objects if len(voxels) >= min_size), key=lambda voxels: voxels[0]
    )
    for i, voxels in enumerate(kept, start=1):
        final[voxels] = i
    return final.reshape(classes.shape), [len(voxels) for voxels in kept]


def drawn(*planes):
    """Classes from rows of digits, '.' for 0."""
    return np.array(
        [[[int(c.replace(".", "0")) for c in row] for row in plane] for plane in planes], np.uint8
    )


U = drawn(["1..1", "1..1", "1..1", "1111"])
DIAGONAL = drawn(["1...", ".1..", "..1.", "...1"])
SIDE_BY_SIDE = drawn(["1122", "1122", "2211", "2211"])
SNAKE = drawn(["11111", "....1", "11111", "1....", "11111"], ["....." for _ in range(5)])


@pytest.mark.parametrize("block", [(1, 4, 4), (1, 4, 2), (1, 2, 2), (1, 1, 1), (1, 3, 4)])
def test_a_u_is_one_object_however_it_is_cut(block):
    final, numbers = by_blocks(U, block)
    np.testing.assert_array_equal(final, U)
    assert numbers.sizes.tolist() == [10]


@pytest.mark.parametrize("block", [(1, 4, 4), (1, 2, 2), (1, 1, 1)])
def test_corners_and_edges_do_not_connect(block):
    final, _ = by_blocks(DIAGONAL, block)
    assert np.diagonal(final[0]).tolist() == [1, 2, 3, 4]
    over_an_edge = drawn(["1.", ".."], [".1", ".."])
    assert by_blocks(over_an_edge, block)[1].count == 2


@pytest.mark.parametrize("block", [(1, 4, 4), (1, 2, 2), (1, 4, 3), (1, 1, 1)])
def test_two_classes_side_by_side_stay_apart(block):
    final, _ = by_blocks(SIDE_BY_SIDE, block)
    assert final[0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


@pytest.mark.parametrize("block", [(1, 1, 1), (1, 2, 2), (2, 2, 3), (2, 5, 5), (1, 5, 1)])
def test_a_snake_through_every_block_is_one_object(block):
    final, numbers = by_blocks(SNAKE, block)
    np.testing.assert_array_equal(final, SNAKE)
    assert numbers.sizes.tolist() == [17]


def test_an_object_in_the_last_corner_only():
    classes = np.zeros((4, 5, 6), np.uint8)
    classes[3, 4, 5] = 7
    final, numbers = by_blocks(classes, (3, 3, 4))
    assert final[3, 4, 5] == 1
    assert final.sum() == 1
    assert numbers.offsets.tolist() == [0] * 8 + [1]


@law
@given(
    st.tuples(side, side, side).flatmap(
        lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 1, 2]))
    ),
    st.tuples(side, side, side),
    st.sampled_from([1, 1, 2, 5]),
    st.randoms(use_true_random=False),
)
def test_any_cut_in_any_order_equals_the_whole(classes, block, min_size, chance):
    order = list(range(len(grid_of(classes.shape, block))))
    chance.shuffle(order)
    final, numbers = by_blocks(classes, block, min_size, order)
    expected, sizes = whole(classes, min_size)
    np.testing.assert_array_equal(final, expected)
    assert numbers.sizes.tolist() == sizes


@settings(law, max_examples=20)
@given(arrays(np.bool_, (3, 5, 5)), st.tuples(side, side, side))
def test_a_mask_needs_no_classes_at_the_seams(mask, block):
    final, _ = by_blocks(mask, block, with_classes=False)
    np.testing.assert_array_equal(final, whole(mask.astype(np.uint8))[0])


def test_empty_full_and_one_voxel():
    assert by_blocks(np.zeros((3, 4, 5), np.uint8), (2, 2, 2))[1].count == 0
    final, numbers = by_blocks(np.ones((3, 4, 5), np.uint16), (2, 2, 2))
    assert (final == 1).all()
    assert numbers.sizes.tolist() == [60]
    assert by_blocks(np.ones((1, 1, 1), np.uint8), (9, 9, 9))[0].tolist() == [[[1]]]


def test_small_objects_count_over_all_boxes():
    classes = drawn(["11.2", "...2", "3..."])
    final, numbers = by_blocks(classes, (1, 1, 1), min_size=2)
    assert final[0].tolist() == [[1, 1, 0, 2], [0, 0, 0, 2], [0, 0, 0, 0]]
    assert numbers.count == 2


def test_very_many_objects_get_wide_numbers():
    classes = drawn(["1.1.1"])
    assert by_blocks(classes, (1, 1, 2))[0].dtype == np.uint32
    for wide_from, dtype in ((3, np.uint64), (4, np.uint32)):
        final, _ = by_blocks(classes, (1, 1, 2), wide_from=wide_from)
        assert final.dtype == dtype
        assert final.tolist() == [[[1, 0, 2, 0, 3]]]


def test_first_voxels_are_places_in_a_volume_too_large_for_32_bits():
    shape, start = (9000, 9000, 9000), (8999, 8998, 8997)
    box = tuple(slice(s, s + 2) for s in start)
    block = np.zeros((2, 2, 2), np.uint8)
    block[0, 1, 0] = block[0, 1, 1] = 1
    _, local = label_box(block, box, shape)
    assert local.first.tolist() == [(8999 * 9000 + 8999) * 9000 + 8997]
    assert local.sizes.tolist() == [2]


@law
@given(
    arrays(np.uint64, (3, 4, 5), elements=st.sampled_from([0, 3, 7, 2**40, 2**40 + 1])),
    st.tuples(side, side, side),
)
def test_objects_with_names_join_by_name_however_they_are_cut(labels, block):
    boxes = grid_of(labels.shape, block)
    parts = [compact(labels[box], box, labels.shape) for box in boxes]
    numbers = number([local for _, local, _ in parts], same_names([names for _, _, names in parts]))
    final = np.zeros(labels.shape, np.int64)
    for i, box in enumerate(boxes):
        final[box] = numbers.numbers_of(i)[parts[i][0]]
    in_order = [name for name in dict.fromkeys(labels.ravel().tolist()) if name]
    expected = np.array(
        [in_order.index(name) + 1 if name else 0 for name in labels.ravel().tolist()]
    )
    np.testing.assert_array_equal(final.ravel(), expected)


def test_renumbering_by_hand():
    labels, names = renumber(np.array([9, 0, 2**40, 9], np.uint64))
    assert (labels.tolist(), names.tolist()) == ([1, 0, 2, 1], [9, 2**40])
