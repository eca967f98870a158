"""Raw voxels with a text file beside them, as the tomography release of GF-PA66 has them."""

import pytest

from evenslice.volume.files import open_volume
from volume.voxels import assert_reads, assert_refused, noise

SIZES = "! PyHST_SLAVE VOLUME INFO FILE\nNUM_X =  13\nNUM_Y =  17\nNUM_Z =  6\n"


def write(tmp_path, data, info=SIZES):
    (tmp_path / "v.raw").write_bytes(data.tobytes())
    (tmp_path / "v.raw.info").write_text(info)
    return tmp_path / "v.raw"


@pytest.mark.parametrize("dtype", ["uint8", "<u2", "<f4"])
def test_the_length_gives_the_type(tmp_path, dtype):
    info = SIZES + "voxelSize =  1.4\nBYTEORDER = LOWBYTEFIRST\n"
    volume = open_volume(write(tmp_path, noise(dtype), info))
    assert_reads(volume, noise(dtype))
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
    info = f"{SIZES}{line}\nBYTEORDER = {order}\n"
    assert_reads(open_volume(write(tmp_path, noise(sign + dtype), info)), noise(dtype))


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
    assert_refused(tmp_path / "v.raw", r"no v.raw.info beside it.*NUM_X, NUM_Y and NUM_Z")


@pytest.mark.parametrize(
    ("data", "info", "words"),
    [
        (noise(), SIZES.replace("13", "0"), "states 6 x 17 x 0 voxels"),
        (noise()[:4], SIZES, "has 884 bytes but v.raw.info states 6 x 17 x 13 voxels"),
        (noise("u2").ravel()[:-1], SIZES, "has 2650 bytes"),
        (noise(), SIZES + "DATA_TYPE = uint16", "expected 2652 bytes of uint16"),
        (noise("u2"), SIZES + "DATA_TYPE = uint8", "expected 1326 bytes of uint8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(tmp_path, data, info, words):
    assert_refused(write(tmp_path, data, info), words)
