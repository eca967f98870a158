"""TIFF: every layout voxel for voxel, what is decoded and kept, and nothing lost by writing."""

import gc
import struct

import numpy as np
import pytest
import tifffile

from evenslice.errors import BadInputError
from evenslice.volume import cache
from evenslice.volume import tiff as module
from evenslice.volume.files import open_volume, save_volume
from evenslice.volume.tiff import read_image, write_tiff

ALL = (slice(None),) * 3
DTYPES = ("uint8", "uint16", "int16", "int32", "uint32", "float32", "float64", "int8")
IMAGEJ = {
    "imagej": True,
    "metadata": {"axes": "ZYX", "spacing": 0.03, "unit": "um"},
    "resolution": (250.0, 200.0),
}
OME = {
    "ome": True,
    "metadata": {
        "axes": "ZYX",
        "PhysicalSizeX": 4.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.005,
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeZ": 300.0,
        "PhysicalSizeZUnit": "Å",
    },
}
LAYOUTS = {
    "plain": {},
    "bare": {"metadata": None},
    "bigtiff": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
    "big-endian deflate": {"byteorder": ">", "compression": "zlib"},
    "tiled": {"tile": (16, 16)},
    "tiled deflate": {"tile": (16, 16), "compression": "zlib", "metadata": None},
    "lzw": {"compression": "lzw"},
    "deflate": {"compression": "zlib"},
    "deflate with predictor": {"compression": "zlib", "predictor": True},
    "zstd": {"compression": "zstd"},
    "strips": {"rowsperstrip": 4, "compression": "zlib"},
    "volume tiles": {"tile": (2, 16, 16), "compression": "zlib"},
    "imagej": IMAGEJ,
    "imagej deflate": IMAGEJ | {"compression": "zlib"},
    "ome": OME,
    "ome deflate": OME | {"compression": "zlib"},
}


def noise(dtype: str = "uint8", shape: tuple[int, ...] = (6, 17, 13)) -> np.ndarray:
    values = np.random.default_rng(0).integers(1, 100, shape)
    return (values - 50 if dtype.startswith(("int", "float")) else values).astype(dtype)


def write(path, pixels, **options):
    tifffile.imwrite(path, pixels, photometric="minisblack", **options)
    return path


def spoil_slice(path, number):
    """Overwrite the start of what a slice holds."""
    with tifffile.TiffFile(path) as file:
        place = file.pages[number].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[place : place + 20] = bytes(20)
    path.unlink()
    path.write_bytes(data)


def assert_refused(path, words="expected"):
    with pytest.raises(BadInputError, match=words) as caught:
        open_volume(path).read(ALL)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert "expected" in message


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return LAYOUTS[request.param]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_every_layout_is_read_voxel_for_voxel(tmp_path, layout, dtype):
    pixels = noise(dtype)
    volume = open_volume(write(tmp_path / "stack.tif", pixels, **layout))
    assert volume.shape == pixels.shape
    assert volume.dtype == dtype
    assert volume.meaning == "intensity"
    box = slice(2, 5), slice(3, 9), slice(1, 13)
    for key in (
        box,
        ALL,
        (slice(5, 6), *ALL[1:]),
        (slice(3, 3), *ALL[1:]),
        (slice(-2, None), *ALL[1:]),
    ):
        read = volume.read(key)
        np.testing.assert_array_equal(read, pixels[key])
        assert read.dtype == np.dtype(dtype)
        assert read.dtype.isnative
    np.testing.assert_array_equal(volume.slice_at(4), pixels[4])


@pytest.mark.parametrize("dtype", [*DTYPES, "bool"])
@pytest.mark.parametrize("name", ["plain", "big-endian", "deflate"])
def test_every_type_is_read(tmp_path, dtype, name):
    pixels = noise(dtype) if dtype != "bool" else noise() > 50
    volume = open_volume(write(tmp_path / "stack.tif", pixels, **LAYOUTS[name]))
    assert volume.dtype == dtype
    np.testing.assert_array_equal(volume.read(ALL), pixels)


@pytest.mark.parametrize("depth", range(2, 10))
def test_every_depth_is_read(tmp_path, depth):
    pixels = noise(shape=(depth, 3, 40))
    for name in ("plain", "bare", "imagej", "ome deflate"):
        np.testing.assert_array_equal(
            open_volume(write(tmp_path / f"{name}.tif", pixels, **LAYOUTS[name])).read(ALL), pixels
        )


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_one_page_a_slice_without_metadata_is_a_stack(tmp_path, options):
    pixels = noise("uint16")
    with tifffile.TiffWriter(tmp_path / "pages.tif") as writer:
        for plane in pixels:
            writer.write(
                plane, photometric="minisblack", metadata=None, contiguous=False, **options
            )
    np.testing.assert_array_equal(open_volume(tmp_path / "pages.tif").read(ALL), pixels)


