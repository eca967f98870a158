import struct
import warnings

import mrcfile
import numpy as np
import pytest

from evenslice.errors import BadInputError
from evenslice.volume.files import open_volume

ALL = (slice(None),) * 3


def noise(dtype="int8"):
    values = np.random.default_rng(0).integers(0, 100, (5, 9, 14)) - (
        0 if dtype.startswith("u") else 50
    )
    return values.astype(dtype)


def write(path, data, angstrom=None, **header):
    with warnings.catch_warnings(), mrcfile.new(path, overwrite=True) as file:
        warnings.simplefilter("ignore")
        file.set_data(data)
        if angstrom:
            file.voxel_size = angstrom
        for name, value in header.items():
            file.header[name] = value
    return path


@pytest.mark.parametrize("ending", [".mrc", ".REC", ".map", ".st", ".mrcs"])
@pytest.mark.parametrize(
    ("dtype", "mode"), [("int8", 0), ("int16", 1), ("float32", 2), ("uint16", 6), ("float16", 12)]
)
def test_every_mode(tmp_path, dtype, mode, ending):
    volume = open_volume(write(tmp_path / f"a{ending}", noise(dtype)))
    assert volume.facts["format"] == f"MRC mode {mode}"
    assert volume.dtype == ("float32" if dtype == "float16" else dtype)
    np.testing.assert_array_equal(volume.read(ALL), noise(dtype))
    np.testing.assert_array_equal(volume.slice_at(3), noise(dtype)[3])


def test_other_byte_order_and_an_extended_header(tmp_path):
    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as file:
        file.set_data(noise("int16").astype(">i2"))
        file.set_extended_header(np.arange(40, dtype="u1"))
        file.voxel_size = (30.0, 40.0, 500.0)
    assert path.read_bytes()[212:214] == b"\x11\x11"  # the stamp of big-endian files
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(ALL), noise("int16"))
    assert volume.dtype.isnative
    assert volume.voxel_nm == pytest.approx((50, 4, 3))


@pytest.mark.parametrize(("flags", "dtype"), [(0, "uint8"), (1, "int8"), (None, "int8")])
def test_bytes_of_imod(tmp_path, flags, dtype):
    path = write(tmp_path / "a.mrc", np.arange(256, dtype="u1").reshape(4, 8, 8).view("i1"))
    if flags is not None:
        data = bytearray(path.read_bytes())
        data[152:160] = struct.pack("<ii", 1146047817, flags)
        path.write_bytes(data)
    volume = open_volume(path)
    assert volume.dtype == dtype
    np.testing.assert_array_equal(volume.read(ALL).ravel(), np.arange(256, dtype="u1").view(dtype))


def test_an_unset_voxel_size_is_unknown(tmp_path):
    assert open_volume(write(tmp_path / "a.mrc", noise())).voxel_nm is None
    path = write(tmp_path / "b.mrc", noise(), 10.0, mx=0)
    assert open_volume(path).voxel_nm is None


@pytest.mark.parametrize(("mode", "data"), [(4, "complex64"), (3, None), (101, None)])
def test_other_modes_are_refused(tmp_path, mode, data):
    path = write(tmp_path / "a.mrc", noise() if data is None else noise().astype(data))
    raw = bytearray(path.read_bytes())
    raw[12:16] = struct.pack("<i", mode)
    path.write_bytes(raw)
    with pytest.raises(
        BadInputError, match=f"MRC mode {mode}, expected 0, 1, 2, 6 or 12|cannot be read as MRC"
    ):
        open_volume(path)


def test_another_order_of_axes_is_refused(tmp_path):
    with pytest.raises(BadInputError, match=r"axes in the order \(3, 2, 1\)"):
        open_volume(write(tmp_path / "a.mrc", noise(), mapc=3, maps=1))


@pytest.mark.parametrize(
    "sizes", [(2_000_000, 2_000_000, 2_000_000), (14, 9, 6), (14, 9, -5), (0, 9, 5)]
)
def test_a_header_that_does_not_fit_is_refused(tmp_path, sizes):
    path = write(tmp_path / "a.mrc", noise())
    data = bytearray(path.read_bytes())
    data[:12] = struct.pack("<iii", *sizes)
    path.write_bytes(data)
    with pytest.raises(BadInputError, match="cut off or damaged"):
        open_volume(path)


def test_what_is_no_mrc_is_refused(tmp_path):
    whole = write(tmp_path / "a.mrc", noise()).read_bytes()
    for size in (0, 100, 1000, 1024, len(whole) - 1):
        (tmp_path / "b.mrc").write_bytes(whole[:size])
        with pytest.raises(BadInputError, match=r"cut off or damaged|cannot be read as MRC"):
            open_volume(tmp_path / "b.mrc")
    (tmp_path / "c.mrc").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(BadInputError, match="cannot be read as MRC"):
        open_volume(tmp_path / "c.mrc")
    (tmp_path / "d.mrc.gz").write_bytes(whole)
    with pytest.raises(BadInputError, match=r"packed \(.gz\).*decompress it first"):
        open_volume(tmp_path / "d.mrc.gz")
