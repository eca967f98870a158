import hashlib
import json

import numpy as np
import pytest
import yaozarrs
import zarr

from evenslice.errors import BadInputError
from evenslice.volume import zarr_writer as module
from evenslice.volume.array import Volume
from evenslice.volume.files import open_volume, save_volume
from evenslice.volume.zarr_writer import (
    build_pyramid,
    count_chunks,
    create_image,
    create_labels,
    plan,
    shrink,
)

ALL = (slice(None),) * 3


def noise(dtype="uint8", shape=(5, 300, 530)):
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def digest(folder) -> dict[str, str]:
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def halved(pixels, factors, labels=False):
    """What one level should be, voxel by voxel."""
    if labels:
        return pixels[tuple(slice(None, None, f) for f in factors)]
    padded = pixels.astype(np.float64)
    for axis, factor in enumerate(factors):
        if factor == 2:
            pairs = [
                padded.take(range(n, min(n + 2, padded.shape[axis])), axis).mean(
                    axis, keepdims=True
                )
                for n in range(0, padded.shape[axis], 2)
            ]
            padded = np.concatenate(pairs, axis)
    return (np.rint(padded) if pixels.dtype.kind in "iu" else padded).astype(pixels.dtype)


def levels(path):
    group = zarr.open_group(str(path), mode="r")
    return [group[d["path"]] for d in group.attrs["ome"]["multiscales"][0]["datasets"]]


@pytest.mark.parametrize(
    ("dtype", "meaning"),
    [
        ("uint8", "probabilities"),
        ("uint16", "intensity"),
        ("int16", "intensity"),
        ("uint32", "labels"),
        ("float16", "intensity"),
        ("float32", "probabilities"),
        ("bool", "labels"),
    ],
)
def test_saved_and_opened_a_volume_is_the_same(tmp_path, dtype, meaning):
    path = tmp_path / "a.zarr"
    save_volume(path, Volume(noise(dtype), (30.0, 6.0, 5.0), "x", meaning))
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(ALL), noise(dtype))
    assert volume.dtype == ("uint8" if dtype == "bool" else dtype)
    assert volume.voxel_nm == pytest.approx((30, 6, 5))
    assert volume.meaning == meaning
    assert volume.facts["levels"] == "0: 5 x 300 x 530; 1: 5 x 150 x 265; 2: 5 x 75 x 133"
    yaozarrs.validate_zarr_store(str(path))
    assert [f.name for f in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("labels", [False, True])
def test_every_level_is_made_from_the_one_before(tmp_path, labels):
    pixels = noise("uint32" if labels else "uint16", (5, 71, 600))
    save_volume(
        tmp_path / "a.zarr",
        Volume(pixels, (8.0, 8.0, 8.0), "x", "labels" if labels else "intensity"),
    )
    first, second, third = levels(tmp_path / "a.zarr")
    assert (second.shape, third.shape) == ((3, 36, 300), (2, 18, 150))
    np.testing.assert_array_equal(second[...], halved(first[...], (2, 2, 2), labels))
    np.testing.assert_array_equal(third[...], halved(second[...], (2, 2, 2), labels))


def test_voxels_and_places_of_the_levels(tmp_path):
    for meaning in ("intensity", "labels"):
        path = tmp_path / f"{meaning}.zarr"
        save_volume(path, Volume(noise(shape=(4, 20, 1100)), (30.0, 8.0, 10.0), "x", meaning))
        sizes = [open_volume(path / str(n)).voxel_nm for n in range(4)]
        # 30 nm is more than 1.5 times 8 and 16 nm, and less than 1.5 times 32 nm
        assert sizes == [(30, 8, 10), (30, 16, 20), (30, 32, 40), (60, 64, 80)]
        ome = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]
        changes = [d["coordinateTransformations"][1:] for d in ome["multiscales"][0]["datasets"]]
        places = [c[0]["translation"] for c in changes if c]
        assert places == ([[0, 4, 5], [0, 12, 15], [15, 28, 35]] if meaning == "intensity" else [])


