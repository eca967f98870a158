"""MRC: every ending, and headers that do not fit; what else people have is in tests/inputs."""

import struct

import mrcfile
import pytest

from evenslice.volume.files import open_volume
from volume.voxels import assert_reads, assert_refused, noise


def write(path, data):
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(data)
    return path


def patch(path, place, *numbers):
    """Overwrite whole numbers of the header."""
    data = bytearray(path.read_bytes())
    struct.pack_into(f"<{len(numbers)}i", data, place, *numbers)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("ending", [".mrc", ".REC", ".map", ".st", ".mrcs"])
def test_every_ending(tmp_path, ending):
    volume = open_volume(write(tmp_path / f"a{ending}", noise("int16")))
    assert volume.facts["format"] == "MRC mode 1"
    assert_reads(volume, noise("int16"))
    assert volume.voxel_nm is None


@pytest.mark.parametrize("sizes", [(2_000_000,) * 3, (13, 17, 7), (13, 17, -6), (0, 17, 6)])
def test_a_header_that_does_not_fit_is_refused(tmp_path, sizes):
    path = patch(write(tmp_path / "a.mrc", noise("int8")), 0, *sizes)
    assert_refused(path, "cut off or damaged|sizes that cannot be")


def test_what_is_no_whole_mrc_is_refused(tmp_path):
    whole = write(tmp_path / "a.mrc", noise("int8")).read_bytes()
    for size in (100, 1024, len(whole) - 1):
        (tmp_path / "b.mrc").write_bytes(whole[:size])
        assert_refused(tmp_path / "b.mrc", "cut off or damaged")
    (tmp_path / "c.mrc").write_bytes(b"some text that is no header at all " * 100)
    assert_refused(tmp_path / "c.mrc", "cannot be read as MRC")
    (tmp_path / "d.mrc.gz").write_bytes(whole)
    assert_refused(tmp_path / "d.mrc.gz", r"packed \(.gz\).*decompress it first")
