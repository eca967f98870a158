"""HDF5: a dataset is found or chosen, read by chunks that are decoded once, or refused."""

import gc
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from evenslice.volume import cache
from evenslice.volume.files import open_volume
from volume.voxels import assert_reads, assert_refused, noise

PACKED = {"chunks": (4, 8, 8), "compression": "gzip", "shuffle": True}
DTYPES = ("uint8", ">u2", "int16", "uint64", "float16", "float32", "float64", "bool")


def make(path, options=None, **datasets):
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file.create_dataset(name.replace("__", "/"), data=data, **(options or {}))
    return path


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [{}, PACKED, {"chunks": (1, 17, 13)}])
def test_voxels_of_any_layout(tmp_path, dtype, layout):
    volume = open_volume(make(tmp_path / "a.h5", layout, raw=noise(dtype)))
    assert_reads(volume, noise(dtype))
    assert volume.facts["format"] == "HDF5"
    assert volume.source == f"{tmp_path / 'a.h5'}:/raw"


@pytest.mark.parametrize("name", ["a.h5", "a.hdf5", "a.HDF", "a.he5"])
def test_a_dataset_is_chosen(tmp_path, name):
    path = make(tmp_path / name, volumes__raw=noise(), volumes__labels=noise() > 50)
    for way in ("/volumes/raw", "volumes/raw", "/volumes/raw/"):
        assert_reads(open_volume(f"{path}:{way}"), noise())
    assert_refused(path, r"holds 2 volumes: .*/volumes/labels \(6 x 17 x 13 bool\).* as .*:/vol")
    assert_refused(f"{path}:/volumes", r"/volumes is a group.*/volumes/raw")
    assert_refused(f"{path}:/nothing", r"no dataset /nothing, expected one of: /volumes/labels")
    assert_refused(f"{tmp_path / 'none.h5'}:/raw", "none.h5 does not exist")


def test_what_cannot_be_a_volume_does_not_count(tmp_path):
    path = make(tmp_path / "a.h5", raw=noise(), table=np.arange(5), image=noise()[0])
    with h5py.File(path, "a") as file:
        file["text"] = "words"
        file["kind"] = np.dtype("f4")
    assert_reads(open_volume(path), noise())
    assert_refused(f"{path}:kind", r"no dataset kind, expected one of: .*/raw \(6 x 17 x 13")
    assert_refused(f"{path}:/table", "the shape 5, expected")
    assert_refused(make(tmp_path / "b.h5", table=np.arange(5)), "no dataset of three axes")


def test_links_are_followed_when_they_are_asked_for(tmp_path):
    make(tmp_path / "other.h5", raw=noise())
    path = make(tmp_path / "a.h5", volumes__raw=noise())
    with h5py.File(path, "a") as file:
        file["again"] = file["volumes"]  # a hard link to a group, and one in a circle
        file["volumes/up"] = file["/"]
        file["soft"] = h5py.SoftLink("/volumes/raw")
        file["round"] = h5py.SoftLink("/round")
        file["out"] = h5py.ExternalLink("other.h5", "/raw")
        file["gone"] = h5py.ExternalLink("gone.h5", "/raw")
    assert_reads(open_volume(path), noise())
    for name in ("soft", "out"):
        assert_reads(open_volume(f"{path}:/{name}"), noise())
    for name in ("round", "gone"):
        assert_refused(f"{path}:{name}", r"a\.h5")


def test_voxels_elsewhere_are_refused(tmp_path):
    make(tmp_path / "part.h5", raw=noise())
    layout = h5py.VirtualLayout(shape=noise().shape, dtype="uint8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "part.h5"), "raw", shape=noise().shape)
    elsewhere = [(str(tmp_path / "v.bin"), 0, noise().nbytes)]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("outside", noise().shape, "u1", external=elsewhere)
    for name in ("virtual", "outside"):
        assert_refused(f"{tmp_path / 'a.h5'}:{name}", "put together from other files")


def test_a_compression_that_is_not_installed_is_named(tmp_path, monkeypatch):
    path = make(tmp_path / "a.h5", {"compression": "gzip"}, raw=noise())
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    assert_refused(path, r"deflate \(HDF5 filter 1\).*hdf5plugin")


@pytest.mark.parametrize("part", [0.01, 0.5, 0.99])
def test_cut_off_files(tmp_path, part):
    data = make(tmp_path / "a.h5", raw=noise("float64")).read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: int(part * len(data))])
    assert_refused(tmp_path / "cut.h5", "cannot be read as HDF5")


def test_a_damaged_chunk_is_named_and_others_read(tmp_path):
    path = make(tmp_path / "a.h5", {"chunks": (5, 17, 13), "compression": "gzip"}, raw=noise())
    with h5py.File(path) as file:
        place = file["raw"].id.get_chunk_info(1).byte_offset
    data = bytearray(path.read_bytes())
    data[place : place + 20] = bytes(20)
    (tmp_path / "b.h5").write_bytes(data)
    np.testing.assert_array_equal(open_volume(tmp_path / "b.h5").slice_at(4), noise()[4])
    assert_refused(tmp_path / "b.h5", r"b.h5:/raw cannot be decoded at \[5:6")


def test_each_chunk_is_decoded_once_for_all_windows(tmp_path, monkeypatch):
    pixels = noise(shape=(10, 17, 13))
    volume = open_volume(make(tmp_path / "a.h5", PACKED, raw=pixels))
    reads, real = [], volume.pixels._read
    monkeypatch.setattr(volume.pixels, "_read", lambda *b: reads.append(b[0].start) or real(*b))
    for z in range(8):
        for x in (slice(0, 8), slice(5, 13)):
            box = (slice(z, z + 3), slice(2, 7), x)
            np.testing.assert_array_equal(volume.read(box), pixels[box])
    assert sorted(reads) == [0, 0, 4, 4, 8, 8]
    reads.clear()
    volume.slice_at(9)
    box = (slice(8, 10), slice(9, 11), slice(2, 3))
    np.testing.assert_array_equal(volume.read(box), pixels[box])
    assert reads == [8]  # a box inside what is kept is not decoded again
    monkeypatch.setattr(cache, "CACHE_BYTES", 100)  # too small for a row of chunks
    reads.clear()
    np.testing.assert_array_equal(volume.slice_at(5), pixels[5])
    assert reads == [5]


def test_threads_may_read_at_once(tmp_path):
    volume = open_volume(make(tmp_path / "a.h5", PACKED, raw=noise()))
    with ThreadPoolExecutor(4) as pool:
        for z, plane in enumerate(pool.map(volume.slice_at, range(6))):
            np.testing.assert_array_equal(plane, noise()[z])


def test_files_are_closed_with_their_volume(tmp_path):
    path = make(tmp_path / "a.h5", raw=noise())
    open_volume(path).slice_at(0)
    assert_refused(f"{path}:/none")
    gc.collect()
    with h5py.File(path, "a") as file:  # fails while it is open for reading
        file["more"] = 1
