import struct

import numpy as np
import pytest
import tifffile

from evenslice.errors import BadInputError
from evenslice.volume.files import open_volume
from evenslice.volume.tiff import read_image

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
