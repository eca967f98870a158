import numpy as np
import pytest
import tifffile

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume, crop
from evenslice.volume.files import check_volume_name, open_volume, save_volume

ALL = (slice(None),) * 3


def noise(dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, (4, 9, 14)).astype(dtype)


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.TIF"])
def test_saved_and_opened_a_volume_is_the_same(tmp_path, name):
    save_volume(tmp_path / name, Volume(noise("uint16"), (30.0, 6.0, 5.0), "x", "labels"))
    volume = open_volume(str(tmp_path / name))
    np.testing.assert_array_equal(volume.read(ALL), noise("uint16"))
    assert volume.voxel_nm == pytest.approx((30, 6, 5))
    assert volume.meaning == "labels"
    assert volume.source == str(tmp_path / name)
    assert [f.name for f in tmp_path.iterdir()] == [name]


def test_a_mask_is_saved_as_0_and_1(tmp_path):
    save_volume(tmp_path / "mask.tif", noise() > 50)
    volume = open_volume(tmp_path / "mask.tif")
    assert volume.dtype == np.uint8
    np.testing.assert_array_equal(volume.read(ALL), noise() > 50)


def test_the_voxel_size_given_wins(tmp_path):
    save_volume(tmp_path / "a.tif", Volume(noise(), (30.0, 6.0, 6.0)), (50.0, 4.0, 4.0))
    assert open_volume(tmp_path / "a.tif").voxel_nm == pytest.approx((50, 4, 4))
    with pytest.raises(BadInputError, match="voxel size"):
        save_volume(tmp_path / "b.tif", noise(), (0.0, 1.0, 1.0))


def test_a_volume_can_be_saved_over_the_file_it_is_read_from(tmp_path):
    for options in ({}, {"compression": "zlib"}):
        tifffile.imwrite(tmp_path / "a.tif", noise(), photometric="minisblack", **options)
        volume = crop(open_volume(tmp_path / "a.tif"), (slice(1, 3), *ALL[1:]))
        save_volume(tmp_path / "a.tif", volume)
        np.testing.assert_array_equal(open_volume(tmp_path / "a.tif").read(ALL), noise()[1:3])


def test_a_folder_named_like_a_file_is_a_folder_of_images(tmp_path):
    folder = tmp_path / "stack.tif"
    folder.mkdir()
    tifffile.imwrite(folder / "0.tif", noise()[0])
    assert open_volume(folder).shape == (1, 9, 14)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(
        BadInputError, match="does not exist, expected a TIFF stack, a folder of images, HDF5"
    ):
        open_volume(tmp_path / "nothing.tif")


@pytest.mark.parametrize("name", ["a.txt", "a", "a.png"])
def test_an_unknown_ending_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(BadInputError, match="unknown ending"):
        open_volume(tmp_path / name)
    with pytest.raises(BadInputError, match="unknown ending"):
        check_volume_name(tmp_path / name)
    with pytest.raises(BadInputError, match="unknown ending"):
        save_volume(tmp_path / name, noise())


def test_what_is_not_a_volume_is_not_saved(tmp_path):
    with pytest.raises(BadInputError, match="2-D image"):
        save_volume(tmp_path / "a.tif", noise()[0])
    assert list(tmp_path.iterdir()) == []


def test_saving_into_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="does not exist, expected one to write to"):
        save_volume(tmp_path / "none" / "a.tif", noise())
    (tmp_path / "b.tif").mkdir()
    with pytest.raises(BadInputError, match="is a folder"):
        save_volume(tmp_path / "b.tif", noise())


@pytest.mark.parametrize("name", ["a.nii", "a.nrrd", "a.dm4", "a.npy", "a.vol", "a.czi"])
def test_an_unknown_ending_lists_what_is_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(
        BadInputError,
        match=r"unknown ending '\.\w+', expected a TIFF stack, .* HDF5 .* Zarr, MRC or raw",
    ):
        open_volume(tmp_path / name)