def test_the_plan():
    assert plan((10, 256, 256), [1.0, 1.0, 1.0], "zyx") == []
    assert plan((10, 257, 256), [1.0, 1.0, 1.0], "zyx") == [(2, 2, 2)]
    assert plan((1, 1, 1000), [1.0, 1.0, 1.0], "zyx") == [(1, 1, 2)] * 2
    assert plan((3, 10, 10, 600), [1.0, 16.0, 8.0, 8.0], "czyx") == [(1, 1, 2, 2), (1, 2, 2, 2)]
    assert (
        count_chunks((4, 300, 600), (2, 100, 100), [1.0, 1.0, 1.0], "zyx") == 1 * 2 * 3 + 1 * 1 * 2
    )


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32"])
@pytest.mark.parametrize("shape", [(3, 7, 9), (4, 8, 8), (1, 1, 5)])
def test_shrinking_a_block(dtype, shape):
    block = np.random.default_rng(1).integers(0, 120, shape).astype(dtype)
    for factors in ((1, 2, 2), (2, 2, 2), (1, 1, 2)):
        for labels in (False, True):
            np.testing.assert_allclose(
                shrink(block, factors, labels), halved(block, factors, labels), rtol=1e-6
            )
    assert shrink(np.full((2, 2, 2), 255, "u1"), (2, 2, 2), False).item() == 255


@pytest.mark.parametrize("chunks", [(2, 64, 64), (3, 50, 70), (5, 300, 530)])
def test_the_pyramid_does_not_depend_on_chunks_and_counts_them(tmp_path, chunks):
    array = create_image(
        tmp_path / "a.zarr", (5, 300, 530), "uint8", "zyx", None, "a", chunks=chunks
    )
    array[...] = noise()
    steps = []
    build_pyramid(tmp_path / "a.zarr", False, lambda: steps.append(1))
    _, second, third = levels(tmp_path / "a.zarr")
    np.testing.assert_array_equal(second[...], halved(noise(), (2, 2, 2)))
    np.testing.assert_array_equal(third[...], halved(second[...], (2, 2, 2)))
    assert len(steps) == count_chunks(array.shape, array.chunks, [1.0] * 3, "zyx")


def test_never_more_than_a_chunk_is_read_at_once(tmp_path, monkeypatch):
    array = create_image(
        tmp_path / "a.zarr", (8, 600, 530), "uint8", "zyx", None, "a", chunks=(4, 64, 64)
    )
    array[...] = noise(shape=(8, 600, 530))
    most, real = [0], zarr.Array.__getitem__

    def watch(self, key):
        found = real(self, key)
        most[0] = max(most[0], found.size)
        return found

    monkeypatch.setattr(zarr.Array, "__getitem__", watch)
    build_pyramid(tmp_path / "a.zarr", False)
    assert 0 < most[0] <= 4 * 64 * 64


def test_made_again_after_a_kill_the_store_is_the_same(tmp_path):
    array = create_image(
        tmp_path / "a.zarr",
        (5, 300, 530),
        "float32",
        "zyx",
        (8.0, 8.0, 8.0),
        "a",
        chunks=(2, 64, 64),
    )
    array[...] = noise("float32")
    done = 0

    def stop():
        nonlocal done
        done += 1
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_pyramid(tmp_path / "a.zarr", False, stop)
    assert len(levels(tmp_path / "a.zarr")) == 1  # what is half made is not announced
    build_pyramid(tmp_path / "a.zarr", False)
    once = digest(tmp_path / "a.zarr")
    build_pyramid(tmp_path / "a.zarr", False)
    assert digest(tmp_path / "a.zarr") == once
    whole = create_image(
        tmp_path / "b.zarr",
        (5, 300, 530),
        "float32",
        "zyx",
        (8.0, 8.0, 8.0),
        "a",
        chunks=(2, 64, 64),
    )
    whole[...] = noise("float32")
    build_pyramid(tmp_path / "b.zarr", False)
    assert digest(tmp_path / "b.zarr") == once