def test_an_imagej_file_with_one_page_for_many_slices_is_read(tmp_path):
    pixels, path = noise(), tmp_path / "virtual.tif"
    write(path, pixels[0], metadata=None, description="ImageJ=1.53\nimages=6\nslices=6\n")
    path.write_bytes(path.read_bytes() + pixels[1:].tobytes())
    np.testing.assert_array_equal(open_volume(path).read(ALL), pixels)
    path.write_bytes(path.read_bytes()[:-1])
    assert_refused(path, "is cut off")


@pytest.mark.parametrize("name", ["imagej", "imagej deflate", "ome", "ome deflate"])
def test_the_voxel_size_is_read_in_nm(tmp_path, name):
    volume = open_volume(write(tmp_path / "stack.tif", noise(), **LAYOUTS[name]))
    assert volume.voxel_nm == pytest.approx((30, 5, 4))


@pytest.mark.parametrize("name", ["plain", "bare", "deflate"])
def test_a_file_that_states_no_voxel_size_has_none(tmp_path, name):
    assert open_volume(write(tmp_path / "stack.tif", noise(), **LAYOUTS[name])).voxel_nm is None


@pytest.mark.parametrize(
    ("unit", "size"),
    [("nm", 2.0), ("micron", 2e3), ("\\u00B5m", 2e3), ("mm", 2e6), ("pixel", None)],
)
def test_units_of_imagej(tmp_path, unit, size):
    options = {"metadata": {"axes": "ZYX", "spacing": 2, "unit": unit}, "resolution": (0.5, 0.5)}
    volume = open_volume(write(tmp_path / "stack.tif", noise(), imagej=True, **options))
    assert volume.voxel_nm == (None if size is None else pytest.approx((size,) * 3))


@pytest.mark.parametrize("spacing", [0, -3])
def test_an_impossible_voxel_size_counts_as_none(tmp_path, spacing):
    options = {
        "metadata": {"axes": "ZYX", "spacing": spacing, "unit": "um"},
        "resolution": (0.5, 0.5),
    }
    assert (
        open_volume(write(tmp_path / "stack.tif", noise(), imagej=True, **options)).voxel_nm is None
    )


@pytest.mark.parametrize("axes", ["ZYX", "QYX", "IYX", "TYX"])
def test_a_stack_may_call_its_slices_by_other_names(tmp_path, axes):
    path = write(tmp_path / "stack.tif", noise(), metadata={"axes": axes})
    np.testing.assert_array_equal(open_volume(path).read(ALL), noise())


@pytest.mark.parametrize("kind", [{"imagej": True}, {"ome": True}, {}])
def test_axes_of_length_one_do_not_matter(tmp_path, kind):
    pixels = noise()[None, :, None]
    path = write(tmp_path / "stack.tif", pixels, metadata={"axes": "TZCYX"}, **kind)
    np.testing.assert_array_equal(open_volume(path).read(ALL), noise())


@pytest.mark.parametrize(
    "kind",
    [
        {"imagej": True, "metadata": {"axes": "CYX", "mode": "composite"}},
        {"imagej": True},
        {"ome": True},
        {},
    ],
)
def test_channels_are_not_slices(tmp_path, kind):
    path = write(
        tmp_path / "channels.tif", noise(shape=(3, 9, 8)), **({"metadata": {"axes": "CYX"}} | kind)
    )
    assert_refused(path, "3 channels .*save one channel")


def test_more_grey_channels_than_imagej_has_are_slices(tmp_path):
    path = write(tmp_path / "stack.tif", noise(shape=(9, 17, 13)), imagej=True)
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == "CYX"
    np.testing.assert_array_equal(open_volume(path).read(ALL), noise(shape=(9, 17, 13)))


@pytest.mark.parametrize("axes", ["YXZ", "YZX", "XYZ"])
def test_slices_that_are_not_the_first_axis_are_refused(tmp_path, axes):
    path = write(tmp_path / "stack.tif", noise(), metadata={"axes": axes})
    assert_refused(path, "expected")


@pytest.mark.parametrize("axes", ["ZCYX", "TZYX"])
@pytest.mark.parametrize("kind", [{"imagej": True}, {"ome": True}, {}])
def test_four_axes_are_refused(tmp_path, axes, kind):
    path = write(tmp_path / "four.tif", noise(shape=(4, 2, 9, 8)), metadata={"axes": axes}, **kind)
    assert_refused(path, "expected one stack z, y, x")


