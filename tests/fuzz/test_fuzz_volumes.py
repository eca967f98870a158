"""Readers of volumes, given files that were changed in places: a volume that can be read, or one line."""

import io
import json
import shutil
import struct

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from fuzzing import TEXTS, VALUES, document, edited, edits, fuzz, is_told
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evenslice.errors import BadInputError
from evenslice.verbs.inspect import inspect
from evenslice.volume.files import open_volume, save_volume
from evenslice.volume.zarr_reader import MOST_LOOKED_AT

GREY = np.random.default_rng(0).integers(0, 255, (3, 16, 20), np.uint8)
SMALL = 2**22


def whole(volume):
    """What holds for every volume that was opened: it can be read where it says it is, or tells in one line why not."""
    z, y, x = volume.shape
    assert min(z, y, x) > 0 and volume.dtype.kind in "buif"
    assert volume.voxel_nm is None or (
        len(volume.voxel_nm) == 3 and all(0 < side < np.inf for side in volume.voxel_nm)
    )
    assert all(isinstance(part, str) for item in volume.facts.items() for part in item)
    for box in (
        (slice(0, 1),) * 3,
        (slice(z - 1, z), slice(y - 1, y), slice(0, min(x, 9))),
        (slice(0, z), slice(0, y), slice(0, x)),
    ):
        shape = tuple(part.stop - part.start for part in box)
        if np.prod(shape, dtype=float) * volume.dtype.itemsize > SMALL:
            continue
        try:
            found = volume.read(box)
        except BadInputError as error:
            is_told(error)
            return
        assert found.shape == shape and found.dtype == volume.dtype


def saved(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def hdf5(**options):
    def write(buffer):
        with h5py.File(buffer, "w") as file:
            made = file.create_dataset("raw", data=GREY, **options)
            made.attrs["resolution"] = (30.0, 4.0, 4.0)
            made.attrs["axistags"] = json.dumps({"axes": [{"key": key} for key in "zyx"]})

    return saved(write)


def mrc():
    header = bytearray(1024)
    header[:28] = struct.pack("<7i", 20, 16, 3, 1, 0, 0, 0)
    header[28:40] = struct.pack("<3i", 20, 16, 3)
    header[40:52] = struct.pack("<3f", 80.0, 64.0, 90.0)
    header[64:76] = struct.pack("<3i", 1, 2, 3)
    header[108:112] = struct.pack("<i", 20140)
    header[208:216] = b"MAP \x44\x44\0\0"
    return bytes(header) + GREY.astype("<i2").tobytes()


def tiff(**options):
    return saved(lambda buffer: tifffile.imwrite(buffer, GREY, **options))


FILES = {
    "plain.tif": tiff(photometric="minisblack"),
    "deflated.tif": tiff(photometric="minisblack", compression="zlib"),
    "tiled.tif": tiff(photometric="minisblack", tile=(16, 16), compression="zlib"),
    "big.tif": tiff(photometric="minisblack", bigtiff=True),
    "imagej.tif": tiff(imagej=True, metadata={"axes": "ZYX", "spacing": 0.03, "unit": "um"}, resolution=(250.0, 250.0)),
    "ome.tif": tiff(ome=True, photometric="minisblack", metadata={"axes": "ZYX", "PhysicalSizeX": 4.0, "PhysicalSizeXUnit": "nm"}),
    "predicted.tif": tiff(photometric="minisblack", compression="zlib", predictor=True),
    "plain.h5": hdf5(),
    "chunked.h5": hdf5(chunks=(1, 8, 8), compression="gzip"),
    "mrc.mrc": mrc(),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@fuzz(8)
@given(data=st.data())
def test_bytes_of_files(executions, tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(edited(FILES[name], data.draw(edits(len(FILES[name])))))
    executions(lambda: open_volume(path), whole)
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", FILES)
def test_they_are_read_as_they_were(executions, tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    np.testing.assert_array_equal(
        executions(lambda: open_volume(tmp_path / name), whole).read((slice(None),) * 3), GREY
    )


PICTURES = {
    "png": saved(lambda b: Image.fromarray(GREY[0]).save(b, "PNG")),
    "jpg": saved(lambda b: Image.fromarray(GREY[0]).save(b, "JPEG")),
    "bmp": saved(lambda b: Image.fromarray(GREY[0]).save(b, "BMP")),
    "webp": saved(lambda b: Image.fromarray(GREY[0]).save(b, "WEBP")),
    "pgm": saved(lambda b: Image.fromarray(GREY[0]).save(b, "PPM")),
    "tif": saved(lambda b: tifffile.imwrite(b, GREY[0], photometric="minisblack")),
}


@pytest.mark.parametrize("ending", PICTURES)
@fuzz(10)
@given(data=st.data())
def test_bytes_of_pictures(executions, tmp_path, ending, data):
    body = PICTURES[ending]
    for number in range(2):
        (tmp_path / f"{number}.{ending}").write_bytes(
            edited(body, data.draw(edits(len(body)))) if number else body
        )
    executions(lambda: open_volume(tmp_path), whole)
    assert len(list(tmp_path.iterdir())) == 2


INFO = {
    "NUM_X": "20",
    "NUM_Y": "16",
    "NUM_Z": "3",
    "voxelSize": "1.4",
    "BYTEORDER": "LOWBYTEFIRST",
    "DATA_TYPE": "uint8",
}


@fuzz(25)
@given(data=st.data())
def test_texts_of_raw_volumes(executions, tmp_path, data):
    words = st.one_of(
        TEXTS,
        st.integers().map(str),
        st.floats().map(str),
        st.sampled_from(["0", "-1", "1e9", "9" * 5000, "20 nm", "1.5"]),
    )
    lines = INFO | data.draw(st.dictionaries(st.sampled_from([*INFO, "x", ""]), words, max_size=3))
    text = "".join(
        f"{key} = {value}\n" for key, value in lines.items() if data.draw(st.integers(0, 9))
    )
    (tmp_path / "v.raw").write_bytes(
        GREY.tobytes()[: data.draw(st.sampled_from([960, 960, 959, 0, 1]))]
    )
    (tmp_path / "v.raw.info").write_bytes(text.encode(errors="replace"))
    executions(lambda: open_volume(tmp_path / "v.raw"), whole)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    save_volume(folder / "ome5.zarr", GREY, (30.0, 4.0, 4.0))
    zarr.create_array(
        str(folder / "three.zarr"),
        data=GREY,
        chunks=(1, 8, 8),
        attributes={"resolution": [30, 4, 4]},
        dimension_names=list("zyx"),
    )
    zarr.create_array(
        str(folder / "two.zarr"),
        data=GREY,
        chunks=(1, 8, 8),
        zarr_format=2,
        attributes={"resolution": [30, 4, 4]},
    )
    group = zarr.open_group(str(folder / "ome4.zarr"), mode="w", zarr_format=2)
    group.create_array("0", data=GREY, chunks=(1, 16, 16))
    levels = [
        {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [30.0, 4.0, 4.0]}]}
    ]
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels}]
    return folder


