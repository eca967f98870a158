import gc
import json
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from evenslice.errors import BadInputError
from evenslice.volume import cache
from evenslice.volume.files import open_volume
from evenslice.volume.hdf5 import open_hdf5

ALL = (slice(None),) * 3


def noise(dtype="uint8", shape=(10, 17, 13)):
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def make(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file.create_dataset(name.replace("__", "/"), data=data)
    return path


@pytest.mark.parametrize(
    "dtype", ["uint8", ">u2", "int16", "uint64", "float16", "float32", "float64", "bool"]
)
@pytest.mark.parametrize(
    "layout",
    [{}, {"chunks": (4, 8, 8), "compression": "gzip", "shuffle": True}, {"chunks": (1, 17, 13)}],
)
def test_voxels_of_any_layout(tmp_path, dtype, layout):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=noise(dtype), **layout)
    volume = open_volume(tmp_path / "a.h5")
    assert volume.dtype == np.dtype(dtype).newbyteorder("=")
    assert volume.dtype.isnative
    np.testing.assert_array_equal(volume.read(ALL), noise(dtype))
    np.testing.assert_array_equal(
        volume.read((slice(3, 9), slice(7, 17), slice(1, 9))), noise(dtype)[3:9, 7:17, 1:9]
    )
    assert volume.facts["format"] == "HDF5"
    assert volume.source == f"{tmp_path / 'a.h5'}:/raw"


@pytest.mark.parametrize("name", ["a.h5", "a.hdf5", "a.HDF", "a.he5"])
def test_a_dataset_is_chosen(tmp_path, name):
    make(tmp_path / name, volumes__raw=noise(), volumes__labels=noise() > 50)
    for way in ("/volumes/raw", "volumes/raw", "/volumes/raw/"):
        np.testing.assert_array_equal(open_volume(f"{tmp_path / name}:{way}").read(ALL), noise())
    with pytest.raises(
        BadInputError,
        match=r"holds 2 volumes: .*/volumes/labels \(10 x 17 x 13 bool\).* choose it as .*:/vol",
    ):
        open_volume(tmp_path / name)
    with pytest.raises(BadInputError, match=r"/volumes is a group.*/volumes/raw"):
        open_volume(f"{tmp_path / name}:/volumes")
    with pytest.raises(
        BadInputError, match=r"no dataset /nothing, expected one of: /volumes/labels"
    ):
        open_volume(f"{tmp_path / name}:/nothing")


def test_what_cannot_be_a_volume_does_not_count(tmp_path):
    with h5py.File(
        make(tmp_path / "a.h5", raw=noise(), table=np.arange(5), image=noise()[0]), "a"
    ) as file:
        file["text"] = "words"
    assert open_volume(tmp_path / "a.h5").shape == (10, 17, 13)
    make(tmp_path / "b.h5", table=np.arange(5))
    with pytest.raises(BadInputError, match="no dataset of three axes"):
        open_volume(tmp_path / "b.h5")
    with pytest.raises(BadInputError, match=r"shape \(5,\)"):
        open_volume(f"{tmp_path / 'b.h5'}:/table")


def test_axes_of_one_are_dropped_and_more_refused(tmp_path):
    make(
        tmp_path / "a.h5",
        last=noise()[..., None],
        first=noise()[None, None],
        two=np.stack([noise()] * 2),
    )
    for name in ("last", "first"):
        np.testing.assert_array_equal(open_volume(f"{tmp_path / 'a.h5'}:{name}").read(ALL), noise())
    with pytest.raises(BadInputError, match=r"shape \(2, 10, 17, 13\), expected"):
        open_volume(f"{tmp_path / 'a.h5'}:two")


def test_axes_named_in_another_order_are_refused(tmp_path):
    tags = json.dumps({"axes": [{"key": k} for k in "xyz"]})
    with h5py.File(make(tmp_path / "a.h5", tagged=noise(), labelled=noise()), "a") as file:
        file["tagged"].attrs["axistags"] = tags
        for dimension, name in zip(file["labelled"].dims, "xyz", strict=True):
            dimension.label = name
    for name in ("tagged", "labelled"):
        with pytest.raises(BadInputError, match="order x, y, z, expected z, y, x"):
            open_volume(f"{tmp_path / 'a.h5'}:{name}")


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({"resolution": [40.0, 4.0, 5.0]}, (40, 4, 5)),
        ({"resolution": (40, 4, 5), "units": ["nm", "nm", "nm"]}, (40, 4, 5)),
        ({"element_size_um": [0.05, 0.004, 0.005]}, (50, 4, 5)),
        ({"voxel_size": [40, 4, 5]}, (40, 4, 5)),
        ({"voxel_size": [0.04, 0.004, 0.005], "units": "um"}, (40, 4, 5)),
        ({"voxel_size": [40, 4, 5], "units": "cubits"}, None),
        ({"resolution": 4.0}, None),
        ({"resolution": [0.0, 4.0, 4.0]}, None),
        ({"resolution": "fine"}, None),
        ({}, None),
    ],
)
def test_the_voxel_size(tmp_path, attributes, size):
    with h5py.File(make(tmp_path / "a.h5", raw=noise()), "a") as file:
        file["raw"].attrs.update(attributes)
    found = open_volume(tmp_path / "a.h5").voxel_nm
    assert found == (None if size is None else pytest.approx(size))


