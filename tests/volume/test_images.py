"""Folders of images: natural order, the voxels of every kind, and each image decoded once."""

import gc
import math
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from evenslice.errors import BadInputError
from evenslice.volume.files import open_volume
from evenslice.volume.images import in_order
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


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    st.integers(0, 10**6),
    st.integers(1, 50),
    st.integers(1, 12),
    st.integers(0, 3),
    st.sampled_from(["", "a_", "w2-", "r0-c1_", "z"]),
    st.randoms(use_true_random=False),
)
def test_numbers_give_the_order_whatever_stands_around_them(
    start, step, count, width, prefix, random
):
    numbers = range(start, start + step * count, step)
    names = [f"{prefix}{n:0{width}}{random.choice(['', '_raw'])}.png" for n in numbers]
    shuffled = random.sample(names, count)
    assert in_order(shuffled, Path("folder")) == (names, {})


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.sets(st.integers(0, 14), min_size=3))
def test_what_is_missing_is_listed_and_nothing_else(numbers):
    low, high = min(numbers), max(numbers)
    step = math.gcd(*(n - low for n in numbers))
    missing = set(range(low, high + 1, step)) - numbers
    _, remarks = in_order([f"{n}.png" for n in numbers], Path("folder"))
    found = set()
    for first, last in re.findall(r"(\d+)(?: to (\d+))?", " ".join(remarks)):
        found |= set(range(int(first), int(last or first) + 1, step))
    assert found == missing
    assert bool(remarks) == bool(missing)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.text("a1-0._ ", min_size=1, max_size=6), min_size=1, max_size=5, unique=True))
def test_any_names_have_one_order_or_are_refused(stems):
    names = [f"{stem}.png" for stem in stems]
    found = []
    for order in (names, names[::-1]):
        try:
            found.append(in_order(order, Path("folder")))
        except BadInputError as error:
            found.append(str(error))
    assert found[0] == found[1]
    assert isinstance(found[0], str) or sorted(found[0][0]) == sorted(names)


def test_opening_reads_the_header_of_each_image_and_decodes_the_first(tmp_path):
    fill(tmp_path, noise())
    path = tmp_path / "slice2.png"
    path.write_bytes(path.read_bytes()[:60])
    volume = open_volume(tmp_path)
    np.testing.assert_array_equal(volume.read((slice(0, 2), *ALL[1:])), noise()[:2])
    with pytest.raises(BadInputError, match=r"slice2.png cannot be read as an image"):
        volume.slice_at(2)


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_bytes(b"")
    (tmp_path / "more.png").mkdir()
    assert_refused(tmp_path, "holds no images")


def test_a_stack_in_a_folder_is_refused(tmp_path):
    save(tmp_path / "raw.tif", noise())
    save(tmp_path / "labels.tif", noise("uint16"))
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
    assert decoded == list(range(1, 6))  # the first was decoded to see whether it is grey
    assert volume.facts == {"format": "folder of PNG images", "files": "6"}
