"""Files that are cut off, empty, mislabelled or contradict themselves: one line, exit code 2."""

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

GREY = np.random.default_rng(0).integers(0, 200, (6, 48, 64), np.uint8)


def mrc(nx: int = 64, mode: int = 0, magic: bytes = b"MAP ", axes: tuple[int, ...] = (1, 2, 3)):
    head = bytearray(1024)
    struct.pack_into("<10i", head, 0, nx, 48, 6, mode, 0, 0, 0, 1, 1, 1)
    struct.pack_into("<6f3i", head, 40, 10, 10, 10, 90, 90, 90, *axes)
    head[208:212], head[212:216] = magic, b"DD\0\0"
    struct.pack_into("<i", head, 108, 20140)
    return bytes(head) + GREY.tobytes()


def pictures(folder: str, *planes: np.ndarray) -> None:
    Path(folder).mkdir()
    for number, plane in enumerate(planes):
        Image.fromarray(plane).save(Path(folder) / f"{number:03d}.png")


FILES = {
    "cut.mrc": mrc()[:9000],
    "magic.mrc": mrc(magic=b"PAM "),
    "mode.mrc": mrc(mode=99),
    "complex.mrc": mrc(mode=4),
    "negative.mrc": mrc(nx=-64),
    "huge.mrc": mrc(nx=2**31 - 1),
    "axes.mrc": mrc(axes=(7, -1, 7)),
    "empty.mrc": b"",
    "empty.tif": b"",
    "text.tif": b"no picture at all",
    "empty.h5": b"",
    "text.h5": b"no HDF5 at all",
    "alone.raw": GREY.tobytes(),
    "unknown.xyz": b"x",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_what_it_says(refused, place, name):
    (place / name).write_bytes(FILES[name])
    refused(f"inspect {name}", name)


@pytest.mark.parametrize(
    ("info", "fact"),
    [
        ("NUM_X = 64\nNUM_Y = 48\n", "NUM_Z"),
        ("NUM_X = many\nNUM_Y = 48\nNUM_Z = 6\n", "NUM_X"),
        ("NUM_X = 1000\nNUM_Y = 48\nNUM_Z = 6\n", "18432 bytes"),
        ("NUM_X = 64\nNUM_Y = 48\nNUM_Z = 6\nDATA_TYPE = complex\n", "'complex'"),
    ],
)
def test_raw_voxels_whose_text_does_not_fit(refused, place, info, fact):
    (place / "v.raw").write_bytes(GREY.tobytes())
    (place / "v.raw.info").write_text(info)
    refused("inspect v.raw", "v.raw", fact)


def test_a_tiff_that_is_cut_off(refused, place):
    tifffile.imwrite("v.tif", GREY, photometric="minisblack")
    (place / "v.tif").write_bytes((place / "v.tif").read_bytes()[:5000])
    refused("segment model.safetensors v.tif out.zarr --device cpu", "v.tif")


def test_a_tiff_in_colour(refused, place):
    tifffile.imwrite("v.tif", np.zeros((4, 48, 64, 3), np.uint8), photometric="rgb")
    refused("inspect v.tif", "v.tif")


def test_an_hdf5_file_that_is_cut_off(refused, place):
    with h5py.File("v.h5", "w") as file:
        file["raw"] = GREY
    (place / "v.h5").write_bytes((place / "v.h5").read_bytes()[:3000])
    refused("inspect v.h5", "v.h5")


def test_a_dataset_that_is_not_there(refused, place):
    with h5py.File("v.h5", "w") as file:
        file["raw"] = GREY
    refused("inspect v.h5:/labels", "v.h5", "labels", "raw")


def test_a_store_without_arrays(refused, place):
    zarr.create_group(str(place / "v.zarr"))
    refused("inspect v.zarr", "v.zarr")


def test_a_store_whose_metadata_is_cut_off(refused, place):
    zarr.save_array(str(place / "v.zarr"), GREY)
    (place / "v.zarr" / "zarr.json").write_text("{")
    refused("inspect v.zarr", "v.zarr")


def test_a_folder_without_images(refused, place):
    (place / "none").mkdir()
    refused("inspect none", "none", "no images")


@pytest.mark.parametrize(
    "odd", [GREY[0][:40], np.uint16(GREY[0]) * 256, np.stack([GREY[0], GREY[1], GREY[2]], -1)]
)
def test_a_folder_of_unlike_images(refused, place, odd):
    pictures("slices", GREY[0], GREY[1], odd, GREY[2])
    refused("segment model.safetensors slices out.zarr --device cpu", "002.png")


def test_an_image_that_is_none(refused, place):
    pictures("slices", GREY[0], GREY[1])
    (place / "slices" / "009.png").write_bytes(b"no image")
    refused("segment model.safetensors slices out.zarr --device cpu", "009.png")


@pytest.mark.parametrize("body", [b"", b"no model", struct.pack("<Q", 2**60) + b"{}"])
def test_a_model_file_that_is_none(refused, place, body):
    (place / "bad.safetensors").write_bytes(body)
    refused("inspect bad.safetensors", "bad.safetensors")


@pytest.mark.parametrize("name", ["none.tif", "none.zarr", "none.h5:/raw", "none.safetensors"])
def test_a_path_that_leads_nowhere(refused, name):
    refused(f"inspect {name}", name.partition(":")[0])
