import numpy as np
import pytest

from evenslice.errors import BadInputError
from evenslice.volume.files import open_volume

ALL = (slice(None),) * 3
SIZES = "! PyHST_SLAVE VOLUME INFO FILE\nNUM_X =  14\nNUM_Y =  9\nNUM_Z =  5\n"


def noise(dtype="uint8"):
    return np.random.default_rng(0).integers(0, 100, (5, 9, 14)).astype(dtype)


def write(tmp_path, data, info=SIZES):
    (tmp_path / "v.raw").write_bytes(data.tobytes())
    (tmp_path / "v.raw.info").write_text(info)
    return tmp_path / "v.raw"


@pytest.mark.parametrize("dtype", ["uint8", "<u2", "<f4"])
def test_the_length_tells_the_type(tmp_path, dtype):
    volume = open_volume(
        write(tmp_path, noise(dtype), SIZES + "voxelSize =  1.4\nBYTEORDER = LOWBYTEFIRST\n")
    )
    assert volume.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume.read(ALL), noise(dtype))
    assert volume.voxel_nm == pytest.approx((1400, 1400, 1400))


@pytest.mark.parametrize(
    ("line", "dtype"),
    [
        ("DATA_TYPE = unsigned char", "u1"),
        ("Data Type = 16-bit unsigned", "u2"),
        ("DATATYPE=short", "i2"),
        ("data_type = Float", "f4"),
        ("data_type = int32", "i4"),
        ("type = double", "f8"),
    ],
)
@pytest.mark.parametrize(("order", "sign"), [("LOWBYTEFIRST", "<"), ("HIGHBYTEFIRST", ">")])
def test_a_stated_type_and_byte_order(tmp_path, line, dtype, order, sign):
    volume = open_volume(
        write(tmp_path, noise(sign + dtype), f"{SIZES}{line}\nBYTEORDER = {order}\n")
    )
    assert volume.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume.read(ALL), noise(dtype))


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("voxelSize = 0.5 nm", (0.5, 0.5, 0.5)),
        ("voxel_size = 1, 2, 3", (3000, 2000, 1000)),  # stated x, y, z
        ("voxelSize = 0", None),
        ("voxelSize = 1 cubit", None),
        ("", None),
    ],
)
def test_the_voxel_size(tmp_path, line, size):
    found = open_volume(write(tmp_path, noise(), SIZES + line)).voxel_nm
    assert found == (None if size is None else pytest.approx(size))


def test_without_its_text_file_it_is_refused(tmp_path):
    (tmp_path / "v.raw").write_bytes(b"x")
    with pytest.raises(BadInputError, match=r"no v.raw.info beside it.*NUM_X, NUM_Y and NUM_Z"):
        open_volume(tmp_path / "v.raw")


@pytest.mark.parametrize(
    ("data", "info", "words"),
    [
        (noise(), "NUM_X = 14\nNUM_Y = 9\n", "does not state whole numbers"),
        (noise(), SIZES.replace("14", "wide"), "does not state whole numbers"),
        (noise(), SIZES.replace("14", "0"), "states 5 x 9 x 0 voxels"),
        (noise()[:4], SIZES, "has 504 bytes but v.raw.info states 5 x 9 x 14 voxels"),
        (noise("u2").ravel()[:-1], SIZES, "has 1258 bytes"),
        (noise("u1"), SIZES + "DATA_TYPE = uint16", "expected 1260 bytes of uint16"),
        (noise("u2"), SIZES + "DATA_TYPE = uint8", "expected 630 bytes of uint8"),
        (
            noise(),
            SIZES + "DATA_TYPE = complex",
            "states the data type 'complex', expected one of uint8",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(tmp_path, data, info, words):
    with pytest.raises(BadInputError, match=words):
        open_volume(write(tmp_path, data, info))
