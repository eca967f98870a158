"""Sections: blank ones are found and replaced alike in both directions, and each is read once."""

import numpy as np
import pytest

from counting import Counting
from evenslice.errors import BadInputError
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation
from evenslice.volume.sections import SectionReader, Sections
from evenslice.volume.tiles import TileLayout, plan_blocks
from evenslice.volume.windows import neighbours, read_window

ONCE = Normalisation((3.7,), (0.3,), "file")
PER_SLOT = Normalisation((100.0, 128.0, 90.0), (40.0, 30.0, 20.0), "file")


def noise(depth, blank=(), value=0, shape=(12, 10)):
    pixels = np.random.default_rng(0).integers(1, 255, (depth, *shape), dtype=np.uint8)
    pixels[list(blank)] = value
    return pixels


def sections(depth, blank=(), value=0):
    return Sections(Volume(noise(depth, blank, value)))


@pytest.mark.parametrize("value", [0, 255, 17])
@pytest.mark.parametrize("blank", [(), (0,), (15, 16, 17), (3, 39)])
def test_exactly_the_sections_of_one_value_are_blank(blank, value):
    found = sections(40, blank, value)
    assert [z for z in range(40) if found.blank(z)] == list(blank)


@pytest.mark.parametrize(
    "part", [(0, 0), (11, 9), (5, 5), (slice(None), slice(6, 10)), (slice(11, 12), slice(None))]
)
def test_a_section_that_is_blank_only_in_part_is_not_blank(part):
    pixels = noise(5, (2,))
    pixels[(2, *part)] = 1
    assert not Sections(Volume(pixels)).blank(2)


@pytest.mark.parametrize(
    ("blank", "z", "slices", "expected"),
    [
        ((), 5, 3, [4, 5, 6]),
        ((6,), 5, 3, [4, 5, 7]),  # beyond comes before the centre
        ((4,), 5, 3, [3, 5, 6]),
        ((6, 7), 5, 3, [4, 5, 5]),  # 5 lies one away on the near side, 8 two away
        ((5,), 5, 3, [4, 5, 6]),  # a blank centre stays
        ((4, 6), 5, 5, [3, 3, 5, 7, 7]),
        ((3, 4), 5, 5, [2, 5, 5, 6, 7]),
        ((9,), 8, 3, [7, 8, 8]),  # nothing beyond
        ((0,), 1, 3, [1, 1, 2]),
        # at the ends a reflected neighbour has the stand-in of the one that it reflects
        ((1,), 0, 3, [2, 0, 2]),
        ((8,), 9, 3, [7, 9, 7]),
    ],
)
def test_the_stand_in_by_hand(blank, z, slices, expected):
    assert sections(10, blank).seen(z, slices) == expected


@pytest.mark.parametrize("blank", [(1,), (6,), (4, 5), (2, 3, 4, 7), (0, 8), range(2, 9)])
@pytest.mark.parametrize("slices", [1, 3, 5, 7])
def test_both_directions_are_treated_alike(blank, slices):
    depth = 9
    forward, back = sections(depth, blank), sections(depth, [depth - 1 - z for z in blank])
    for z in range(depth):
        mirrored = [depth - 1 - n for n in reversed(back.seen(depth - 1 - z, slices))]
        assert forward.seen(z, slices) == mirrored


def test_a_section_stays_where_nothing_good_is_near():
    assert sections(5, range(5)).seen(2, 3) == [1, 2, 3]
    far = sections(30, [z for z in range(30) if z not in (0, 29)])
    assert far.seen(14, 3) == [13, 14, 15]
    assert far.seen(8, 3)[0] == 0  # 7 is seven away from 0
    assert far.seen(10, 3)[0] == 9  # 9 is nine away from 0


def blocks_of(volume, depth, tile=None):
    layout = TileLayout(*(((tile, tile), 1) if tile else (volume.shape[1:], 0)), 0, 1)
    whole = tuple(slice(0, n) for n in volume.shape)
    return plan_blocks(volume.shape, whole, layout, depth, 4096)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_each_section_is_read_once_while_the_area_is_the_same(batch, depth):
    counting = Counting(noise(9))
    reader = SectionReader(Sections(Volume(counting)), ONCE, 5)
    for block in blocks_of(counting, depth):
        for _ in reader.windows(block, batch):
            pass
    rows = [(key[0].start, key[1].stop - key[1].start) for key in counting.reads]
    assert [z for z, height in rows if height > 1] == list(range(9))


@pytest.mark.parametrize("norm", [ONCE, PER_SLOT], ids=["once", "per slot"])
@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("tile", [None, 7])
def test_windows_are_those_read_and_normalised_one_by_one(norm, batch, tile):
    volume = Volume(noise(7))
    reader = SectionReader(Sections(volume), norm, 3)
    seen = 0
    for block in blocks_of(volume, 3, tile):
        for first, windows in reader.windows(block, batch):
            assert windows.dtype == np.float32
            assert len(windows) <= batch
            for n, window in enumerate(windows):
                expected = norm.apply(read_window(volume, first + n, 3, *block.read))
                np.testing.assert_array_equal(window, expected)
                seen += window[0].size
    assert seen >= 7 * 12 * 10


def test_stand_ins_are_in_the_windows():
    pixels = noise(7, (3,))
    reader = SectionReader(Sections(Volume(pixels)), ONCE, 3)
    (block,) = blocks_of(Volume(pixels), 7)
    found = {first: windows[0] for first, windows in reader.windows(block, 1)}
    np.testing.assert_array_equal(found[2], ONCE.apply(pixels[[1, 2, 4]]))
    np.testing.assert_array_equal(found[4], ONCE.apply(pixels[[2, 4, 5]]))
    np.testing.assert_array_equal(found[3], ONCE.apply(pixels[[2, 3, 4]]))
    np.testing.assert_array_equal(found[6], ONCE.apply(pixels[neighbours(6, 3, 7)]))


@pytest.mark.parametrize("norm", [ONCE, PER_SLOT], ids=["once", "per slot"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_a_number_is_refused_with_its_slice(norm, value):
    pixels = noise(6).astype(np.float32)
    pixels[4, 3, 2] = value
    volume = Volume(pixels, source="v.tif")
    reader = SectionReader(Sections(volume), norm, 3)
    windows = reader.windows(blocks_of(volume, 6)[0], 1)
    for _ in range(3):  # those of 0, 1 and 2 do not show it
        next(windows)
    with pytest.raises(
        BadInputError, match=r"v\.tif slice 4 has 1 voxels that are NaN or infinite"
    ):
        next(windows)
