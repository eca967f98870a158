"""Arrangements of slices, and the windows that an audit draws."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenslice.errors import BadInputError
from evenslice.evidence.sampling import draw_windows, slice_orders
from evenslice.volume.array import Volume


def draw(shape, *options):
    return draw_windows(Volume(np.broadcast_to(np.uint8(0), shape)), *options)


def sides(window):
    return window.y.stop - window.y.start, window.x.stop - window.x.start


@pytest.mark.parametrize("slices", [1, 3, 5, 9])
def test_in_a_latin_design_every_slice_stands_in_every_slot_equally_often(slices):
    orders = slice_orders(slices, "latin")
    assert orders.shape == (2 * slices, slices)
    for slot in range(slices):
        assert np.bincount(orders[:, slot], minlength=slices).tolist() == [2] * slices
    np.testing.assert_array_equal(orders[:2], slice_orders(slices))
    np.testing.assert_array_equal(orders[1::2], orders[::2, ::-1])
    assert orders[0].tolist() == list(range(slices))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.integers(1, 40),
    st.integers(8, 90),
    st.integers(8, 90),
    st.sampled_from([1, 3, 5, 9]),
    st.integers(1, 80),
)
def test_windows_lie_wholly_inside_and_are_all_different(depth, height, width, slices, count):
    shape, half = (depth, height, width), slices // 2
    if depth < slices:
        with pytest.raises(BadInputError, match="expected at least"):
            draw(shape, slices, 32, count, 0)
        return
    windows = draw(shape, slices, 32, count, 0, 8)
    assert len({(w.z, w.y.start, w.x.start) for w in windows}) == len(windows) <= count
    for window in windows:
        assert half <= window.z < depth - half
        assert 0 <= window.y.start < window.y.stop <= height
        assert 0 <= window.x.start < window.x.stop <= width


def test_blocks_come_one_each_before_any_comes_twice():
    windows, more = (draw((30, 512, 512), 3, 256, count, 0) for count in (40, 80))
    assert max(Counter(w.cluster for w in windows).values()) == 1
    assert len(more) == 80
    assert more[:40] == windows
    assert len({w.cluster for w in more}) == 40


def test_windows_of_a_cluster_share_a_block():
    windows = draw((12, 64, 96), 3, 32, 1000, 5)
    assert len(windows) == 10 * 2 * 3
    for cluster in {w.cluster for w in windows}:
        members = [w for w in windows if w.cluster == cluster]
        assert len({(w.z // 3, w.y.start, w.x.start) for w in members}) == 1


@pytest.mark.parametrize(
    ("shape", "expected"), [((3, 70, 200), (64, 192)), ((3, 20, 20), (20, 20))]
)
def test_tiles_are_cut_to_the_slice_and_to_the_network(shape, expected):
    [window] = draw(shape, 3, 256, 1, 0, 32)
    assert sides(window) == expected


def test_a_network_of_one_size_takes_that_size_or_is_refused():
    [window] = draw((3, 70, 200), 3, 256, 1, 0, 1, (64, 96))
    assert sides(window) == (64, 96)
    with pytest.raises(BadInputError, match=r"takes 64 x 96 pixels only, .* found 60 x 200"):
        draw((3, 60, 200), 3, 256, 1, 0, 1, (64, 96))


def test_windows_take_turns_between_poor_and_rich_blocks():
    shape, rows = (3, 32 * 40, 32), 40

    def foreground(window):
        return window.y.start / (32 * rows)

    windows = draw_windows(
        Volume(np.broadcast_to(np.uint8(0), shape)), 3, 32, 10, 0, foreground=foreground
    )
    strata = [int(4 * foreground(window)) for window in windows]
    assert Counter(strata[:4]) == Counter(strata[4:8]) == Counter(range(4))


def test_the_seed_decides():
    one, same, other = (draw((30, 300, 300), 3, 64, 20, seed) for seed in (1, 1, 2))
    assert one == same != other


def test_no_windows_is_refused():
    with pytest.raises(BadInputError, match="0 windows"):
        draw((30, 300, 300), 3, 64, 0, 0)
