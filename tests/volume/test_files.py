"""Opening and saving by name: the ending chooses the format, and nothing half-written is left."""

import numpy as np
import pytest
import tifffile

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume, crop
from evenslice.volume.files import check_volume_name, open_volume, save_volume
from volume.voxels import ALL, assert_reads, noise


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.TIF"])
def test_saved_and_opened_a_volume_is_the_same(tmp_path, name):
    save_volume(tmp_path / name, Volume(noise("uint16"), (30.0, 6.0, 5.0), "x", "labels"))
    volume = open_volume(str(tmp_path / name))
    assert_reads(volume, noise("uint16"))
    assert volume.voxel_nm == pytest.approx((30, 6, 5))
    assert volume.meaning == "labels"
    assert volume.source == str(tmp_path / name)
    assert [f.name for f in tmp_path.iterdir()] == [name]


def test_a_mask_is_saved_as_0_and_1(tmp_path):
    save_volume(tmp_path / "mask.tif", noise("bool"))
    assert_reads(open_volume(tmp_path / "mask.tif"), noise("bool").astype(np.uint8))


def test_the_voxel_size_given_wins(tmp_path):
    save_volume(tmp_path / "a.tif", Volume(noise(), (30.0, 6.0, 6.0)), (50.0, 4.0, 4.0))
    assert open_volume(tmp_path / "a.tif").voxel_nm == pytest.approx((50, 4, 4))
    with pytest.raises(BadInputError, match="voxel size"):
        save_volume(tmp_path / "b.tif", noise(), (0.0, 1.0, 1.0))


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_a_volume_can_be_saved_over_the_file_it_is_read_from(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", noise(), photometric="minisblack", **options)
    save_volume(tmp_path / "a.tif", crop(open_volume(tmp_path / "a.tif"), (slice(1, 3), *ALL[1:])))
    assert_reads(open_volume(tmp_path / "a.tif"), noise()[1:3])


def test_a_folder_named_like_a_file_is_a_folder_of_images(tmp_path):
    folder = tmp_path / "stack.tif"
    folder.mkdir()
    tifffile.imwrite(folder / "0.tif", noise()[0])
    assert open_volume(folder).shape == (1, 17, 13)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="does not exist, expected a TIFF stack, a folder of"):
        open_volume(tmp_path / "nothing.tif")


@pytest.mark.parametrize("name", ["a.txt", "a", "a.png", "a.dm4", "a.npy"])
def test_an_unknown_ending_is_refused_with_what_is_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(BadInputError, match=r"unknown ending '.*', .* TIFF .* HDF5 .* Zarr, N5"):
        open_volume(tmp_path / name)
    with pytest.raises(BadInputError, match="unknown ending"):
        check_volume_name(tmp_path / name)
    with pytest.raises(BadInputError, match="unknown ending"):
        save_volume(tmp_path / name, noise())


def test_what_cannot_be_saved_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="2-D image"):
        save_volume(tmp_path / "a.tif", noise()[0])
    with pytest.raises(BadInputError, match="does not exist, expected one to write to"):
        save_volume(tmp_path / "none" / "a.tif", noise())
    assert list(tmp_path.iterdir()) == []