@pytest.mark.parametrize("shape", [(9, 8, 3), (5, 9, 8, 3), (5, 9, 8, 4)])
def test_colour_is_refused(tmp_path, shape):
    tifffile.imwrite(tmp_path / "rgb.tif", noise(shape=shape), photometric="rgb")
    assert_refused(tmp_path / "rgb.tif", "colour image .*convert it to 8-bit grey")


@pytest.mark.parametrize(
    "options", [{}, {"metadata": None}, {"imagej": True}, {"ome": True}, {"compression": "lzw"}]
)
def test_a_single_image_is_refused_with_advice(tmp_path, options):
    path = write(tmp_path / "flat.tif", noise()[0], **options)
    assert_refused(
        path, r"2-D image of shape \(17, 13\).*stack the slices into one file or give the folder"
    )


def test_complex_voxels_are_refused(tmp_path):
    assert_refused(
        write(tmp_path / "complex.tif", noise().astype(np.complex64)), "voxels of type complex64"
    )


@pytest.mark.parametrize("options", [{"metadata": None}, {}])
def test_images_of_several_sizes_are_refused_rather_than_dropped(tmp_path, options):
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as writer:
        for pixels in (noise(), noise(shape=(4, 9, 8))):
            writer.write(pixels, photometric="minisblack", **options)
    assert_refused(tmp_path / "mixed.tif", "2 separate images")


def cuts(data: bytes) -> list[int]:
    near = [0, 1, 2, 4, 7, 8, 9, 16, 20]
    return sorted(
        {
            *near,
            *(len(data) * k // 24 for k in range(24)),
            *(len(data) - k for k in (1, 2, 3, 5, 9, 14, 30)),
        }
    )


def outcome(path) -> tuple[np.ndarray | None, str]:
    """What was read, or the words that refused it."""
    try:
        return open_volume(path).read(ALL), ""
    except BadInputError as error:
        return None, str(error)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, layout):
    pixels, whole, cut = noise(), tmp_path / "whole.tif", tmp_path / "cut.tif"
    data = write(whole, pixels, **layout).read_bytes()
    for length in cuts(data):
        cut.unlink(missing_ok=True)
        cut.write_bytes(data[:length])
        found, words = outcome(cut)
        if found is not None:  # nothing but padding, or what is said twice, is gone
            np.testing.assert_array_equal(found, pixels)
            assert open_volume(cut).voxel_nm == open_volume(whole).voxel_nm
        else:
            assert "expected" in words
            assert "2-D" not in words
            assert "\n" not in words


def page_ends(path) -> list[int]:
    """Where each page of a classic little-endian TIFF says where the next one is."""
    data, ends = path.read_bytes(), []
    (where,) = struct.unpack_from("<I", data, 4)
    while where:
        (count,) = struct.unpack_from("<H", data, where)
        ends.append(where + 2 + 12 * count)
        (where,) = struct.unpack_from("<I", data, ends[-1])
    return ends


def patch(path, place: int, number: int) -> None:
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, place, number)
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["deflate", "tiled", "ome", "ome deflate", "imagej deflate"])
def test_a_file_whose_writer_was_killed_between_pages_is_refused(tmp_path, name):
    for page in range(1, 5):
        path = write(tmp_path / f"{page}.tif", noise(), **LAYOUTS[name])
        patch(path, page_ends(path)[page], 0)
        assert_refused(path, "cut off: it holds .* expected 6|cannot be read")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"II",
        b"II*\0",
        b"MM\0*\0\0\0\x08",
        b"II*\0\0\0\0\0",
        b"these are words\n" * 40,
        bytes(4000),
    ],
)
def test_what_is_not_tiff_is_refused(tmp_path, data):
    path = tmp_path / "stack.tif"
    path.write_bytes(data)
    assert_refused(path)


def test_damaged_bytes_never_raise_anything_else(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "damaged.tif"
    outcomes = set()
    for options in (
        LAYOUTS["plain"],
        LAYOUTS["imagej deflate"],
        LAYOUTS["tiled deflate"],
        LAYOUTS["ome deflate"],
    ):
        data = write(tmp_path / "whole.tif", noise(), **options).read_bytes()
        for _ in range(60):
            broken = bytearray(data)
            for _ in range(rng.integers(1, 4)):
                broken[rng.integers(min(400, len(data)))] = rng.choice([0, 255, rng.integers(256)])
            path.unlink(missing_ok=True)
            path.write_bytes(broken)
            try:
                open_volume(path).slice_at(0)
                outcomes.add("read")
            except BadInputError:
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_a_damaged_slice_is_named_and_the_others_can_be_read(tmp_path):
    path = write(tmp_path / "stack.tif", noise(), compression="zlib", metadata=None)
    spoil_slice(path, 3)
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.slice_at(2), noise()[2])
    with pytest.raises(BadInputError, match=r"slice 3 of .* cannot be decoded"):
        volume.slice_at(3)


