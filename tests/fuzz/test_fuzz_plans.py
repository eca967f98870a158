"""Plans of windows and tiles, and boxes as people write them: laws that hold for any numbers."""

import numpy as np
from fuzzing import TEXTS, fuzz
from hypothesis import example, given
from hypothesis import strategies as st

from evenslice.model.inputs import parse_roi, parse_span
from evenslice.volume.array import Volume, crop, swap_axis
from evenslice.volume.tiles import TileLayout, block_side, chunk_side, plan_blocks
from evenslice.volume.voxel_size import checked, numbers_of, stated_size
from evenslice.volume.windows import check_slices, inner_centres, neighbours, read_window, reverse


@st.composite
def spans(draw, size):
    low = draw(st.integers(0, size - 1))
    return slice(low, draw(st.integers(low + 1, size)))


@st.composite
def asked(draw):
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 120)), draw(st.integers(1, 120))
    roi = tuple(draw(spans(size)) for size in shape)
    stride = draw(st.integers(1, 32))
    halo, overlap = draw(st.sampled_from([(0, 0), (1, 0), (2, 0), (5, 0), (0, 1), (0, 7), (0, 40)]))
    tile = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    return (
        shape,
        roi,
        (tile, halo * stride, overlap, stride),
        draw(st.integers(1, 9)),
        draw(st.integers(1, 130)),
    )


@fuzz(25)
@given(asked())
def test_tiles(executions, asked):
    shape, roi, numbers, depth, side = asked

    def laws(blocks):
        times, weights = np.zeros(shape, int), np.zeros(shape)
        for block in blocks:
            times[block.core] += 1
            assert all(
                0 <= part.start < part.stop <= size
                for part, size in zip(block.core, shape, strict=True)
            )
            for tile in block.tiles:
                share = 1.0 if tile.weights is None else np.outer(*tile.weights)
                weights[(block.core[0], *tile.core)] += share
                for core, read, whole, size in zip(
                    tile.core, tile.read, block.read, shape[1:], strict=True
                ):
                    assert (
                        0
                        <= whole.start
                        <= read.start
                        <= core.start
                        < core.stop
                        <= read.stop
                        <= whole.stop
                        <= size
                    )
                    assert read.start % numbers[3] == 0 or numbers[2]
        inside = np.zeros(shape, bool)
        inside[roi] = True
        np.testing.assert_array_equal(times, inside)  # every voxel is written once
        np.testing.assert_allclose(weights, inside, atol=1e-5)

    executions(lambda: plan_blocks(shape, roi, TileLayout(*numbers), depth, side), laws)


@fuzz(25)
@given(asked())
def test_no_two_blocks_share_a_chunk(executions, asked):
    shape, roi, numbers, _, side = asked

    def laws(found):
        for step, span in found:
            chunk = chunk_side(step) if step < span.stop - span.start else step
            assert step >= 1 and chunk >= 1 and step % chunk == 0

    def steps():
        cut = TileLayout(*numbers)
        return [
            (block_side(n, s, cut, t, side), s)
            for n, s, t in zip(shape[1:], roi[1:], cut.tile, strict=True)
        ]

    executions(steps, laws)


@fuzz(25)
@given(st.integers(-12, 12), st.integers(1, 12), st.data())
def test_windows(executions, slices, depth, data):
    z = data.draw(st.integers(0, depth - 1))
    volume = Volume(np.arange(depth, dtype=np.int16)[:, None, None] * np.ones((1, 2, 3), np.int16))

    def laws(index):
        assert (
            len(index) == slices
            and index[slices // 2] == z
            and 0 <= index.min() <= index.max() < depth
        )
        for place, n in enumerate(index):  # as in a mirror at the ends
            wanted = z + place - slices // 2
            assert n in (wanted, -wanted, 2 * (depth - 1) - wanted)
        window = read_window(volume, z, slices, slice(0, 2), slice(0, 3))
        np.testing.assert_array_equal(window[:, 0, 0], index)
        np.testing.assert_array_equal(reverse(reverse(window)), window)
        inside = inner_centres(slices, depth)
        assert all(
            neighbours(c, slices, depth).tolist()
            == list(range(c - slices // 2, c + slices // 2 + 1))
            for c in inside
        )

    executions(lambda: neighbours(z, check_slices(slices), depth), laws)


SIDE = st.one_of(
    st.just(""),
    st.integers(-2, 30).map(str),
    TEXTS,
    st.sampled_from(["00", "+1", "1_0", " 3 ", "\u0665", "9" * 5000, "1e3", "0x5"]),
)
SPAN = st.one_of(st.tuples(SIDE, SIDE).map(":".join), TEXTS)


@example("9" * 5000 + ":,:,:")
@fuzz(25)
@given(
    st.one_of(
        st.lists(SPAN, min_size=3, max_size=3).map(",".join),
        st.lists(SPAN, max_size=5).map(",".join),
        st.text(max_size=20),
    )
)
def test_boxes_in_words(executions, text):
    shape = (5, 17, 30)

    def laws(box):
        assert len(box) == 3 and all(
            0 <= part.start < part.stop <= size for part, size in zip(box, shape, strict=True)
        )
        assert crop(Volume(np.zeros(shape, np.uint8)), box).shape == tuple(
            part.stop - part.start for part in box
        )

    executions(lambda: parse_roi(text, shape), laws)
    executions(lambda: parse_span(text, 9, "--validation"))


@fuzz(25)
@given(
    st.one_of(
        st.lists(st.one_of(TEXTS, st.floats().map(str), st.integers().map(str)), max_size=4).map(
            ",".join
        ),
        st.text(max_size=12),
    )
)
def test_numbers_in_words(executions, text):
    executions(lambda: numbers_of(text, "--mean"), lambda found: [float(n) for n in found])


@example({"resolution": None, "units": b"\x80"})
@fuzz(25)
@given(
    st.dictionaries(
        st.sampled_from(["resolution", "voxel_size", "element_size_um", "units"]),
        st.one_of(
            TEXTS,
            st.floats(),
            st.none(),
            st.binary(max_size=3),
            st.lists(st.one_of(st.floats(), TEXTS, st.none()), max_size=4),
        ),
        max_size=3,
    )
)
def test_stated_sizes(executions, attributes):
    executions(
        lambda: stated_size(attributes),
        lambda size: size is None or checked(size) == size or pytest_fail(size),
    )


def pytest_fail(found):
    raise AssertionError(found)


@fuzz(20)
@given(st.sampled_from("zyx"), st.tuples(*[st.integers(1, 5)] * 3), st.data())
def test_axes(executions, axis, shape, data):
    voxels = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    box = tuple(data.draw(spans(size)) for size in shape)

    def laws(volume):
        order = {"z": (0, 1, 2), "y": (1, 0, 2), "x": (2, 0, 1)}[axis]
        assert sorted(volume.shape) == sorted(shape)
        reorder_axes = volume.read((slice(None),) * 3)
        assert reorder_axes.shape == volume.shape and sorted(reorder_axes.ravel()) == sorted(
            voxels.ravel()
        )
        assert reorder_axes.shape[0] == shape["zyx".index(axis)] and order

    executions(lambda: swap_axis(Volume(voxels), axis), laws)
    executions(
        lambda: crop(Volume(voxels), box),
        lambda v: np.testing.assert_array_equal(v.read((slice(None),) * 3), voxels[box]),
    )
