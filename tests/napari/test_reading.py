"""Opening files as layers; no Qt."""

import shutil

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
from one_layer import linear

from evenslice import open_volume, save_volume, segment
from evenslice.errors import BadInputError
from evenslice.napari.reading import get_reader, layers_of_store, read, sample
from evenslice.volume.array import Volume

VOXEL = (50.0, 4.0, 4.0)


def written(folder, kind, grey):
    """Write a volume in one format, and return what to open."""
    path = folder / f"v{kind}"
    if kind in (".tif", ".zarr"):
        save_volume(path, grey, VOXEL)
    elif kind == ".h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("raw", data=grey).attrs["resolution"] = VOXEL
    elif kind == ".mrc":
        with mrcfile.new(path) as file:
            file.set_data(grey.astype(np.float32))
            file.voxel_size = (40.0, 40.0, 500.0)
            file.set_volume()
    elif kind == ".raw":
        grey.tofile(path)
        z, y, x = grey.shape
        (folder / "v.raw.info").write_text(
            f"NUM_X = {x}\nNUM_Y = {y}\nNUM_Z = {z}\nDATA_TYPE = uint8\n"
        )
    else:
        path.mkdir()
        for number, plane in enumerate(grey):
            tifffile.imwrite(path / f"s{number}.tif", plane)
    return path


@pytest.mark.parametrize("kind", [".tif", ".zarr", ".h5", ".mrc", ".raw", "-folder"])
def test_every_format_is_opened_lazily_with_its_voxel_size(tmp_path, grey, kind):
    path = str(written(tmp_path, kind, grey))
    reader = get_reader([path])
    assert reader is not None
    ((data, facts, layer_kind),) = reader([path])
    assert layer_kind == "image"
    assert (np.asarray(data[3]) == grey[3]).all()
    assert type(data).__name__ == "LazyArray"
    sized = kind in (".tif", ".zarr", ".h5", ".mrc")
    assert facts.get("scale") == (pytest.approx(VOXEL, rel=1e-4) if sized else None)


def test_what_is_not_ours_is_declined(tmp_path):
    (tmp_path / "no.txt").write_text("no")
    (tmp_path / "lonely.raw").write_bytes(b"1234")
    (tmp_path / "empty").mkdir()
    names = ["no.txt", "lonely.raw", "empty", "missing.tif"]
    assert [get_reader(str(tmp_path / name)) for name in names] == [None] * 4
    assert get_reader(["a.tif", "b.tif"]) is None


def test_a_bad_file_is_one_line(tmp_path):
    path = tmp_path / "cut.tif"
    path.write_bytes(b"II*\0" + b"\0" * 20)
    with pytest.raises(BadInputError, match=r"cut\.tif") as caught:
        get_reader(str(path))(str(path))
    assert "\n" not in str(caught.value)


def test_a_store_of_images_comes_with_its_levels(tmp_path):
    save_volume(tmp_path / "big.zarr", Volume(np.zeros((4, 600, 600), np.uint8), VOXEL))
    ((data, facts, _),) = read(str(tmp_path / "big.zarr"))
    assert facts["multiscale"]
    assert data[0].shape == (4, 600, 600)
    assert data[1].shape[1:] == (300, 300)


@pytest.mark.parametrize("classes", [1, 3])
def test_what_segment_wrote_is_shown_as_probabilities_and_labels(tmp_path, grey, classes):
    out = tmp_path / "seg.zarr"
    segment(linear([1.0, -2.0, 0.5], classes), Volume(grey, VOXEL), out)
    *probabilities, (labels, facts, kind) = read(str(out))
    names = [f"seg probabilities of class {n}" for n in range(3)]
    names = ["seg probabilities"] if classes == 1 else names
    assert [f["name"] for _, f, _ in probabilities] == names
    total = sum(np.asarray(data[:]) for data, _, _ in probabilities)
    assert np.allclose(total, 1) == (classes == 3)
    assert not any(f["visible"] for _, f, _ in probabilities)
    assert (kind, facts["name"], facts["scale"]) == ("labels", "seg labels", VOXEL)
    written = open_volume(out / "labels" / "segmentation").read(np.s_[:, :, :])
    np.testing.assert_array_equal(labels[:], written)


def test_a_damaged_result_is_one_line(tmp_path, grey):
    out = tmp_path / "seg.zarr"
    segment(linear([1.0, -2.0, 0.5]), grey, out)
    shutil.rmtree(out / "labels" / "segmentation" / "0")
    with pytest.raises(BadInputError):
        layers_of_store(out)


def test_the_sample_is_the_phantom(monkeypatch):
    from evenslice.data import phantom

    small = phantom.phantom((3, 32, 32))
    monkeypatch.setattr(phantom, "phantom", lambda: small)
    (raw, facts, kind), (membranes, _, second) = sample()
    assert (kind, second, facts["scale"]) == ("image", "labels", VOXEL)
    assert raw is small.raw
    assert membranes is small.membranes
