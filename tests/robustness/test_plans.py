"""Laws of windows and tiles, for any numbers (Hypothesis)."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evenslice.volume.array import Volume
from evenslice.volume.tiles import TileLayout, block_side, chunk_side, plan_blocks
from evenslice.volume.windows import inner_centres, neighbours, read_window, reverse

laws = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def spans(draw, size):
    low = draw(st.integers(0, size - 1))
    return slice(low, draw(st.integers(low + 1, size)))


@st.composite
def plans(draw):
    """Draw a shape, a box in it, a layout of tiles, and the depth and side of a block."""
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 120)), draw(st.integers(1, 120))
    roi = tuple(draw(spans(size)) for size in shape)
    stride = draw(st.integers(1, 32))
    halo, overlap = draw(st.sampled_from([(0, 0), (1, 0), (5, 0), (0, 1), (0, 7), (0, 40)]))
    least = 2 * halo * stride + 2 * overlap + 1  # what the halo leaves something of
    tile = least + draw(st.integers(0, 200)), least + draw(st.integers(0, 200))
    side = halo * stride + 1 + draw(st.integers(1, 130))
    layout = TileLayout(tile, halo * stride, overlap, stride)
    return shape, roi, layout, draw(st.integers(1, 9)), side


@laws
@given(plans())
def test_every_voxel_is_written_once(plan):
    shape, roi, layout, depth, side = plan
    times, weights = np.zeros(shape, int), np.zeros(shape)
    for block in plan_blocks(shape, roi, layout, depth, side):
        times[block.core] += 1
        for tile in block.tiles:
            share = 1.0 if tile.weights is None else np.outer(*tile.weights)
            weights[(block.core[0], *tile.core)] += share
            for core, read, whole in zip(tile.core, tile.read, block.read, strict=True):
                assert whole.start <= read.start <= core.start < core.stop <= read.stop
                assert read.stop <= whole.stop
    inside = np.zeros(shape, bool)
    inside[roi] = True
    np.testing.assert_array_equal(times, inside)
    np.testing.assert_allclose(weights, inside, atol=1e-5)


@laws
@given(plans())
def test_no_two_blocks_share_a_chunk(plan):
    shape, roi, layout, _, side = plan
    for size, span, tile in zip(shape[1:], roi[1:], layout.tile, strict=True):
        step = block_side(size, span, layout, tile, side)
        chunk = chunk_side(step) if step < span.stop - span.start else step
        assert step >= 1
        assert step % chunk == 0


@laws
@given(st.sampled_from([1, 3, 5, 7, 9]), st.integers(5, 12), st.data())
def test_windows_are_reflected_at_the_ends(slices, depth, data):
    z = data.draw(st.integers(0, depth - 1))
    volume = Volume(np.arange(depth, dtype=np.int16)[:, None, None] * np.ones((1, 2, 3), np.int16))
    index = neighbours(z, slices, depth)
    assert index[slices // 2] == z
    for place, n in enumerate(index):
        wanted = z + place - slices // 2
        assert n in (wanted, -wanted, 2 * (depth - 1) - wanted)
    window = read_window(volume, z, slices, slice(0, 2), slice(0, 3))
    np.testing.assert_array_equal(window[:, 0, 0], index)
    np.testing.assert_array_equal(reverse(reverse(window)), window)
    for centre in inner_centres(slices, depth):
        inner = range(centre - slices // 2, centre + slices // 2 + 1)
        assert neighbours(centre, slices, depth).tolist() == list(inner)
