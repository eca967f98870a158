import json
import shutil
import warnings

import numpy as np
import pytest
import zarr
from numcodecs import Blosc
from zarr.codecs import BloscCodec

from evenslice.errors import BadInputError
from evenslice.volume.files import open_volume
from evenslice.volume.zarr_reader import chunks_there

ALL = (slice(None),) * 3
UNITS = {"nanometer": 1.0, "micrometer": 1e3, "angstrom": 0.1, "millimeter": 1e6}


def noise(dtype="uint8", shape=(10, 17, 13)):
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def image(
    folder,
    data,
    axes="zyx",
    scale=(40.0, 4.0, 5.0),
    unit="nanometer",
    version="0.5",
    levels=1,
    whole=None,
):
    """An OME-Zarr image written by hand, each level keeping every second voxel of y and x."""
    group = zarr.open_group(str(folder), mode="a", zarr_format=3 if version == "0.5" else 2)
    datasets = []
    for level in range(levels):
        step = 2**level
        group.create_array(str(level), data=np.ascontiguousarray(data[..., ::step, ::step]))
        sizes = {"z": scale[0], "y": scale[1] * step, "x": scale[2] * step}
        change = {"type": "scale", "scale": [float(sizes.get(a, 1)) for a in axes]}
        datasets.append({"path": str(level), "coordinateTransformations": [change]})
    kinds = {"t": "time", "c": "channel"}
    names = [
        {"name": a, "type": kinds.get(a, "space")} | ({"unit": unit} if unit and a in "zyx" else {})
        for a in axes
    ]
    multiscale = {"axes": names, "datasets": datasets, "version": version}
    if whole:
        multiscale["coordinateTransformations"] = [{"type": "scale", "scale": list(whole)}]
    group.attrs.update(
        {"ome": {"version": version, "multiscales": [multiscale]}}
        if version == "0.5"
        else {"multiscales": [multiscale]}
    )
    return folder


LAYOUTS = {
    "v3": {},
    "v3 sharded": {"chunks": (2, 4, 4), "shards": (4, 8, 8)},
    "v3 blosc": {"chunks": (4, 8, 8), "compressors": BloscCodec(cname="lz4")},
    "v3 plain": {"chunks": (4, 8, 8), "compressors": None},
    "v2": {"zarr_format": 2, "chunks": (4, 8, 8)},
    "v2 nested fortran": {
        "zarr_format": 2,
        "chunks": (4, 8, 8),
        "order": "F",
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
    },
    "v2 blosc": {"zarr_format": 2, "chunks": (4, 8, 8), "compressors": Blosc("lz4")},
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, dtype) for name in LAYOUTS for dtype in ("uint8", ">u2")]
    + [("v3", dtype) for dtype in ("int16", "uint64", "float16", "float32", "float64", "bool")],
)
def test_voxels_of_any_layout(tmp_path, dtype, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = dict(LAYOUTS[name])
        path = tmp_path / "a.zarr"
        made = zarr.create_array(str(path), shape=noise().shape, dtype=dtype, **options)
        made[...] = noise(dtype)
    volume = open_volume(path)
    assert volume.dtype == np.dtype(dtype).newbyteorder("=")
    assert volume.dtype.isnative
    np.testing.assert_array_equal(volume.read(ALL), noise(dtype))
    np.testing.assert_array_equal(
        volume.read((slice(3, 9), slice(7, 17), slice(1, 9))), noise(dtype)[3:9, 7:17, 1:9]
    )
    assert volume.facts["format"] == ("Zarr v2" if name.startswith("v2") else "Zarr v3")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_level_0_of_an_image_or_the_level_asked_for(tmp_path, version):
    path = image(
        tmp_path / "store", noise("uint16"), version=version, levels=2
    )  # known by its metadata, not its name
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(ALL), noise("uint16"))
    assert volume.voxel_nm == pytest.approx((40, 4, 5))
    assert volume.facts["format"] == f"OME-Zarr {version}"
    assert volume.facts["levels"] == "0: 10 x 17 x 13; 1: 10 x 9 x 7"
    assert volume.meaning == "intensity"
    second = open_volume(path / "1")
    np.testing.assert_array_equal(second.read(ALL), noise("uint16")[:, ::2, ::2])
    assert second.voxel_nm == pytest.approx((40, 8, 10))