NOTES = ("zarr.json", ".zarray", ".zattrs", ".zgroup")


@pytest.mark.parametrize("name", ["ome5.zarr", "ome4.zarr", "three.zarr", "two.zarr"])
@fuzz(10)
@given(data=st.data())
def test_metadata_of_stores(executions, stores, tmp_path, name, data):
    place = tmp_path / name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(stores / name, place)
    notes = sorted(file for file in place.rglob("*") if file.name in NOTES)
    for note in data.draw(st.lists(st.sampled_from(notes), min_size=1, max_size=2, unique=True)):
        if data.draw(st.integers(0, 4)):
            note.write_text(json.dumps(document(data.draw, json.loads(note.read_text()))))
        else:
            note.write_bytes(edited(note.read_bytes(), data.draw(edits(note.stat().st_size))))
    before = sorted(place.rglob("*"))
    executions(lambda: open_volume(place), whole)
    assert sorted(place.rglob("*")) == before
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["ome5.zarr", "three.zarr", "two.zarr"])
@fuzz(8)
@given(data=st.data())
def test_chunks_of_stores(executions, stores, tmp_path, name, data):
    place = tmp_path / name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(stores / name, place)
    chunks = sorted(file for file in place.rglob("*") if file.is_file() and file.name not in NOTES)
    chunk = data.draw(st.sampled_from(chunks))
    chunk.write_bytes(edited(chunk.read_bytes(), data.draw(edits(chunk.stat().st_size))))
    executions(lambda: open_volume(place), whole)


@fuzz(25)
@given(data=st.data())
def test_attributes_of_hdf5(executions, tmp_path, data):
    path = tmp_path / "v.h5"
    values = st.one_of(
        TEXTS.filter(lambda text: "\0" not in text), st.lists(st.floats(width=32), max_size=5), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=9),
        VALUES.map(json.dumps), st.lists(st.sampled_from(["nm", "um", "", "furlong"]), min_size=1, max_size=4),
    )  # fmt: skip
    names = st.sampled_from(
        [
            "resolution",
            "voxel_size",
            "element_size_um",
            "units",
            "axistags",
            "DIMENSION_LABELS",
            "offset",
        ]
    )
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        made = file.create_dataset("raw", data=GREY)
        for key, value in data.draw(st.dictionaries(names, values, min_size=1, max_size=3)).items():
            made.attrs[key] = np.void(value) if isinstance(value, bytes) and value else value
        for dimension, label in zip(
            made.dims,
            data.draw(st.lists(st.sampled_from(["z", "y", "x", "", "c"]), max_size=3)),
            strict=False,
        ):
            if "DIMENSION_LABELS" not in made.attrs:
                dimension.label = label
    executions(lambda: open_volume(path), whole)


@fuzz(25)
@given(name=st.one_of(TEXTS, st.text(max_size=40), st.lists(TEXTS, max_size=4).map("/".join)))
def test_names_of_volumes(executions, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    name = name.replace("\n", "")  # the command line puts what is left on one line
    executions(lambda: open_volume(name), whole)
    executions(lambda: inspect(name))
    assert list(tmp_path.iterdir()) == [] and MOST_LOOKED_AT
