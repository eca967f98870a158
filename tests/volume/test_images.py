"""Folders of images: natural order, the voxels of every kind, and each image decoded once."""

import gc
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from evenslice.errors import BadInputError
from evenslice.volume.files import open_volume
from evenslice.volume.images import natural_key
from volume.voxels import ALL, assert_reads, assert_refused, noise


def save(path: Path, pixels: np.ndarray) -> Path:
    if path.suffix in (".tif", ".tiff"):
        kind = "rgb" if pixels.shape[-1] in (3, 4) else "minisblack"
        tifffile.imwrite(path, pixels, photometric=kind)
    else:
        Image.fromarray(pixels).save(path)
    return path


def fill(folder: Path, pixels: np.ndarray, suffix: str = ".png") -> Path:
    for z, plane in enumerate(pixels):
        save(folder / f"slice{z}{suffix}", plane)
    return folder


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [(suffix, "uint8") for suffix in (".png", ".tif", ".tiff", ".bmp", ".pgm", ".PNG")]
    + [(".png", "uint16"), (".tif", "uint16"), (".tif", "int16"), (".tif", "float32")],
)
def test_a_folder_is_read_voxel_for_voxel(tmp_path, suffix, dtype):
    pixels = noise(dtype, (12, 9, 14))  # 10 comes after 2
    volume = open_volume(fill(tmp_path, pixels, suffix))
    assert_reads(volume, pixels)
    assert volume.voxel_nm is None


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_images_are_read_grey(tmp_path, suffix):
    smooth = np.add.outer(np.arange(32), np.arange(40)).astype(np.uint8)
    volume = open_volume(fill(tmp_path, np.stack([smooth, smooth]), suffix))
    assert volume.shape == (2, 32, 40)
    np.testing.assert_allclose(volume.slice_at(1).astype(float), smooth, atol=6)


def test_numbers_are_compared_as_numbers_wherever_they_stand():
    names = ["1²3", "9", "10", "a", "A1b8", "a1b9", "a1b10", "a02", "b1", "x²"]
    assert sorted(set(names), key=natural_key) == names


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.lists(st.text(max_size=6), max_size=4))
def test_any_names_can_be_sorted(names):
    keys = sorted(natural_key(name) for name in names)
    assert [natural_key(name) for name in sorted(names, key=natural_key)] == keys


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 10**6), unique=True, max_size=8), st.text("ab_-", max_size=3))
def test_numbered_names_are_sorted_by_their_numbers(numbers, prefix):
    names = sorted((f"{prefix}{n}.png" for n in numbers), key=natural_key)
    assert names == [f"{prefix}{n}.png" for n in sorted(numbers)]


def test_names_that_differ_only_in_zeros_have_one_order(tmp_path, monkeypatch):
    for name, plane in zip(("s01", "s1", "s001"), noise(), strict=False):
        save(tmp_path / f"{name}.png", plane)
    files = list(tmp_path.iterdir())
    for order in (sorted(files), sorted(files, reverse=True)):
        monkeypatch.setattr(Path, "iterdir", lambda self, order=order: iter(order))
        np.testing.assert_array_equal(open_volume(tmp_path).read(ALL), noise()[[2, 0, 1]])


def test_hidden_files_sub_folders_and_other_files_are_left_out(tmp_path):
    for name in ("._slice0.png", "notes.txt", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "more.png").mkdir()
    assert_refused(tmp_path, "holds no images")
    assert_reads(open_volume(fill(tmp_path, noise())), noise())


def test_opening_reads_only_the_first_image(tmp_path):
    fill(tmp_path, noise())
    (tmp_path / "slice2.png").write_bytes(b"broken")
    volume = open_volume(tmp_path)
    np.testing.assert_array_equal(volume.read((slice(0, 2), *ALL[1:])), noise()[:2])
    with pytest.raises(BadInputError, match=r"slice2.png cannot be read as an image"):
        volume.slice_at(2)


def test_mixed_kinds_are_refused(tmp_path):
    fill(tmp_path, noise())
    save(tmp_path / "slice9.tif", noise()[0])
    assert_refused(tmp_path, r"several kinds \(\.png, \.tif\)")


@pytest.mark.parametrize("other", [noise()[0][:, :-1], noise()[0][:-1], noise("uint16")[0]])
def test_an_image_unlike_the_first_is_named(tmp_path, other):
    fill(tmp_path, noise())
    save(tmp_path / "slice1.png", other)
    assert_refused(tmp_path, r"slice1.png is .* like slice0.png")


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colour_is_grey_where_the_channels_are_equal_and_refused_elsewhere(
    tmp_path, suffix, channels
):
    pixels = np.repeat(noise()[..., None], channels, -1)
    pixels[..., 3:] = 255
    assert_reads(open_volume(fill(tmp_path, pixels, suffix)), noise())
    pixels[0, 4, 4, 2] ^= 1
    assert_refused(fill(tmp_path, pixels, suffix), r"is a colour image .*convert it to 8-bit grey")


def test_transparency_of_a_grey_image_is_dropped(tmp_path):
    both = np.stack([noise()[0], 255 - noise()[0]], -1)
    Image.fromarray(both, "LA").save(tmp_path / "slice0.png")
    np.testing.assert_array_equal(open_volume(tmp_path).slice_at(0), noise()[0])


def test_a_stack_in_a_folder_is_refused(tmp_path):
    save(tmp_path / "stack.tif", noise())
    assert_refused(tmp_path, r"one grey slice .*not in a folder")


def test_truncated_images_are_refused(tmp_path):
    for suffix in (".png", ".jpg", ".bmp", ".pgm", ".tif"):
        path = save(tmp_path / f"slice0{suffix}", noise(shape=(32, 40)))
        data = path.read_bytes()
        for length in (10, len(data) // 2):
            path.unlink()
            path.write_bytes(data[:length])
            assert_refused(tmp_path)
        path.unlink()
    gc.collect()  # an image left open would warn now


def test_slices_larger_than_pillow_allows_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert_reads(open_volume(fill(tmp_path, noise())), noise())
    assert Image.MAX_IMAGE_PIXELS == 50


def test_each_image_is_decoded_once_for_all_windows(tmp_path, monkeypatch):
    volume = open_volume(fill(tmp_path, noise()))
    decoded, real = [], volume.pixels._cache._load
    monkeypatch.setattr(volume.pixels._cache, "_load", lambda z: decoded.append(z) or real(z))
    for z in range(4):
        box = (slice(z, z + 3), *ALL[1:])
        np.testing.assert_array_equal(volume.read(box), noise()[box])
    assert decoded == list(range(6))
    assert volume.facts == {"format": "folder of PNG images", "files": "6"}
