import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenslice.errors import BadInputError
from evenslice.volume.tiles import plan_tiles


@st.composite
def plans(draw):
    halo = draw(st.integers(0, 8))
    tile = draw(st.integers(2 * halo + 1, 40))
    return draw(st.integers(1, 90)), draw(st.integers(1, 90)), tile, halo


@settings(derandomize=True, deadline=None, max_examples=150)
@given(plans())
def test_every_pixel_lies_in_exactly_one_core(plan):
    height, width, tile, halo = plan
    seen = np.zeros((height, width), int)
    for part in plan_tiles(height, width, tile, halo):
        seen[part.core] += 1
    assert (seen == 1).all()


@settings(derandomize=True, deadline=None, max_examples=150)
@given(plans())
def test_what_is_read_is_the_core_with_its_halo_cut_at_the_edges(plan):
    height, width, tile, halo = plan
    for part in plan_tiles(height, width, tile, halo):
        for size, core, read in zip((height, width), part.core, part.read, strict=True):
            if size <= tile:
                assert (read.start, read.stop) == (core.start, core.stop) == (0, size)
            else:
                assert read.start == max(0, core.start - halo)
                assert read.stop == min(size, core.stop + halo)
                assert read.stop - read.start <= tile


@settings(derandomize=True, deadline=None, max_examples=50)
@given(plans())
def test_writing_the_inside_of_what_was_read_gives_the_slice_back(plan):
    height, width, tile, halo = plan
    plane = np.arange(height * width).reshape(height, width)
    out = np.full_like(plane, -1)
    for part in plan_tiles(height, width, tile, halo):
        out[part.core] = plane[part.read][part.inside]
    np.testing.assert_array_equal(out, plane)


def test_a_plan_by_hand():
    rows = [(part.core[0], part.read[0]) for part in plan_tiles(10, 6, 6, 1)]
    assert rows == [
        (slice(0, 4), slice(0, 5)),
        (slice(4, 8), slice(3, 9)),
        (slice(8, 10), slice(7, 10)),
    ]


@pytest.mark.parametrize(("tile", "halo"), [(8, 4), (7, 4), (0, 0)])
def test_a_tile_lost_in_its_halo_is_refused(tile, halo):
    with pytest.raises(BadInputError, match="nothing left inside its halo"):
        plan_tiles(50, 50, tile, halo)


def test_a_small_slice_needs_no_halo():
    (only,) = plan_tiles(8, 8, 8, 4)
    assert only.core == only.read == (slice(0, 8), slice(0, 8))