def test_read_image_reads_one_image_and_refuses_half_of_it(tmp_path):
    path = write(tmp_path / "flat.tif", noise()[0], rowsperstrip=4, compression="zlib")
    np.testing.assert_array_equal(read_image(path), noise()[0])
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInputError, match="cut off"):
        read_image(path)


def test_what_was_understood(tmp_path):
    facts = open_volume(write(tmp_path / "a.tif", noise(), tile=(16, 32), compression="zlib")).facts
    assert facts == {"format": "TIFF", "compression": "adobe_deflate", "chunks": "tiles of 16 x 32"}
    assert open_volume(write(tmp_path / "b.tif", noise(), **OME)).facts == {
        "format": "OME-TIFF",
        "compression": "none",
    }
    assert (
        open_volume(write(tmp_path / "c.tif", noise(), bigtiff=True)).facts["format"]
        == "TIFF, BigTIFF"
    )


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_few_slices_saved_without_a_word_are_slices(tmp_path, count, dtype):
    pixels = np.random.default_rng(0).integers(0, 200, (count, 40, 56)).astype(dtype)
    tifffile.imwrite(
        tmp_path / "few.tif", pixels, photometric="rgb", planarconfig="separate"
    )  # its default, warned of
    found = open_volume(tmp_path / "few.tif")
    np.testing.assert_array_equal(found.read((slice(None),) * 3), pixels)


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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("big", [False, True])
def test_written_and_read_again_nothing_is_lost(tmp_path, monkeypatch, dtype, depth, big):
    if big:
        monkeypatch.setattr(module, "BIG", 10)
    pixels, path = noise(dtype, (depth, 9, 21)), tmp_path / "out.tif"
    write_tiff(path, iter(pixels), pixels.shape, np.dtype(dtype), (29.5, 6.0, 4.2), "probabilities")
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(ALL), pixels)
    assert volume.dtype == dtype
    assert volume.voxel_nm == pytest.approx((29.5, 6.0, 4.2), rel=1e-6)
    assert volume.meaning == "probabilities"


@pytest.mark.parametrize("big", [False, True])
def test_bigtiff_is_written_when_needed(tmp_path, monkeypatch, big):
    if big:
        monkeypatch.setattr(module, "BIG", 10)
    save_volume(tmp_path / "out.tif", noise())
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert (file.is_bigtiff, file.is_ome, file.is_imagej) == (big, big, not big)


def test_an_unknown_voxel_size_stays_unknown(tmp_path):
    for dtype in ("uint8", "int16"):
        save_volume(tmp_path / "out.tif", noise(dtype))
        assert open_volume(tmp_path / "out.tif").voxel_nm is None


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float16"])
def test_types_that_no_viewer_reads_are_refused(tmp_path, dtype):
    with pytest.raises(BadInputError, match=f"voxels of type {dtype}"):
        save_volume(tmp_path / "out.tif", noise().astype(dtype))
    assert list(tmp_path.iterdir()) == []


def test_big_endian_arrays_are_written(tmp_path):
    save_volume(tmp_path / "out.tif", noise("uint16").astype(">u2"), (30.0, 5.0, 4.0))
    volume = open_volume(tmp_path / "out.tif")
    assert volume.dtype == np.uint16
    np.testing.assert_array_equal(volume.read(ALL), noise("uint16"))


def test_an_error_while_writing_leaves_no_file_and_keeps_the_old_one(tmp_path):
    def slices():
        yield noise()[0]
        raise RuntimeError("the network broke")

    for old in (None, b"precious"):
        if old:
            (tmp_path / "out.tif").write_bytes(old)
        with pytest.raises(RuntimeError, match="the network broke"):
            write_tiff(tmp_path / "out.tif", slices(), (6, 17, 13), np.dtype("uint8"))
        assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == (
            [("out.tif", old)] if old else []
        )


def test_too_few_slices_leave_no_file(tmp_path):
    with pytest.raises(RuntimeError):
        write_tiff(
            tmp_path / "out.tif", iter(noise(shape=(5, 17, 13))), (6, 17, 13), np.dtype("uint8")
        )
    assert list(tmp_path.iterdir()) == []