def test_links_are_followed_when_they_are_asked_for(tmp_path):
    make(tmp_path / "other.h5", raw=noise())
    with h5py.File(make(tmp_path / "a.h5", volumes__raw=noise()), "a") as file:
        file["again"] = file["volumes"]  # a hard link to a group, and one in a circle
        file["volumes/up"] = file["/"]
        file["soft"] = h5py.SoftLink("/volumes/raw")
        file["round"] = h5py.SoftLink("/round")
        file["out"] = h5py.ExternalLink("other.h5", "/raw")
        file["gone"] = h5py.ExternalLink("gone.h5", "/raw")
    assert open_volume(tmp_path / "a.h5").shape == (10, 17, 13)
    for name in ("soft", "out"):
        assert open_volume(f"{tmp_path / 'a.h5'}:/{name}").shape == (10, 17, 13)
    for name in ("round", "gone"):
        with pytest.raises(BadInputError, match=r"a\.h5"):
            open_volume(f"{tmp_path / 'a.h5'}:{name}")


def test_voxels_elsewhere_are_refused(tmp_path):
    make(tmp_path / "part.h5", raw=noise())
    layout = h5py.VirtualLayout(shape=(10, 17, 13), dtype="uint8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "part.h5"), "raw", shape=(10, 17, 13))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset(
            "outside", (10, 17, 13), "u1", external=[(str(tmp_path / "v.bin"), 0, 10 * 17 * 13)]
        )
    for name in ("virtual", "outside"):
        with pytest.raises(BadInputError, match="put together from other files"):
            open_volume(f"{tmp_path / 'a.h5'}:{name}")


def test_a_compression_that_is_not_installed_is_named(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=noise(), compression="gzip")
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    with pytest.raises(BadInputError, match=r"deflate \(HDF5 filter 1\).*hdf5plugin"):
        open_volume(tmp_path / "a.h5")


def test_cut_off_and_foreign_files(tmp_path):
    data = make(tmp_path / "a.h5", raw=noise("float64")).read_bytes()
    for size in (0, 10, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.h5").write_bytes(data[:size])
        with pytest.raises(BadInputError, match="cannot be read as HDF5"):
            open_volume(tmp_path / "cut.h5")
    with pytest.raises(BadInputError, match=r"none.h5 does not exist"):
        open_volume(f"{tmp_path / 'none.h5'}:/raw")


def test_a_damaged_chunk_is_named_and_others_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("raw", data=noise(), chunks=(5, 17, 13), compression="gzip")
        place = made.id.get_chunk_info(1).byte_offset
    data = bytearray((tmp_path / "a.h5").read_bytes())
    data[place : place + 20] = bytes(20)
    (tmp_path / "b.h5").write_bytes(data)
    volume = open_volume(tmp_path / "b.h5")
    np.testing.assert_array_equal(volume.slice_at(4), noise()[4])
    with pytest.raises(BadInputError, match=r"b.h5:/raw cannot be decoded at \[5:10"):
        volume.slice_at(5)


def test_each_chunk_is_decoded_once_for_all_windows(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=noise(), chunks=(4, 8, 8), compression="gzip")
    volume = open_volume(tmp_path / "a.h5")
    reads, real = [], volume.pixels._read
    monkeypatch.setattr(
        volume.pixels, "_read", lambda *box: reads.append(box[0].start) or real(*box)
    )
    for z in range(8):
        for x in (slice(0, 8), slice(5, 13)):
            box = (slice(z, z + 3), slice(2, 7), x)
            np.testing.assert_array_equal(volume.read(box), noise()[box])
    assert sorted(reads) == [0, 0, 4, 4, 8, 8]
    reads.clear()
    volume.slice_at(9)
    np.testing.assert_array_equal(
        volume.read((slice(8, 10), slice(9, 11), slice(2, 3))), noise()[8:10, 9:11, 2:3]
    )
    assert reads == [8]  # a box inside what is kept is not decoded again
    monkeypatch.setattr(
        cache, "CACHE_BYTES", 100
    )  # a row of chunks no longer fits: only what is asked for is read
    reads.clear()
    np.testing.assert_array_equal(volume.slice_at(5), noise()[5])
    assert reads == [5]


def test_threads_may_read_at_once(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=noise(), chunks=(4, 8, 8), compression="gzip")
    volume = open_volume(tmp_path / "a.h5")
    with ThreadPoolExecutor(4) as pool:
        for z, plane in enumerate(pool.map(volume.slice_at, range(10))):
            np.testing.assert_array_equal(plane, noise()[z])


def test_files_are_closed_with_their_volume(tmp_path):
    make(tmp_path / "a.h5", raw=noise())
    open_volume(tmp_path / "a.h5").slice_at(0)
    with pytest.raises(BadInputError):
        open_volume(f"{tmp_path / 'a.h5'}:/none")
    gc.collect()
    with h5py.File(tmp_path / "a.h5", "a") as file:  # fails while it is open for reading
        file["more"] = 1


def test_a_stored_type_is_no_dataset(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["kind"] = np.dtype("f4")
        file["raw"] = np.zeros((2, 3, 4), np.uint8)
    with pytest.raises(BadInputError, match=r"no dataset kind, expected one of: /raw \(2 x 3 x 4"):
        open_hdf5(tmp_path / "t.h5", "kind")
