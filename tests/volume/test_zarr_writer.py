"""OME-Zarr as we write it: nothing lost, a pyramid made alike however it is cut, labels inside."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import yaozarrs
import zarr

from evenslice.errors import BadInputError
from evenslice.volume import zarr_writer as module
from evenslice.volume.array import Volume, crop, swap_axis
from evenslice.volume.files import open_volume, save_volume
from evenslice.volume.zarr_writer import (
    build_pyramid,
    count_chunks,
    create_image,
    create_labels,
    plan,
    shrink,
)
from volume.voxels import ALL, noise

SHAPE = (5, 70, 530)


def digest(folder) -> dict[str, str]:
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def halved(pixels, factors, labels=False):
    """What one level should be, voxel by voxel."""
    if labels:
        return pixels[tuple(slice(None, None, f) for f in factors)]
    made = pixels.astype(np.float64)
    for axis, factor in enumerate(factors):
        size = made.shape[axis]
        if factor == 2:
            pairs = [range(n, min(n + 2, size)) for n in range(0, size, 2)]
            made = np.stack([made.take(pair, axis).mean(axis) for pair in pairs], axis)
    return (np.rint(made) if pixels.dtype.kind in "iu" else made).astype(pixels.dtype)


def levels(path):
    group = zarr.open_group(str(path), mode="r")
    return [group[d["path"]] for d in group.attrs["ome"]["multiscales"][0]["datasets"]]


def image(path, pixels, voxel_nm=None, chunks=(2, 64, 64)):
    create_image(path, pixels.shape, pixels.dtype.name, "zyx", voxel_nm, "a", chunks=chunks)[
        ...
    ] = pixels
    return path


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
    path, pixels = tmp_path / "a.zarr", noise(dtype, SHAPE)
    save_volume(path, Volume(pixels, (30.0, 6.0, 5.0), "x", meaning))
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(ALL), pixels)
    assert volume.dtype == ("uint8" if dtype == "bool" else dtype)
    assert volume.voxel_nm == pytest.approx((30, 6, 5))
    assert volume.meaning == meaning
    assert volume.facts["levels"] == "0: 5 x 70 x 530; 1: 5 x 35 x 265; 2: 5 x 18 x 133"
    yaozarrs.validate_zarr_store(str(path))
    assert [f.name for f in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("meaning", ["intensity", "labels"])
def test_every_level_is_made_from_the_one_before(tmp_path, meaning):
    labels = meaning == "labels"
    pixels = noise("uint32" if labels else "uint16", (5, 71, 600))
    save_volume(tmp_path / "a.zarr", Volume(pixels, (8.0, 8.0, 8.0), "x", meaning))
    first, second, third = levels(tmp_path / "a.zarr")
    assert (second.shape, third.shape) == ((3, 36, 300), (2, 18, 150))
    np.testing.assert_array_equal(second[...], halved(first[...], (2, 2, 2), labels))
    np.testing.assert_array_equal(third[...], halved(second[...], (2, 2, 2), labels))


@pytest.mark.parametrize(
    ("dtype", "labels"), [("uint8", False), ("uint16", False), ("int32", True), ("bool", True)]
)
def test_numbers_of_objects_have_no_mean_whatever_is_said_of_them(tmp_path, dtype, labels):
    pixels = noise(dtype, (2, 4, 300))
    save_volume(tmp_path / "a.zarr", pixels)
    second = levels(tmp_path / "a.zarr")[1][...]
    np.testing.assert_array_equal(second, halved(pixels, (2, 2, 2), labels))


def test_a_part_says_where_it_lies_in_the_whole(tmp_path):
    path, whole = tmp_path / "a.zarr", Volume(noise(shape=(9, 40, 600)), (30.0, 8.0, 10.0))
    part = crop(whole, (slice(2, 8), slice(3, 40), slice(5, 600)))
    save_volume(path, part)
    assert open_volume(path).origin == (2.0, 3.0, 5.0)
    # the mean of two voxels lies between them, so half a voxel of level 0 farther on
    assert open_volume(path / "1").origin == (2.0, 3.5 / 2, 5.5 / 2)
    yaozarrs.validate_zarr_store(str(path))
    save_volume(tmp_path / "b.zarr", crop(open_volume(path), (slice(1, 5), *ALL[1:])))
    assert open_volume(tmp_path / "b.zarr").origin == (3.0, 3.0, 5.0)
    save_volume(tmp_path / "c.zarr", replace(part, voxel_nm=None))
    (first, *_) = json.loads((tmp_path / "c.zarr" / "zarr.json").read_text())["attributes"]["ome"][
        "multiscales"
    ][0]["datasets"]
    assert first["coordinateTransformations"][1]["translation"] == [2.0, 3.0, 5.0]
    for axis, origin in (("y", (3.0, 2.0, 5.0)), ("x", (5.0, 3.0, 2.0))):
        assert swap_axis(part, axis).origin == origin


@pytest.mark.parametrize("meaning", ["intensity", "labels"])
def test_voxels_and_places_of_the_levels(tmp_path, meaning):
    path = tmp_path / "a.zarr"
    save_volume(path, Volume(noise(shape=(4, 20, 1100)), (30.0, 8.0, 10.0), "x", meaning))
    sizes = [open_volume(path / str(n)).voxel_nm for n in range(4)]
    # 30 nm is more than 1.5 times 8 and 16 nm, and less than 1.5 times 32 nm
    assert sizes == [(30, 8, 10), (30, 16, 20), (30, 32, 40), (60, 64, 80)]
    ome = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]
    changes = [d["coordinateTransformations"][1:] for d in ome["multiscales"][0]["datasets"]]
    places = [c[0]["translation"] for c in changes if c]
    assert places == ([[0, 4, 5], [0, 12, 15], [15, 28, 35]] if meaning == "intensity" else [])


def test_the_plan_by_hand():
    alike = [1.0, 1.0, 1.0]
    assert plan((10, 256, 256), alike, "zyx") == []
    assert plan((10, 257, 256), alike, "zyx") == [(2, 2, 2)]
    assert plan((1, 1, 1000), alike, "zyx") == [(1, 1, 2)] * 2
    assert plan((3, 10, 10, 600), [1.0, 16.0, 8.0, 8.0], "czyx") == [(1, 1, 2, 2), (1, 2, 2, 2)]
    assert count_chunks((4, 300, 600), (2, 100, 100), alike, "zyx") == 1 * 2 * 3 + 1 * 1 * 2


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32"])
@pytest.mark.parametrize("shape", [(3, 7, 9), (4, 8, 8), (1, 1, 5)])
@pytest.mark.parametrize("labels", [False, True])
def test_shrinking_a_block(dtype, shape, labels):
    block = noise(dtype, shape)
    for factors in ((1, 2, 2), (2, 2, 2), (1, 1, 2)):
        np.testing.assert_allclose(
            shrink(block, factors, labels), halved(block, factors, labels), rtol=1e-6
        )
    assert shrink(np.full((2, 2, 2), 255, "u1"), (2, 2, 2), False).item() == 255


@pytest.mark.parametrize("chunks", [(2, 64, 64), (3, 50, 70), SHAPE])
def test_the_pyramid_does_not_depend_on_chunks_and_never_reads_more_than_one(
    tmp_path, monkeypatch, chunks
):
    path = image(tmp_path / "a.zarr", noise(shape=SHAPE), chunks=chunks)
    chunks = levels(path)[0].chunks
    steps, most, real = [], [0], zarr.Array.__getitem__

    def watch(self, key):
        found = real(self, key)
        most[0] = max(most[0], found.size)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "__getitem__", watch)
        build_pyramid(path, False, lambda: steps.append(1))
    assert 0 < most[0] <= np.prod(chunks)
    _, second, third = levels(path)
    np.testing.assert_array_equal(second[...], halved(noise(shape=SHAPE), (2, 2, 2)))
    np.testing.assert_array_equal(third[...], halved(second[...], (2, 2, 2)))
    assert len(steps) == count_chunks(SHAPE, chunks, [1.0] * 3, "zyx")


def test_made_again_after_a_kill_the_store_is_the_same(tmp_path):
    one, whole = (
        image(tmp_path / name, noise("float32", SHAPE), (8.0, 8.0, 8.0))
        for name in ("a.zarr", "b.zarr")
    )
    steps = iter(range(12))

    def stop():
        if next(steps) == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_pyramid(one, False, stop)
    assert len(levels(one)) == 1  # what is half made is not announced
    build_pyramid(whole, False)
    for _ in range(2):
        build_pyramid(one, False)
        assert digest(one) == digest(whole)


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """Probabilities of two classes with labels inside, as a segmentation writes them."""
    path, voxel = tmp_path_factory.mktemp("predicted") / "a.zarr", (30.0, 8.0, 8.0)
    array = create_image(
        path,
        (2, *SHAPE),
        "float32",
        "czyx",
        voxel,
        "p",
        ["a", "b"],
        {"meaning": "probabilities"},
        (1, 5, 70, 128),
    )
    array[...] = noise("float32", array.shape) / 100
    build_pyramid(path, labels=False)
    for name, count in (("segmentation", 99), ("again", 2**20)):
        labels = create_labels(
            path, SHAPE, "uint32", voxel, (5, 70, 128), name, {"made": "by us"}, count=count
        )
        labels[...] = noise("uint32", SHAPE)
        build_pyramid(path / "labels" / name, labels=True)
    return path


def test_labels_inside_an_image(predicted):
    for inside in ("", "labels", "labels/segmentation", "labels/again"):
        yaozarrs.validate_zarr_store(str(predicted / inside))
    group = zarr.open_group(str(predicted / "labels"), mode="r")
    assert group.attrs["ome"]["labels"] == ["again", "segmentation"]
    noted = group["segmentation"].attrs["evenslice"]
    assert noted == {"meaning": "labels", "made": "by us"}
    for name, count in (("segmentation", 99), ("again", 0)):  # very many have no colours of theirs
        colours = group[name].attrs["ome"]["image-label"]["colors"]
        assert [colour["label-value"] for colour in colours] == list(range(count + 1))
        assert len({tuple(colour["rgba"]) for colour in colours}) == count + 1
        assert colours[0]["rgba"] == [0, 0, 0, 0]
    found = open_volume(predicted / "labels" / "segmentation")
    np.testing.assert_array_equal(found.read(ALL), noise("uint32", SHAPE))
    assert (found.meaning, found.voxel_nm) == ("labels", (30, 8, 8))
    with pytest.raises(BadInputError, match="more than one value along c"):
        open_volume(predicted)


@pytest.mark.slow  # the import of its reader alone takes seconds
@pytest.mark.filterwarnings("ignore")
def test_ome_zarr_py_reads_what_we_write(predicted):
    reader = pytest.importorskip("ome_zarr.reader", reason="ome-zarr is not installed")
    from ome_zarr.io import parse_url

    nodes = [node for node in reader.Reader(parse_url(str(predicted)))() if node.data]
    shapes = [[part.shape for part in node.data] for node in nodes]
    assert [(2, 5, 70, 530), (2, 5, 35, 265), (2, 5, 18, 133)] in shapes
    labels = nodes[shapes.index([SHAPE, (5, 35, 265), (5, 18, 133)])]
    np.testing.assert_array_equal(np.asarray(labels.data[0]), noise("uint32", SHAPE))


def test_ome_zarr_models_accepts_what_we_write(predicted):
    models = pytest.importorskip("ome_zarr_models.v05", reason="ome-zarr-models is not installed")
    for inside, kind in (
        ("", models.Image),
        ("labels", models.Labels),
        ("labels/segmentation", models.ImageLabel),
        ("labels/again", models.ImageLabel),
    ):
        kind.from_zarr(zarr.open_group(str(predicted / inside), mode="r"))


def test_a_store_is_replaced_only_by_a_whole_one(tmp_path, monkeypatch):
    path, pixels = tmp_path / "a.zarr", noise(shape=SHAPE)
    save_volume(path, pixels)
    old = digest(path)

    class Breaks:
        shape, dtype = (40, 70, 530), np.dtype("u1")

        def __getitem__(self, key):
            if key[0].start > 16:
                raise RuntimeError("broke")
            return pixels[:1].repeat(16, 0)[:, key[1], key[2]]

    with pytest.raises(RuntimeError, match="broke"):
        save_volume(path, Volume(Breaks()))
    assert digest(path) == old
    assert [f.name for f in tmp_path.iterdir()] == ["a.zarr"]
    save_volume(path, open_volume(path))  # over the store that it is read from
    assert digest(path) == old
    monkeypatch.setattr(module, "STRIP_BYTES", 1)
    save_volume(path, pixels)  # in strips of rows
    assert digest(path) == old


def test_what_is_no_store_is_not_replaced(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "mine").write_text("x")
    with pytest.raises(BadInputError, match="is no Zarr store"):
        save_volume(tmp_path / "a.zarr", noise())
    assert (tmp_path / "a.zarr" / "mine").exists()
