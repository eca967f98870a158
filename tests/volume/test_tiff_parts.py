"""Reading TIFF piece by piece: what is decoded, what is kept, and pages too large to be decoded whole."""

import gc

import numpy as np
import pytest
import tifffile
from test_tiff import ALL, noise, spoil_slice, write

from evenslice.errors import BadInputError
from evenslice.volume import cache
from evenslice.volume import tiff as module
from evenslice.volume.files import open_volume


@pytest.fixture
def decoded(monkeypatch):
    """Which pages were decoded, in order."""
    pages, real = [], tifffile.TiffPage.asarray  # of frames too
    monkeypatch.setattr(
        tifffile.TiffPage, "asarray", lambda page, **k: pages.append(page.index) or real(page, **k)
    )
    return pages


def test_opening_decodes_nothing_and_reading_only_what_is_asked(tmp_path, decoded):
    volume = open_volume(write(tmp_path / "stack.tif", noise(), compression="zlib"))
    assert decoded == []
    volume.read((slice(2, 4), slice(0, 1), slice(0, 1)))
    assert decoded == [2, 3]
    volume.read((slice(1, 4), *ALL[1:]))
    assert decoded == [2, 3, 1]


def test_the_cache_forgets_the_slices_used_longest_ago(tmp_path, decoded, monkeypatch):
    monkeypatch.setattr(cache, "CACHE_BYTES", 2 * 17 * 13)
    volume = open_volume(write(tmp_path / "stack.tif", noise(), compression="zlib"))
    for z in (0, 1, 0, 2, 0, 1):
        volume.slice_at(z)
        assert (
            sum(plane.nbytes for plane in volume.pixels._cache._kept.values()) <= cache.CACHE_BYTES
        )
    assert decoded == [0, 1, 2, 1]


def test_a_slice_larger_than_the_cache_is_still_read(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CACHE_BYTES", 1)
    volume = open_volume(write(tmp_path / "stack.tif", noise(), compression="zlib"))
    np.testing.assert_array_equal(volume.read(ALL), noise())
    assert len(volume.pixels._cache._kept) == 1


@pytest.mark.parametrize("compression", ["zlib", None])
def test_what_was_read_can_be_changed_without_changing_the_volume(tmp_path, compression):
    volume = open_volume(write(tmp_path / "stack.tif", noise(), compression=compression))
    block = volume.read(ALL).copy() if compression is None else volume.read(ALL)
    block[...] = 0
    np.testing.assert_array_equal(volume.read(ALL), noise())


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("compression", ["zlib", None])
def test_files_are_closed_with_their_volume(tmp_path, compression):
    path = write(tmp_path / "stack.tif", noise(), compression=compression)
    open_volume(path).slice_at(0)
    gc.collect()
    flat = write(tmp_path / "flat.tif", noise()[0], compression=compression)
    with pytest.raises(BadInputError):
        open_volume(flat)
    gc.collect()


LARGE = {
    "tiles": {"tile": (16, 16), "compression": "zlib"},
    "plain tiles": {"tile": (16, 16), "metadata": None},
    "strips": {"rowsperstrip": 4, "compression": "zlib", "predictor": True},
    "one strip": {"compression": "lzw"},
    "jpeg tiles": {"tile": (16, 16), "compression": "jpeg"},
    "big-endian": {"rowsperstrip": 4, "compression": "zlib", "byteorder": ">"},
}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("name", LARGE)
def test_large_pages_are_read_in_parts(tmp_path, monkeypatch, name, dtype):
    dtype = "uint8" if name == "jpeg tiles" else dtype  # JPEG holds bytes only
    path = write(tmp_path / "stack.tif", noise(dtype, (5, 37, 45)), **LARGE[name])
    whole = open_volume(path).read(ALL)
    monkeypatch.setattr(module, "LARGE_PAGE_BYTES", 100)
    monkeypatch.setattr(
        tifffile.TiffPage, "asarray", lambda page, **k: pytest.fail("a whole page was decoded")
    )
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(ALL), whole)
    for box in (
        (slice(1, 4), slice(3, 5), slice(0, 1)),
        (slice(4, 5), slice(15, 33), slice(31, 45)),
        (slice(0, 0), *ALL[1:]),
    ):
        np.testing.assert_array_equal(volume.read(box), whole[box])


def test_only_the_tiles_that_touch_a_box_are_decoded_and_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGE_PAGE_BYTES", 100)
    volume = open_volume(write(tmp_path / "stack.tif", noise(shape=(5, 37, 45)), **LARGE["tiles"]))
    parts, real = [], volume.pixels._cache._load
    monkeypatch.setattr(volume.pixels._cache, "_load", lambda key: parts.append(key) or real(key))
    for z in range(3):
        volume.read((slice(z, z + 3), slice(17, 20), slice(10, 20)))
    assert parts == [(z, tile) for z in range(5) for tile in (3, 4)]


def test_a_damaged_tile_is_named_and_the_others_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGE_PAGE_BYTES", 100)
    path = write(tmp_path / "stack.tif", noise(shape=(5, 37, 45)), **LARGE["tiles"])
    spoil_slice(path, 3)
    volume = open_volume(path)
    volume.read((slice(3, 4), slice(20, 30), slice(20, 30)))
    with pytest.raises(BadInputError, match=r"slice 3 of .* cannot be decoded"):
        volume.slice_at(3)
