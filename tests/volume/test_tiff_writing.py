"""Writing TIFF: nothing is lost, nothing half-written is left."""

import numpy as np
import pytest
import tifffile
from test_tiff import ALL, DTYPES, noise

from evenslice.errors import BadInputError
from evenslice.volume import tiff as module
from evenslice.volume.files import open_volume, save_volume
from evenslice.volume.tiff import write_tiff


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
