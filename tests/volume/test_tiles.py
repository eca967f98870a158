"""Tiles and blocks: every voxel once, with its surroundings, and no chunk shared."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evenslice.errors import BadInputError
from evenslice.volume.tiles import TileLayout, block_side, chunk_side, plan_blocks, within

law = settings(derandomize=True, deadline=None, max_examples=30)


@st.composite
def spans(draw, size):
    low = draw(st.integers(0, size - 1))
    return slice(low, draw(st.integers(low + 1, size)))


@st.composite
def plans(draw):
    """What plan_blocks takes: with a halo, blended, or neither."""
    shape = draw(st.integers(1, 7)), draw(st.integers(1, 90)), draw(st.integers(1, 90))
    roi = tuple(draw(spans(size)) for size in shape)
    stride = draw(st.sampled_from([1, 2, 4, 8]))
    halo, overlap = draw(st.sampled_from([(0, 0), (stride, 0), (2 * stride, 0), (0, 1), (0, 5)]))
    least = 2 * halo + overlap + 1
    tile = draw(st.integers(least, least + 40)), draw(st.integers(least, least + 40))
    return (
        shape,
        roi,
        TileLayout(tile, halo, overlap, stride),
        draw(st.integers(1, 4)),
        draw(st.integers(8, 64)),
    )


@law
@given(plans())
def test_every_voxel_lies_in_exactly_one_core(plan):
    shape, roi = plan[:2]
    seen, tiled = np.zeros(shape, int), np.zeros(shape, int)
    for block in plan_blocks(*plan):
        seen[block.core] += 1
        for tile in block.tiles:
            assert all(
                b.start <= t.start < t.stop <= b.stop
                for t, b in zip(tile.core, block.core[1:], strict=True)
            )
            tiled[(block.core[0], *tile.core)] += 1
    inside = np.zeros(shape, int)
    inside[roi] = 1
    np.testing.assert_array_equal(seen, inside)
    np.testing.assert_array_equal(tiled > 0, inside > 0)
    if not plan[2].overlap:
        np.testing.assert_array_equal(tiled, inside)


def axes_of(plan):
    """Size, core, read, the block's read and the layout's tile of every tile along y and x."""
    for block in plan_blocks(*plan):
        for tile in block.tiles:
            yield from zip(plan[0][1:], tile.core, tile.read, block.read, plan[2].tile, strict=True)


@law
@given(plans())
def test_what_is_read_holds_the_core_and_its_halo_and_begins_at_the_stride(plan):
    halo, stride = plan[2].halo, plan[2].stride
    for size, core, read, whole, side in axes_of(plan):
        assert 0 <= read.start <= max(0, core.start - halo)
        assert min(size, core.stop + halo) <= read.stop <= size
        assert whole.start <= read.start < read.stop <= whole.stop
        if plan[2].overlap:
            assert read.stop - read.start == min(size, side)
        else:
            assert read.start % stride == 0
            assert read.stop % stride == 0 or read.stop == size
            assert core.start - read.start < halo + stride
            assert read.stop - core.stop < halo + stride


@law
@given(plans())
def test_writing_what_was_read_with_its_weights_gives_the_slice_back(plan):
    (_, height, width), roi = plan[:2]
    plane = np.random.default_rng(0).random((height, width))
    out, total = np.zeros_like(plane), np.zeros_like(plane)
    for block in plan_blocks(*plan):
        if block.core[0].start > roi[0].start:
            continue
        for tile in block.tiles:
            weight = 1.0 if tile.weights is None else tile.weights[0][:, None] * tile.weights[1]
            assert np.all(np.asarray(weight) > 0)
            out[tile.core] += weight * plane[tile.read][tile.inside]
            total[tile.core] += weight
    np.testing.assert_allclose(total[roi[1:]], 1, atol=1e-6)
    np.testing.assert_allclose(out[roi[1:]], plane[roi[1:]], atol=1e-6)


def test_weights_fade_linearly_over_the_overlap():
    everything = (slice(0, 1), slice(0, 4), slice(0, 10))
    (block,) = plan_blocks((1, 4, 10), everything, TileLayout((6, 6), 0, 2, 1), 1, 64)
    one, two = block.tiles
    assert (one.read[1], two.read[1]) == (slice(0, 6), slice(4, 10))
    np.testing.assert_allclose(one.weights[1], [1, 1, 1, 1, 0.75, 0.25])
    np.testing.assert_allclose(two.weights[1], [0.25, 0.75, 1, 1, 1, 1])
    np.testing.assert_array_equal(one.weights[0], np.ones(4))


@law
@given(plans())
def test_no_two_blocks_share_a_chunk(plan):
    shape, roi, cut, depth, side = plan
    assume(side % chunk_side(side) == 0)
    for axis in (1, 2):
        step = block_side(shape[axis], roi[axis], cut, cut.tile[axis - 1], side)
        starts = sorted({block.core[axis].start - roi[axis].start for block in plan_blocks(*plan)})
        assert starts == list(range(0, roi[axis].stop - roi[axis].start, step))
    starts = {block.core[0].start - roi[0].start for block in plan_blocks(*plan)}
    assert starts == set(range(0, roi[0].stop - roi[0].start, depth))


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(1, 4096), st.integers(0, 24), st.sampled_from([1, 8, 16, 32]))
def test_blocks_are_whole_chunks_whatever_the_tile(tile, halo, stride):
    assume(tile > 2 * halo * stride)
    cut = TileLayout((tile, tile), halo * stride, 0, stride)
    step = block_side(10000, slice(0, 10000), cut, tile, 4096)
    assert 0 < step <= tile - 2 * cut.halo
    assert step % chunk_side(step) == 0
    assert chunk_side(step) <= 1024
    if step >= 256:
        assert chunk_side(step) >= 128
        assert step % max(16, stride) == 0
        assert step > 0.8 * (tile - 2 * cut.halo)


def test_chunks_by_hand():
    sides = {100: 100, 256: 256, 512: 256, 640: 320, 1568: 392, 4096: 256}
    assert {step: chunk_side(step) for step in sides} == sides


def test_a_plan_by_hand():
    roi = (slice(1, 3), slice(0, 40), slice(0, 6))
    blocks = plan_blocks((3, 40, 6), roi, TileLayout((20, 20), 2, 0, 2), 1, 4096)
    rows = [
        (slice(0, 16), slice(0, 18)),
        (slice(16, 32), slice(14, 34)),
        (slice(32, 40), slice(30, 40)),
    ]
    assert [(block.core[0], block.core[1], block.read[0]) for block in blocks] == [
        (slice(z, z + 1), *row) for z in (1, 2) for row in rows
    ]


def test_where_a_part_lies():
    found = within((slice(5, 9), slice(2, 3)), (slice(4, 10), slice(0, 5)))
    assert found == (slice(1, 5), slice(2, 3))


@pytest.mark.parametrize(("tile", "halo", "overlap"), [(8, 4, 0), (7, 4, 0), (0, 0, 0), (8, 0, 8)])
def test_a_tile_lost_in_its_surroundings_is_refused(tile, halo, overlap):
    words = f"nothing left inside its {'halo' if halo else 'overlap'}"
    with pytest.raises(BadInputError, match=words):
        TileLayout((50, tile), halo, overlap, 1)


@pytest.mark.parametrize(("halo", "overlap"), [(4, 0), (0, 3), (0, 0)])
def test_a_small_slice_is_one_tile(halo, overlap):
    whole = (slice(0, 1), slice(0, 8), slice(0, 9))
    (block,) = plan_blocks((1, 8, 9), whole, TileLayout((9, 9), halo, overlap, 1), 1, 64)
    (tile,) = block.tiles
    assert tile.core == tile.read == block.read == whole[1:]
    assert tile.weights is None
