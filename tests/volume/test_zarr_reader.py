"""Zarr and OME-Zarr as others write it: the voxels, their size and meaning, or one clear line."""

import json
import shutil
import warnings

import numpy as np
import pytest
import zarr
from numcodecs import Blosc
from zarr.codecs import BloscCodec

from evenslice.volume.files import open_volume
from evenslice.volume.zarr_reader import chunks_there
from volume.voxels import assert_reads, assert_refused, noise

KINDS = {"t": "time", "c": "channel"}
CHUNKS = {"chunks": (4, 8, 8)}


def image(folder, data, axes="zyx", unit="nanometer", version="0.5", levels=1):
    """An OME-Zarr image written by hand, each level keeping every second voxel of y and x."""
    group = zarr.open_group(str(folder), mode="a", zarr_format=3 if version == "0.5" else 2)
    datasets = []
    for level in range(levels):
        step = 2**level
        group.create_array(str(level), data=np.ascontiguousarray(data[..., ::step, ::step]))
        sizes = {"z": 40.0, "y": 4.0 * step, "x": 5.0 * step}
        change = {"type": "scale", "scale": [sizes.get(a, 1.0) for a in axes]}
        datasets.append({"path": str(level), "coordinateTransformations": [change]})
    names = [
        {"name": a, "type": KINDS.get(a, "space")} | ({"unit": unit} if unit and a in "zyx" else {})
        for a in axes
    ]
    multiscale = {"axes": names, "datasets": datasets, "version": version}
    found = {"multiscales": [multiscale]}
    group.attrs.update({"ome": {"version": version} | found} if version == "0.5" else found)
    return folder


LAYOUTS = {
    "v3": {},
    "v3 sharded": {"chunks": (2, 4, 4), "shards": (4, 8, 8)},
    "v3 blosc": CHUNKS | {"compressors": BloscCodec(cname="lz4")},
    "v3 plain": CHUNKS | {"compressors": None},
    "v2": CHUNKS | {"zarr_format": 2},
    "v2 nested fortran": CHUNKS
    | {"zarr_format": 2, "order": "F", "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "v2 blosc": CHUNKS | {"zarr_format": 2, "compressors": Blosc("lz4")},
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, dtype) for name in LAYOUTS for dtype in ("uint8", ">u2")]
    + [("v3", dtype) for dtype in ("int16", "uint64", "float16", "float32", "float64", "bool")],
)
def test_voxels_of_any_layout(tmp_path, dtype, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(tmp_path / "a.zarr")
        made = zarr.create_array(path, shape=noise().shape, dtype=dtype, **LAYOUTS[name])
        made[...] = noise(dtype)
    volume = open_volume(path)
    assert_reads(volume, noise(dtype))
    assert volume.facts["format"] == f"Zarr {name[:2]}"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_level_0_of_an_image_or_the_level_asked_for(tmp_path, version):
    # known by its metadata, not its name
    path = image(tmp_path / "store", noise("uint16"), version=version, levels=2)
    volume = open_volume(path)
    assert_reads(volume, noise("uint16"))
    assert volume.voxel_nm == pytest.approx((40, 4, 5))
    assert volume.facts["format"] == f"OME-Zarr {version}"
    assert volume.facts["levels"] == "0: 6 x 17 x 13; 1: 6 x 9 x 7"
    assert volume.meaning == "intensity"
    second = open_volume(path / "1")
    assert_reads(second, noise("uint16")[:, ::2, ::2])
    assert second.voxel_nm == pytest.approx((40, 8, 10))


def test_arrays_outside_images(tmp_path):
    path = tmp_path / "b.zarr"  # without metadata of groups
    zarr.create_array(str(path / "volumes" / "raw"), data=noise(), zarr_format=2)
    assert_reads(open_volume(path), noise())
    path = tmp_path / "a.zarr"
    group = zarr.open_group(str(path), mode="w")
    group.create_array("volumes/raw", data=noise()).attrs["resolution"] = [40, 4, 5]
    assert open_volume(path).voxel_nm == (40, 4, 5)
    group.create_array("volumes/labels", data=noise() > 50)
    assert_reads(open_volume(path / "volumes" / "raw"), noise())
    for place in (path, path / "volumes"):
        assert_refused(place, r"holds 2 arrays, expected exactly one .*: .*labels, .*raw")
    assert_refused(path / "nothing", r"nothing does not exist.*: volumes/labels, volumes/raw")
    group.create_array("flat", data=noise()[0])
    assert_refused(path / "flat", "shape 17 x 13, expected a volume")
    group.create_array("xyz", data=noise(), dimension_names=["x", "y", "z"])
    assert_refused(path / "xyz", "expected z, y, x in this order")


def test_what_evenslice_noted_and_labels(tmp_path):
    path = image(tmp_path / "a.zarr", noise())
    group = zarr.open_group(str(path), mode="a")
    group.attrs["evenslice"] = {"meaning": "probabilities"}
    assert open_volume(path).meaning == "probabilities"
    assert open_volume(path / "0").meaning == "probabilities"
    group.attrs["evenslice"] = {"meaning": "nonsense"}
    image(path / "labels" / "cells", noise("uint32"))
    labels = zarr.open_group(str(path / "labels" / "cells"), mode="a")
    labels.attrs["ome"] = dict(labels.attrs["ome"]) | {"image-label": {}}
    for inside in ("labels/cells", "labels/cells/0", "labels"):
        assert open_volume(path / inside).meaning == "labels"
    assert open_volume(path).meaning == "intensity"


def test_missing_chunks_are_the_fill_value_and_counted(tmp_path):
    path = tmp_path / "a.zarr"
    made = zarr.create_array(str(path), shape=(8, 8, 8), chunks=(4, 4, 8), dtype="u1", fill_value=7)
    made[:4] = 3
    assert_reads(open_volume(path), np.repeat(np.uint8([3, 7]), 256).reshape(8, 8, 8))
    assert chunks_there(path) == "2 of 4 chunks are there, all else is the fill value 7"
    made[...] = 3
    assert chunks_there(path) is None
    assert chunks_there(image(tmp_path / "b.zarr", noise())) is None


def test_chunks_under_other_names_than_stated_are_refused(tmp_path):
    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), data=noise(), chunks=(6, 17, 13), zarr_format=2)
    assert_reads(open_volume(path), noise())
    (path / "0" / "0").mkdir(parents=True)
    (path / "0.0.0").rename(path / "0" / "0" / "0")
    assert_refused(path, r"no chunk under a name such as 0\.0\.0")


