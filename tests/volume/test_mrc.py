"""MRC: every mode and byte order, the voxel size, and headers that do not fit."""

import struct
import warnings

import mrcfile
import numpy as np
import pytest

from evenslice.volume.files import open_volume
from volume.voxels import ALL, assert_reads, assert_refused, noise


def write(path, data, angstrom=None, **header):
    with warnings.catch_warnings(), mrcfile.new(path, overwrite=True) as file:
        warnings.simplefilter("ignore")
        file.set_data(data)
        if angstrom:
            file.voxel_size = angstrom
        for name, value in header.items():
            file.header[name] = value
    return path


def patch(path, place, *numbers):
    """Overwrite whole numbers of the header."""
    data = bytearray(path.read_bytes())
    struct.pack_into(f"<{len(numbers)}i", data, place, *numbers)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("dtype", "mode", "ending"),
    [
        ("int8", 0, ".mrc"),
        ("int16", 1, ".REC"),
        ("float32", 2, ".map"),
        ("uint16", 6, ".st"),
        ("float16", 12, ".mrcs"),
    ],
)
def test_every_mode_and_ending(tmp_path, dtype, mode, ending):
    volume = open_volume(write(tmp_path / f"a{ending}", noise(dtype)))
    assert volume.facts["format"] == f"MRC mode {mode}"
    assert_reads(volume, noise(dtype).astype("float32" if dtype == "float16" else dtype))
    assert volume.voxel_nm is None


def test_other_byte_order_and_an_extended_header(tmp_path):
    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as file:
        file.set_data(noise(">i2"))
        file.set_extended_header(np.arange(40, dtype="u1"))
        file.voxel_size = (30.0, 40.0, 500.0)
    assert path.read_bytes()[212:214] == b"\x11\x11"  # the stamp of big-endian files
    volume = open_volume(path)
    assert_reads(volume, noise("int16"))
    assert volume.voxel_nm == pytest.approx((50, 4, 3))
    assert open_volume(write(tmp_path / "b.mrc", noise("int8"), 10.0, mx=0)).voxel_nm is None


@pytest.mark.parametrize(("flags", "dtype"), [(0, "uint8"), (1, "int8"), (None, "int8")])
def test_bytes_of_imod(tmp_path, flags, dtype):
    values = np.arange(256, dtype="u1").reshape(4, 8, 8)
    path = write(tmp_path / "a.mrc", values.view("i1"))
    if flags is not None:
        patch(path, 152, 1146047817, flags)
    volume = open_volume(path)
    assert volume.dtype == dtype
    np.testing.assert_array_equal(volume.read(ALL), values.view(dtype))


@pytest.mark.parametrize(("mode", "dtype"), [(4, "complex64"), (3, "int8"), (101, "int8")])
def test_other_modes_are_refused(tmp_path, mode, dtype):
    path = patch(write(tmp_path / "a.mrc", noise(dtype)), 12, mode)
    assert_refused(path, f"MRC mode {mode}, expected 0, 1, 2, 6 or 12|cannot be read as MRC")


def test_another_order_of_axes_is_refused(tmp_path):
    path = write(tmp_path / "a.mrc", noise("int8"), mapc=3, maps=1)
    assert_refused(path, r"axes in the order \(3, 2, 1\)")


@pytest.mark.parametrize("sizes", [(2_000_000,) * 3, (13, 17, 7), (13, 17, -6), (0, 17, 6)])
def test_a_header_that_does_not_fit_is_refused(tmp_path, sizes):
    assert_refused(patch(write(tmp_path / "a.mrc", noise("int8")), 0, *sizes), "cut off or damaged")


def test_what_is_no_whole_mrc_is_refused(tmp_path):
    whole = write(tmp_path / "a.mrc", noise("int8")).read_bytes()
    for size in (100, 1024, len(whole) - 1):
        (tmp_path / "b.mrc").write_bytes(whole[:size])
        assert_refused(tmp_path / "b.mrc", "cut off or damaged|cannot be read as MRC")
    (tmp_path / "d.mrc.gz").write_bytes(whole)
    assert_refused(tmp_path / "d.mrc.gz", r"packed \(.gz\).*decompress it first")
