"""Raw voxels with a text file beside them; what else people have is in tests/inputs."""

import pytest

from evenslice.volume.files import open_volume
from volume.voxels import assert_reads, assert_refused, noise

SIZES = "! PyHST_SLAVE VOLUME INFO FILE\nNUM_X =  13\nNUM_Y =  17\nNUM_Z =  6\n"


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
    (tmp_path / "v.raw").write_bytes(noise(sign + dtype).tobytes())
    (tmp_path / "v.raw.info").write_text(f"{SIZES}{line}\nBYTEORDER = {order}\n")
    assert_reads(open_volume(tmp_path / "v.raw"), noise(dtype))


def test_without_its_text_file_or_a_size_it_is_refused(tmp_path):
    (tmp_path / "v.raw").write_bytes(b"x")
    assert_refused(tmp_path / "v.raw", r"no v.raw.info beside it.*NUM_X, NUM_Y and NUM_Z")
    (tmp_path / "v.raw.info").write_text(SIZES.replace("13", "0"))
    assert_refused(tmp_path / "v.raw", "states 6 x 17 x 0 voxels")