@pytest.mark.parametrize("unit", [*UNITS, "cubit", None])
@pytest.mark.parametrize("whole", [None, (1.0, 2.0, 3.0)])
def test_units_and_the_scale_of_the_whole_image(tmp_path, unit, whole):
    volume = open_volume(image(tmp_path / "a.zarr", noise(), unit=unit, whole=whole))
    factor = UNITS.get(unit)
    size = np.array([40.0, 4.0, 5.0]) * (whole or (1, 1, 1))
    assert volume.voxel_nm == (None if factor is None else pytest.approx(tuple(size * factor)))


def test_axes_of_one_are_dropped(tmp_path):
    volume = open_volume(image(tmp_path / "a.zarr", noise()[None, None], "tczyx"))
    np.testing.assert_array_equal(volume.read((slice(2, 4), *ALL[1:])), noise()[2:4])
    assert volume.voxel_nm == pytest.approx((40, 4, 5))


@pytest.mark.parametrize(
    ("shape", "axes", "words"),
    [
        (
            (2, 4, 5, 6),
            "czyx",
            r"more than one value along c \(axes c 2, z 4, y 5, x 6\), expected one volume",
        ),
        ((2, 3, 4, 5, 6), "tczyx", "more than one value along t and c"),
        ((4, 5, 6), "xyz", r"has the axes x 4, y 5, z 6, expected z, y, x in this order"),
        ((4, 5), "yx", r"has the axes y 4, x 5, expected z, y, x"),
        ((4, 5, 6), "czyx", "has 3 axes but its metadata name 4"),
    ],
)
def test_other_axes_are_refused(tmp_path, shape, axes, words):
    path = image(tmp_path / "a.zarr", noise(shape=shape), axes)
    with pytest.raises(BadInputError, match=words):
        open_volume(path)


def test_arrays_outside_images(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group.create_array("volumes/raw", data=noise())
    group["volumes/raw"].attrs["resolution"] = [40, 4, 5]
    volume = open_volume(tmp_path / "a.zarr")
    assert volume.voxel_nm == (40, 4, 5)
    group.create_array("volumes/labels", data=noise())
    np.testing.assert_array_equal(
        open_volume(tmp_path / "a.zarr" / "volumes" / "raw").read(ALL), noise()
    )
    for path in ("a.zarr", "a.zarr/volumes"):
        with pytest.raises(
            BadInputError,
            match=r"holds 2 arrays, expected exactly one volume; choose one of: .*labels, .*raw",
        ):
            open_volume(tmp_path / path)
    with pytest.raises(
        BadInputError, match=r"nothing does not exist.*choose one of: volumes/labels, volumes/raw"
    ):
        open_volume(tmp_path / "a.zarr" / "nothing")
    group.create_array("flat", data=noise()[0])
    with pytest.raises(BadInputError, match="shape 17 x 13, expected a volume"):
        open_volume(tmp_path / "a.zarr" / "flat")
    xyz = group.create_array("xyz", data=noise(), dimension_names=["x", "y", "z"])
    with pytest.raises(BadInputError, match="expected z, y, x in this order"):
        open_volume(tmp_path / "a.zarr" / xyz.path)


def test_a_store_without_group_metadata(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr" / "volumes" / "raw"), data=noise(), zarr_format=2)
    assert open_volume(tmp_path / "a.zarr").shape == (10, 17, 13)
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(BadInputError, match="holds no array, expected a Zarr array"):
        open_volume(tmp_path / "b.zarr")


def test_an_image_one_level_down(tmp_path):
    image(tmp_path / "a.zarr" / "0", noise(), levels=2)
    zarr.open_group(str(tmp_path / "a.zarr"), mode="a").attrs["ome"] = {
        "version": "0.5",
        "bioformats2raw.layout": 3,
    }
    assert open_volume(tmp_path / "a.zarr").voxel_nm == (40, 4, 5)


def test_what_evenslice_noted_and_labels(tmp_path):
    path = image(tmp_path / "a.zarr", noise())
    group = zarr.open_group(str(path), mode="a")
    group.attrs["evenslice"] = {"meaning": "probabilities"}
    assert open_volume(path).meaning == "probabilities"
    assert open_volume(path / "0").meaning == "probabilities"
    group.attrs["evenslice"] = {"meaning": "nonsense"}
    assert open_volume(path).meaning == "intensity"
    image(path / "labels" / "cells", noise("uint32"))
    labels = zarr.open_group(str(path / "labels" / "cells"), mode="a")
    labels.attrs["ome"] = dict(labels.attrs["ome"]) | {"image-label": {}}
    for inside in ("labels/cells", "labels/cells/0", "labels"):
        assert open_volume(path / inside).meaning == "labels"
    assert open_volume(path).meaning == "intensity"


def test_missing_chunks_are_the_fill_value(tmp_path):
    made = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(8, 8, 8), chunks=(4, 8, 8), dtype="u1", fill_value=7
    )
    made[:4] = 3
    volume = open_volume(tmp_path / "a.zarr").read(ALL)
    assert (volume[:4] == 3).all() and (volume[4:] == 7).all()


def test_missing_chunks_are_counted(tmp_path):
    path = tmp_path / "a.zarr"
    made = zarr.create_array(str(path), shape=(8, 8, 8), chunks=(4, 4, 8), dtype="u1", fill_value=7)
    made[:4] = 3
    assert chunks_there(path) == "2 of 4 chunks are there, all else is the fill value 7"
    made[...] = 3
    assert chunks_there(path) is None
    assert chunks_there(image(tmp_path / "b.zarr", noise())) is None


def test_chunks_under_other_names_than_stated_are_refused(tmp_path):
    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), data=noise(), chunks=(10, 17, 13), zarr_format=2)
    assert open_volume(path).shape == (10, 17, 13)
    (path / "0" / "0").mkdir(parents=True)
    (path / "0.0.0").rename(path / "0" / "0" / "0")
    with pytest.raises(BadInputError, match=r"no chunk under a name such as 0\.0\.0"):
        open_volume(path)