def test_an_array_of_an_image_with_broken_metadata_opens_by_its_path(tmp_path):
    path = image(tmp_path / "a.zarr", noise(), version="0.4")
    zarr.open_group(str(path), mode="a").attrs["multiscales"] = [{"version": "0.2"}]
    assert_refused(path, r"expected version 0.4 or 0.5; .* by its path")
    assert_reads(open_volume(path / "0"), noise())


@pytest.mark.parametrize("form", [2, 3])
def test_a_chunk_that_cannot_be_decoded_is_named(tmp_path, form):
    path, pixels = tmp_path / "a.zarr", noise(shape=(8, 8, 8))
    zarr.create_array(str(path), data=pixels, chunks=(4, 8, 8), zarr_format=form)
    chunk = path / ("1.0.0" if form == 2 else "c/1/0/0")
    chunk.write_bytes(chunk.read_bytes()[:20])
    np.testing.assert_array_equal(open_volume(path).slice_at(3), pixels[3])
    assert_refused(path, r"a.zarr cannot be decoded at \[0:8, 0:8, 0:8\] .*1.0.0")


def test_broken_metadata_are_refused(tmp_path):
    path = image(tmp_path / "a.zarr", noise())
    text = (path / "zarr.json").read_text()
    found = json.loads(text)
    del found["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"]
    for broken, words in ((json.dumps(found), "broken OME-Zarr metadata"), ("{", "is not JSON")):
        (path / "zarr.json").write_text(broken)
        assert_refused(path, words)
    (path / "zarr.json").write_text(text)
    inner = path / "0" / "zarr.json"
    inner.write_text(inner.read_text().replace('"zstd"', '"unheard-of"'))
    assert_refused(path, "cannot be read as a Zarr array")
    shutil.rmtree(inner.parent)
    assert_refused(path, "cannot be read as a Zarr array")
