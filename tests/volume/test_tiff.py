"""TIFF: every layout voxel for voxel, what is decoded and kept, and nothing lost by writing."""

import gc
import re
import struct

import numpy as np
import pytest
import tifffile

from evenslice.errors import BadInputError
from evenslice.volume import cache, tiff_writer
from evenslice.volume import tiff as module
from evenslice.volume.array import Volume, crop
from evenslice.volume.files import open_volume, save_volume
from evenslice.volume.tiff import read_image
from evenslice.volume.tiff_writer import write_tiff
from volume.voxels import ALL, assert_reads, assert_refused, noise

DTYPES = ("uint8", "uint16", "int16", "int32", "uint32", "float32", "float64", "int8")
IMAGEJ = {
    "imagej": True,
    "metadata": {"axes": "ZYX", "spacing": 0.03, "unit": "um"},
    "resolution": (250.0, 200.0),
}
SIZES = {"X": (4.0, "nm"), "Y": (0.005, "µm"), "Z": (300.0, "Å")}
OME = {
    "ome": True,
    "metadata": {"axes": "ZYX"}
    | {f"PhysicalSize{axis}": size for axis, (size, _) in SIZES.items()}
    | {f"PhysicalSize{axis}Unit": unit for axis, (_, unit) in SIZES.items()},
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
KINDS = [{"imagej": True}, {"ome": True}, {}]


def write(path, pixels, **options):
    tifffile.imwrite(path, pixels, photometric="minisblack", **options)
    return path


def replace(path, data):
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def spoil_slice(path, number):
    """Overwrite the start of what a slice holds."""
    with tifffile.TiffFile(path) as file:
        place = file.pages[number].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[place : place + 20] = bytes(20)
    replace(path, data)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, dtype) for name in LAYOUTS for dtype in ("uint8", "uint16")]
    + [(name, dtype) for name in ("plain", "big-endian", "deflate") for dtype in DTYPES[2:]]
    + [("plain", "bool")],
)
def test_every_layout_and_type_is_read_voxel_for_voxel(tmp_path, name, dtype):
    volume = open_volume(write(tmp_path / "stack.tif", noise(dtype), **LAYOUTS[name]))
    assert_reads(volume, noise(dtype))
    assert volume.meaning == "intensity"
    sized = name.startswith(("imagej", "ome"))
    assert volume.voxel_nm == (pytest.approx((30, 5, 4)) if sized else None)


@pytest.mark.parametrize("depth", range(2, 10))
def test_every_depth_is_read(tmp_path, depth):
    pixels = noise(shape=(depth, 3, 40))
    for name in ("plain", "bare", "imagej", "ome deflate"):
        assert_reads(open_volume(write(tmp_path / f"{name}.tif", pixels, **LAYOUTS[name])), pixels)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_one_page_per_slice_without_metadata_is_a_stack(tmp_path, options):
    with tifffile.TiffWriter(tmp_path / "pages.tif") as writer:
        for plane in noise("uint16"):
            writer.write(
                plane, photometric="minisblack", metadata=None, contiguous=False, **options
            )
    assert_reads(open_volume(tmp_path / "pages.tif"), noise("uint16"))


def test_an_imagej_file_with_one_page_for_many_slices_is_read(tmp_path):
    pixels, path = noise(), tmp_path / "virtual.tif"
    write(path, pixels[0], metadata=None, description="ImageJ=1.53\nimages=6\nslices=6\n")
    path.write_bytes(path.read_bytes() + pixels[1:].tobytes())
    assert_reads(open_volume(path), pixels)
    path.write_bytes(path.read_bytes()[:-1])
    assert_refused(path, "is cut off")


@pytest.mark.parametrize("axes", ["QYX", "IYX"])
def test_a_stack_may_call_its_slices_by_other_names(tmp_path, axes):
    path = write(tmp_path / "stack.tif", noise(), metadata={"axes": axes})
    assert_reads(open_volume(path), noise())


@pytest.mark.parametrize("kind", KINDS)
def test_axes_of_length_one_do_not_matter(tmp_path, kind):
    pixels = noise()[None, :, None]
    path = write(tmp_path / "stack.tif", pixels, metadata={"axes": "TZCYX"}, **kind)
    assert_reads(open_volume(path), noise())


FLAT = r"2-D image of shape \(17, 13\).*stack the slices into one file or give the folder"


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((3, 9, 8), {"imagej": True, "metadata": {"axes": "CYX", "mode": "color"}}, "3 channels"),
        *[((6, 17, 13), {"metadata": {"axes": a}}, "expected") for a in ("YXZ", "YZX", "XYZ")],
        *[((17, 13), kind, FLAT) for kind in (*KINDS, {"metadata": None}, {"compression": "lzw"})],
        *[
            (shape, {"photometric": "rgb"}, "colour image .*convert it to 8-bit grey")
            for shape in ((9, 8, 3), (5, 9, 8, 4))
        ],
    ],
)
def test_what_is_no_grey_stack_is_refused(tmp_path, shape, options, words):
    options = {"photometric": "minisblack"} | options
    tifffile.imwrite(tmp_path / "a.tif", noise(shape=shape), **options)
    assert_refused(tmp_path / "a.tif", words)