def test_an_array_of_an_image_with_broken_metadata_opens_by_its_path(tmp_path):
    path = image(tmp_path / "a.zarr", noise(), version="0.4")
    zarr.open_group(str(path), mode="a").attrs["multiscales"] = [{"version": "0.2"}]
    with pytest.raises(BadInputError, match=r"expected version 0.4 or 0.5; .* by its path"):
        open_volume(path)
    assert open_volume(path / "0").shape == (10, 17, 13)


@pytest.mark.parametrize("form", [2, 3])
def test_a_chunk_that_cannot_be_decoded_is_named(tmp_path, form):
    made = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(8, 8, 8), chunks=(4, 8, 8), dtype="u1", zarr_format=form
    )
    made[...] = noise(shape=(8, 8, 8))
    chunk = tmp_path / "a.zarr" / ("1.0.0" if form == 2 else "c/1/0/0")
    chunk.write_bytes(chunk.read_bytes()[:20])
    volume = open_volume(tmp_path / "a.zarr")
    np.testing.assert_array_equal(volume.slice_at(3), noise(shape=(8, 8, 8))[3])
    with pytest.raises(BadInputError, match=r"a.zarr cannot be decoded at \[4:8, 0:8, 0:8\]"):
        volume.slice_at(6)


def test_broken_metadata_are_refused(tmp_path):
    path = image(tmp_path / "a.zarr", noise())
    shutil.copytree(path, tmp_path / "b.zarr")
    found = json.loads((path / "zarr.json").read_text())
    del found["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"]
    (path / "zarr.json").write_text(json.dumps(found))
    with pytest.raises(BadInputError, match="broken OME-Zarr metadata"):
        open_volume(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(BadInputError, match="is not JSON"):
        open_volume(path)
    inner = tmp_path / "b.zarr" / "0" / "zarr.json"
    inner.write_text(inner.read_text().replace('"zstd"', '"unheard-of"'))
    with pytest.raises(BadInputError, match="cannot be read as a Zarr array"):
        open_volume(tmp_path / "b.zarr")
    shutil.rmtree(inner.parent)
    with pytest.raises(BadInputError, match="cannot be read as a Zarr array"):
        open_volume(tmp_path / "b.zarr")


def test_slices_are_decoded_once_for_all_windows(tmp_path, monkeypatch):
    zarr.create_array(str(tmp_path / "a.zarr"), data=noise(), chunks=(4, 8, 8))
    volume = open_volume(tmp_path / "a.zarr")
    reads, real = [], volume.pixels._read
    monkeypatch.setattr(
        volume.pixels, "_read", lambda *box: reads.append(box[0].start) or real(*box)
    )
    for z in range(8):
        box = (slice(z, z + 3), slice(2, 7), slice(0, 8))
        np.testing.assert_array_equal(volume.read(box), noise()[box])
    assert reads == [0, 4, 8]


def test_other_stores_are_refused_by_name(tmp_path):
    for name, file, words in [
        ("a.n5", "attributes.json", "is an N5 store, expected Zarr; convert it to OME-Zarr"),
        ("b", "attributes.json", "is an N5 store"),
        ("c", "info", "neuroglancer precomputed volume, expected Zarr; convert it to OME-Zarr"),
    ]:
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text('{"scales": [], "n5": "2.0"}')
        with pytest.raises(BadInputError, match=words):
            open_volume(tmp_path / name)