def predicted(path):
    """Probabilities of two classes with labels inside, as a segmentation writes them."""
    array = create_image(
        path,
        (2, 5, 300, 530),
        "float32",
        "czyx",
        (30.0, 8.0, 8.0),
        "p",
        ["a", "b"],
        {"meaning": "probabilities"},
        (1, 2, 64, 64),
    )
    array[...] = noise("float32", array.shape) / 100
    build_pyramid(path, labels=False)
    for name in ("segmentation", "again"):
        labels = create_labels(
            path, (5, 300, 530), "uint32", (30.0, 8.0, 8.0), (2, 64, 64), name, {"made": "by us"}
        )
        labels[...] = noise("uint32")
        build_pyramid(path / "labels" / name, labels=True)
    return path


def test_labels_inside_an_image(tmp_path):
    path = predicted(tmp_path / "a.zarr")
    for inside in ("", "labels", "labels/segmentation", "labels/again"):
        yaozarrs.validate_zarr_store(str(path / inside))
    assert zarr.open_group(str(path / "labels"), mode="r").attrs["ome"]["labels"] == [
        "again",
        "segmentation",
    ]
    found = open_volume(path / "labels" / "segmentation")
    np.testing.assert_array_equal(found.read(ALL), noise("uint32"))
    assert (found.meaning, found.voxel_nm) == ("labels", (30, 8, 8))
    noted = zarr.open_group(str(path / "labels" / "segmentation"), mode="r").attrs["evenslice"]
    assert noted == {"meaning": "labels", "made": "by us"}
    with pytest.raises(BadInputError, match="more than one value along c"):
        open_volume(path)


@pytest.mark.filterwarnings("ignore")
def test_ome_zarr_py_reads_what_we_write(tmp_path):
    reader = pytest.importorskip("ome_zarr.reader", reason="ome-zarr is not installed")
    from ome_zarr.io import parse_url

    path = predicted(tmp_path / "a.zarr")
    nodes = {
        str(node.zarr.path or "/").rstrip("/").rpartition("/")[2]: node
        for node in reader.Reader(parse_url(str(path)))()
    }
    shapes = {name: [part.shape for part in node.data] for name, node in nodes.items() if node.data}
    assert [(2, 5, 300, 530), (2, 5, 150, 265), (2, 5, 75, 133)] in shapes.values()
    assert [(5, 300, 530), (5, 150, 265), (5, 75, 133)] in shapes.values()
    labels = next(
        node for node in nodes.values() if node.data and node.data[0].shape == (5, 300, 530)
    )
    np.testing.assert_array_equal(np.asarray(labels.data[0]), noise("uint32"))


def test_a_store_is_replaced_only_by_a_whole_one(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    save_volume(path, noise())
    old = digest(path)

    class Breaks:
        shape, dtype = (40, 300, 530), np.dtype("u1")

        def __getitem__(self, key):
            if key[0].start > 16:
                raise RuntimeError("broke")
            return noise()[:1].repeat(16, 0)[:, key[1], key[2]]

    with pytest.raises(RuntimeError, match="broke"):
        save_volume(path, Volume(Breaks()))
    assert digest(path) == old
    assert [f.name for f in tmp_path.iterdir()] == ["a.zarr"]
    save_volume(path, open_volume(path))  # over the store that it is read from
    assert digest(path) == old
    monkeypatch.setattr(module, "STRIP_BYTES", 1)
    save_volume(path, noise())  # in strips of rows
    assert digest(path) == old


def test_what_is_no_store_is_not_replaced(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "mine").write_text("x")
    with pytest.raises(BadInputError, match="is no Zarr store"):
        save_volume(tmp_path / "a.zarr", noise())
    assert (tmp_path / "a.zarr" / "mine").exists()