def test_complex_voxels_are_refused(tmp_path):
    path = write(tmp_path / "complex.tif", noise().astype(np.complex64))
    assert_refused(path, "voxels of type complex64")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, name):
    whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    data = write(whole, noise(), **LAYOUTS[name]).read_bytes()
    near = {0, 2, 4, 8, 16, *(len(data) - k for k in (1, 2, 3, 5, 9, 14, 30))}
    for length in sorted(near | {len(data) * k // 12 for k in range(12)}):
        replace(cut, data[:length])
        found, words = None, "expected"
        try:
            found = open_volume(cut).read(ALL)
        except BadInputError as error:
            words = str(error)
        assert "expected" in words
        assert "2-D" not in words
        if found is not None:  # nothing but padding, or what is said twice, is gone
            np.testing.assert_array_equal(found, noise())
            assert open_volume(cut).voxel_nm == open_volume(whole).voxel_nm


def page_ends(data: bytes) -> list[int]:
    """Where each page of a classic little-endian TIFF says where the next one is."""
    ends = []
    (where,) = struct.unpack_from("<I", data, 4)
    while where:
        (count,) = struct.unpack_from("<H", data, where)
        ends.append(where + 2 + 12 * count)
        (where,) = struct.unpack_from("<I", data, ends[-1])
    return ends


@pytest.mark.parametrize("name", ["deflate", "tiled", "ome", "ome deflate", "imagej deflate"])
def test_a_file_whose_writer_was_killed_between_pages_is_refused(tmp_path, name):
    path = tmp_path / "a.tif"
    data = write(path, noise(), **LAYOUTS[name]).read_bytes()
    for end in page_ends(data)[1:5]:
        replace(path, data[:end] + bytes(4) + data[end + 4 :])
        assert_refused(path, "cut off: it holds .* expected 6|cannot be read")


@pytest.mark.parametrize("parts", [False, True])
def test_a_damaged_slice_or_tile_is_named_and_the_others_can_be_read(tmp_path, monkeypatch, parts):
    if parts:
        monkeypatch.setattr(module, "LARGE_PAGE_BYTES", 100)
    pixels = noise(shape=(5, 37, 45))
    path = write(tmp_path / "a.tif", pixels, compression="zlib", tile=(16, 16), metadata=None)
    spoil_slice(path, 3)
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.slice_at(2), pixels[2])
    if parts:
        box = (slice(3, 4), slice(20, 30), slice(20, 30))
        np.testing.assert_array_equal(volume.read(box), pixels[box])
    with pytest.raises(BadInputError, match=r"slice 3 of .* cannot be decoded"):
        volume.slice_at(3)


def test_read_image_reads_one_image_and_refuses_half_of_it(tmp_path):
    path = write(tmp_path / "flat.tif", noise()[0], rowsperstrip=4, compression="zlib")
    np.testing.assert_array_equal(read_image(path), noise()[0])
    data = path.read_bytes()
    replace(path, data[: len(data) // 2])
    with pytest.raises(BadInputError, match="cut off"):
        read_image(path)


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        (
            {"tile": (16, 32), "compression": "zlib"},
            {"format": "TIFF", "compression": "adobe_deflate", "chunks": "tiles of 16 x 32"},
        ),
        (OME, {"format": "OME-TIFF", "compression": "none"}),
        ({"bigtiff": True}, {"format": "TIFF, BigTIFF", "compression": "none"}),
    ],
)
def test_what_kind_of_file_it_is(tmp_path, options, facts):
    assert open_volume(write(tmp_path / "a.tif", noise(), **options)).facts == facts


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
    volume.read((slice(1, 4), *ALL[1:]))[...] = 0  # a copy
    assert decoded == [2, 3, 1]
    np.testing.assert_array_equal(volume.read(ALL), noise())


@pytest.mark.parametrize(("room", "order"), [(2 * 17 * 13, [0, 1, 2, 1]), (1, [0, 1, 0, 2, 0, 1])])
def test_the_cache_forgets_the_slices_used_longest_ago(tmp_path, decoded, monkeypatch, room, order):
    monkeypatch.setattr(cache, "CACHE_BYTES", room)
    volume = open_volume(write(tmp_path / "stack.tif", noise(), compression="zlib"))
    for z in (0, 1, 0, 2, 0, 1):
        np.testing.assert_array_equal(volume.slice_at(z), noise()[z])
        kept = [plane.nbytes for plane in volume.pixels._cache._kept.values()]
        assert len(kept) == 1 or sum(kept) <= room  # one larger than the room is still read
    assert decoded == order


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_files_are_closed_with_their_volume(tmp_path):
    for compression in ("zlib", None):
        path = write(tmp_path / "stack.tif", noise(), compression=compression)
        open_volume(path).slice_at(0)
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
    assert_reads(volume, whole)
    box = (slice(4, 5), slice(15, 33), slice(31, 45))
    np.testing.assert_array_equal(volume.read(box), whole[box])


def test_only_the_tiles_that_touch_a_box_are_decoded_and_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGE_PAGE_BYTES", 100)
    volume = open_volume(write(tmp_path / "stack.tif", noise(shape=(5, 37, 45)), **LARGE["tiles"]))
    parts, real = [], volume.pixels._cache._load
    monkeypatch.setattr(volume.pixels._cache, "_load", lambda key: parts.append(key) or real(key))
    for z in range(3):
        volume.read((slice(z, z + 3), slice(17, 20), slice(10, 20)))
    assert parts == [(z, tile) for z in range(5) for tile in (3, 4)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", [1, 5])
@pytest.mark.parametrize("big", [False, True])
def test_written_and_read_again_nothing_is_lost(tmp_path, monkeypatch, dtype, depth, big):
    if big:
        monkeypatch.setattr(tiff_writer, "BIG", 10)
    pixels, path = noise(dtype, (depth, 9, 21)), tmp_path / "out.tif"
    write_tiff(path, iter(pixels), pixels.shape, np.dtype(dtype), (29.5, 6.0, 4.2), "probabilities")
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(ALL), pixels)
    assert volume.dtype == dtype
    assert volume.voxel_nm == pytest.approx((29.5, 6.0, 4.2), rel=1e-6)
    assert volume.meaning == "probabilities"
    with tifffile.TiffFile(path) as file:
        imagej = not big and dtype in ("uint8", "uint16", "float32")
        assert (file.is_bigtiff, file.is_ome, file.is_imagej) == (big, not imagej, imagej)


@pytest.mark.parametrize(
    ("dtype", "meaning", "largest", "shown"),
    [("uint8", "labels", 1, 1), ("uint16", "labels", 300, 300), ("uint8", "labels", 0, 1)]
    + [("uint8", meaning, 9, None) for meaning in ("intensity", "probabilities")],
)
def test_labels_are_shown_from_0_to_the_largest(tmp_path, dtype, meaning, largest, shown):
    pixels = np.zeros((3, 9, 21), dtype)
    pixels[1, 2, 3] = largest
    save_volume(tmp_path / "a.tif", Volume(pixels, meaning=meaning))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        found = file.imagej_metadata
        np.testing.assert_array_equal(file.asarray(), pixels)
    assert (found.get("min"), found.get("max")) == ((0, shown) if shown else (None, None))


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_a_part_says_where_it_lies_in_the_whole(tmp_path, dtype):
    part = crop(Volume(noise(dtype), (50.0, 4.0, 5.0)), (slice(2, 6), slice(3, 9), slice(1, 13)))
    save_volume(tmp_path / "a.tif", part)
    assert open_volume(tmp_path / "a.tif").origin == (2, 3, 1)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        if dtype == "uint8":  # the pixel that has the coordinates 0 in Fiji
            assert [file.imagej_metadata[f"{axis}origin"] for axis in "zyx"] == [-2, -3, -1]
        else:
            places = re.findall(
                r'PositionY="12.0" PositionYUnit="nm" PositionZ="(.*?)"', file.ome_metadata
            )
            assert places == ["100.0", "150.0", "200.0", "250.0"]


def test_an_unknown_voxel_size_stays_unknown(tmp_path):
    for dtype in ("uint8", "int16"):
        save_volume(tmp_path / "out.tif", noise(dtype))
        assert open_volume(tmp_path / "out.tif").voxel_nm is None


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float16"])
def test_types_that_no_viewer_reads_are_refused(tmp_path, dtype):
    with pytest.raises(BadInputError, match=f"voxels of type {dtype}"):
        save_volume(tmp_path / "out.tif", noise(dtype))
    assert list(tmp_path.iterdir()) == []


def test_big_endian_arrays_are_written(tmp_path):
    save_volume(tmp_path / "out.tif", noise(">u2"), (30.0, 5.0, 4.0))
    assert_reads(open_volume(tmp_path / "out.tif"), noise("uint16"))


@pytest.mark.parametrize("old", [{}, {"out.tif": b"precious"}])
@pytest.mark.parametrize("error", [RuntimeError("the network broke"), None])
def test_an_error_or_too_few_slices_leave_no_file_and_keep_the_old_one(tmp_path, old, error):
    def slices():
        yield noise()[0]
        if error:
            raise error

    for name, data in old.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(RuntimeError):
        write_tiff(tmp_path / "out.tif", slices(), (6, 17, 13), np.dtype("uint8"))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == old
