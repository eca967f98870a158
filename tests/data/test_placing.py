"""Public data sets end to end from a server on this machine: small archives of exactly the public layouts."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import tifffile
from filelock import FileLock

import archives
from archives import SHAPE, gf_pa66, isbi, lucchi, membranes, snemi3d, vnc, zipped
from evenslice import open_volume, save_volume
from evenslice.data import fetch as fetching
from evenslice.data import placing
from evenslice.data.placing import LOCK, RECORD, fetch
from evenslice.data.registry import DATASETS, dataset
from evenslice.errors import BadInputError
from serving import serving

LAYOUTS = {
    "SNEMI3D": snemi3d,
    "Lucchi++": lucchi,
    "GF-PA66": gf_pa66,
    "ISBI 2012": isbi,
    "VNC": vnc,
}
OURS = {LOCK, RECORD}


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fetching, "PAUSE_S", 0.0)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def shelf():
    with serving() as shelf:
        yield shelf


def refuse(words, *args, **how):
    with pytest.raises(BadInputError, match=words) as caught:
        fetch(*args, **how)
    assert "\n" not in str(caught.value)


def listed(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def files_of(name):
    return {**LAYOUTS.get(name, vnc)()}


@pytest.mark.parametrize("name", [known.name for known in DATASETS])
def test_every_data_set_comes_with_volumes_that_open(shelf, tmp_path, name):
    known = dataset(name)
    body = zipped(files_of(name))
    placed = fetch(name, tmp_path / "there", shelf.put("mirror.zip", body))
    assert placed.fresh
    assert known.missing(tmp_path / "there") == []
    for part in known.place(tmp_path / "there"):
        raw, labels = open_volume(part.raw), open_volume(part.labels)
        assert raw.shape == labels.shape == SHAPE
    assert placed.record["sha256"] == hashlib.sha256(body).hexdigest()
    assert placed.record["bytes"] == len(body)
    assert json.loads((tmp_path / "there" / RECORD).read_text()) == placed.record
    assert not {
        path for path in listed(tmp_path / "there") if "mirror" in path or "unpacking" in path
    }
    assert f"{known.train.raw} is 6 x 8 x 10; " in placed.notes[0]


def test_gf_pa66_has_the_shape_of_its_info_and_three_classes(shelf, tmp_path):
    fetch("gf-pa66", tmp_path / "there", shelf.put("pa66.zip", zipped(gf_pa66())))
    raw, labels = (
        open_volume(tmp_path / "there" / name) for name in ("pa66.raw", "pa66.ground_truth.raw")
    )
    assert raw.shape == SHAPE
    np.testing.assert_array_equal(raw.slice_at(3), archives.grey(1)[3])
    assert sorted({int(v) for z in range(SHAPE[0]) for v in np.unique(labels.slice_at(z))}) == [
        0,
        1,
        2,
    ]


def test_membranes_of_isbi_are_one_and_voxels_have_their_size(shelf, tmp_path):
    fetch("isbi", tmp_path / "there", shelf.put("x.zip", zipped(isbi())))
    made = open_volume(tmp_path / "there" / "membranes.tif")
    np.testing.assert_array_equal(made.read((slice(None),) * 3), membranes())
    raw = open_volume(tmp_path / "there" / "raw.tif")
    np.testing.assert_array_equal(raw.read((slice(None),) * 3), archives.grey(1))
    assert raw.voxel_nm == made.voxel_nm == (50.0, 4.0, 4.0)
    assert made.meaning == "labels"
    assert listed(tmp_path / "there") == {
        *OURS,
        *("raw.tif", "membranes.tif", "train-volume.tif", "train-labels.tif", "test-volume.tif"),
    }


@pytest.mark.parametrize("membrane_is", [255, 0])
def test_membranes_of_vnc_are_one_however_they_are_drawn(shelf, tmp_path, membrane_is):
    fetch("vnc", tmp_path / "there", shelf.put("x.zip", zipped(vnc(membrane_is))))
    for name, voxels in (
        ("membranes", membranes()),
        ("mitochondria", membranes(6)),
        ("raw", archives.grey(1)),
    ):
        made = open_volume(tmp_path / "there" / f"{name}.tif")
        np.testing.assert_array_equal(made.read((slice(None),) * 3), voxels)
    assert fetch("vnc mitochondria", tmp_path / "there").fresh is False


def test_labels_of_isbi_drawn_the_other_way_are_refused(shelf, tmp_path):
    files = isbi() | {"ISBI-2012-challenge/train-labels.tif": archives.tiff(255 * membranes())}
    refuse(
        "x.zip:train-labels.tif is dark in 80 % .*expected less",
        "isbi",
        tmp_path / "t",
        shelf.put("x.zip", zipped(files)),
    )
    files = isbi() | {
        "ISBI-2012-challenge/train-labels.tif": archives.tiff(np.zeros(SHAPE, np.uint8))
    }
    refuse("is dark in 0 %", "isbi", tmp_path / "t", shelf.put("y.zip", zipped(files)))


def test_a_set_that_is_there_is_looked_at_and_not_fetched(shelf, tmp_path):
    url = shelf.put("x.zip", zipped(lucchi()))
    first = fetch("lucchi", tmp_path / "there", url)
    again = fetch("lucchi", tmp_path / "there", url)
    assert (first.fresh, again.fresh) == (True, False)
    assert again.record == first.record
    assert again.notes == first.notes
    assert len(shelf.asked) == 1


def test_files_put_there_by_hand_are_a_data_set(tmp_path):
    for name, body in lucchi().items():
        (tmp_path / name).write_bytes(body)
    placed = fetch("lucchi", tmp_path)
    assert (placed.fresh, placed.record) == (False, {})
    assert listed(tmp_path) == set(lucchi())


def test_force_fetches_anew_and_replaces(shelf, tmp_path):
    folder = tmp_path / "there"
    fetch("lucchi", folder, shelf.put("x.zip", zipped(lucchi())))
    (folder / "mine.txt").write_text("mine")
    swapped = lucchi() | {"train_im.h5": archives.hdf5(archives.grey(9))}
    fetch("lucchi", folder, shelf.put("x.zip", zipped(swapped), etag='"two"'), force=True)
    np.testing.assert_array_equal(
        open_volume(folder / "train_im.h5").slice_at(0), archives.grey(9)[0]
    )
    assert (folder / "mine.txt").read_text() == "mine"


def test_files_in_the_way_are_told_before_anything_is_fetched(shelf, tmp_path):
    (tmp_path / "train_im.h5").write_text("mine")
    refuse(
        "holds train_im.h5 but not all of Lucchi",
        "lucchi",
        tmp_path,
        shelf.put("x.zip", zipped(lucchi())),
    )
    assert shelf.asked == []
    assert (tmp_path / "train_im.h5").read_text() == "mine"
    fetch("lucchi", tmp_path, f"{shelf.address}/x.zip", force=True)
    assert open_volume(tmp_path / "train_im.h5").shape == SHAPE


def test_other_files_of_the_archive_replace_nothing_either(shelf, tmp_path):
    (tmp_path / "test-volume.tif").write_text("mine")
    refuse(
        "test-volume.tif exists, expected a new name",
        "isbi",
        tmp_path,
        shelf.put("x.zip", zipped(isbi())),
    )
    assert (tmp_path / "test-volume.tif").read_text() == "mine"
    assert not (tmp_path / "raw.tif").exists()


def test_an_archive_that_is_here_already_is_used_and_left(tmp_path):
    (tmp_path / "snemi.zip").write_bytes(zipped(snemi3d()))
    placed = fetch("snemi", tmp_path, str(tmp_path / "snemi.zip"))
    assert placed.record["url"] == "snemi.zip"
    assert (tmp_path / "snemi.zip").is_file()
    refuse("--from is none.zip, which is no file", "snemi", tmp_path / "other", "none.zip")
    assert not (tmp_path / "other").exists()


def test_the_record_of_zenodo_lacks_the_labels_of_the_test_volume(shelf, tmp_path):
    files = {f"x/{name}": body for name, body in snemi3d().items() if name != "test-labels.h5"}
    url = shelf.put("snemi.zip", zipped(files))
    refuse("lacks test-labels.h5 .it holds", "snemi", tmp_path / "there", url)
    assert listed(tmp_path / "there") == {LOCK, "snemi.zip", "snemi.zip.part.json"}
    refuse("lacks test-labels.h5", "snemi", tmp_path / "there", url)
    assert len(shelf.asked) == 1  # the archive was kept
    shelf.put("snemi.zip", zipped(snemi3d()), etag='"two"')
    fetch("snemi", tmp_path / "there", url, force=True)
    assert listed(tmp_path / "there") == {*OURS, *snemi3d()}


def test_a_damaged_archive_is_not_kept(shelf, tmp_path):
    url = shelf.put("x.zip", zipped(lucchi())[:-50])
    refuse("neither zip nor tar, or cut short", "lucchi", tmp_path / "there", url)
    assert not (tmp_path / "there").exists()
    shelf.put("x.zip", zipped(lucchi()))
    assert fetch("lucchi", tmp_path / "there", url).fresh


def test_a_fetch_that_brought_nothing_leaves_nothing(shelf, tmp_path):
    refuse("404 Not Found", "lucchi", tmp_path / "deep" / "there", f"{shelf.address}/none.zip")
    assert not (tmp_path / "deep").exists()


def test_a_fetch_that_was_cut_goes_on(shelf, tmp_path):
    body = zipped(lucchi())
    url = shelf.put("x.zip", body, cuts=[1000] + [0] * fetching.ATTEMPTS)
    refuse("run the same command to go on", "lucchi", tmp_path / "there", url)
    assert listed(tmp_path / "there") == {LOCK, "x.zip.part", "x.zip.part.json"}
    shelf["/x.zip"].cuts = []
    fetch("lucchi", tmp_path / "there", url)
    assert shelf.asked[-1][1]["Range"] == "bytes=1000-"
    assert listed(tmp_path / "there") == {*OURS, *lucchi()}


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("lucchi", {"test_mito.h5": archives.hdf5(archives.grey(0, (5, 8, 10)))}, "x.zip:test_mito.h5:/main is 5 x 8 x 10, expected 6 x 8 x 10"),
        ("lucchi", {"test_mito.h5": b"no HDF5"}, "x.zip:test_mito.h5 cannot be read as HDF5"),
        ("gf-pa66", {"pa66.raw": b"short"}, "x.zip:pa66.raw has 5 bytes"),
        ("snemi", {"train-input.tif": archives.tiff(archives.grey()[0])}, "x.zip:train-input.tif is a 2-D image"),
    ],
)  # fmt: skip
def test_what_is_not_as_described_is_not_put_in_place(shelf, tmp_path, name, changed, words):
    files = files_of(dataset(name).name) | changed
    refuse(words, name, tmp_path / "there", shelf.put("x.zip", zipped(files)))
    assert listed(tmp_path / "there") == {LOCK, "x.zip", "x.zip.part.json"}


def test_an_hdf5_dataset_of_another_name_is_found(shelf, tmp_path):
    files = lucchi() | {"train_im.h5": archives.hdf5(archives.grey(1), "volumes/raw")}
    fetch("lucchi", tmp_path / "there", shelf.put("x.zip", zipped(files)))
    assert open_volume(tmp_path / "there" / "train_im.h5").facts["dataset"] == "/volumes/raw"


def test_malice_leaves_nothing_in_place(shelf, tmp_path):
    files = lucchi() | {"../../evil": b"x"}
    refuse(
        "leaves its folder", "lucchi", tmp_path / "a" / "there", shelf.put("x.zip", zipped(files))
    )
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        LOCK,
        "x.zip",
        "x.zip.part.json",
    }


def test_two_at_once_do_not_meet(shelf, tmp_path):
    folder = tmp_path / "there"
    folder.mkdir()
    with FileLock(folder / LOCK):
        refuse(
            "another process is fetching into",
            "lucchi",
            folder,
            shelf.put("x.zip", zipped(lucchi())),
        )
    assert shelf.asked == []
    fetch("lucchi", folder, f"{shelf.address}/x.zip")


def test_what_a_killed_process_left_is_cleared(shelf, tmp_path):
    (tmp_path / placing.STAGE).mkdir()
    (tmp_path / placing.STAGE / "train_im.h5").write_text("half")
    fetch("lucchi", tmp_path, shelf.put("x.zip", zipped(lucchi())))
    assert listed(tmp_path) == {*OURS, *lucchi()}


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "there").write_text("mine")
    refuse("there is a file, expected a folder", "lucchi", tmp_path / "there")


def test_the_address_of_the_data_set_is_the_one_that_is_asked(monkeypatch, tmp_path):
    asked = []

    def download(url, target, progress):
        asked.append((url, target.name))
        target.write_bytes(zipped(files_of("VNC")))
        return fetching.Received(target, 1, "0" * 64, ("md5", "1" * 32))

    monkeypatch.setattr(placing, "download", download)
    monkeypatch.setenv("EVENSLICE_DATA", str(tmp_path / "data"))
    placed = fetch("vnc")
    known = dataset("vnc")
    assert asked == [(known.sources[0].url, "master.zip")]
    assert placed.folder == tmp_path / "data" / "vnc"
    assert placed.record["compared"][0] == "md5 stated by the server: agrees"
    assert placed.notes[-1].startswith("sha256 stated by torch-em")
    assert "differs" in placed.notes[-1]
    assert known.missing(placed.folder) == []


def test_published_shapes_need_no_word(shelf, tmp_path, monkeypatch):
    import dataclasses

    small = dataclasses.replace(
        dataset("lucchi"), shape=(6, 10, 8)
    )  # the same sizes, y and x in the other order
    monkeypatch.setattr(placing, "dataset", lambda name: small)
    assert fetch("lucchi", tmp_path / "there", shelf.put("x.zip", zipped(lucchi()))).notes == ()


def test_real_volumes_in_their_folders_are_data_sets(shared):
    for name in ("ISBI 2012", "VNC", "VNC mitochondria"):
        known = dataset(name)
        placed = fetch(name, shared / "data" / known.folder)
        assert placed.fresh is False
        assert placed.notes == ()


def test_real_isbi_goes_through_its_public_layout(shared, tmp_path):
    folder = shared / "data" / "isbi2012"
    truth = tifffile.imread(folder / "membranes.tif")
    shutil.copy(folder / "raw.tif", tmp_path / "train-volume.tif")
    save_volume(tmp_path / "train-labels.tif", np.uint8(255 * (1 - truth)))
    names = ("train-volume.tif", "train-labels.tif")
    (tmp_path / "x.zip").write_bytes(
        zipped({f"ISBI-2012-challenge/{n}": (tmp_path / n).read_bytes() for n in names})
    )
    placed = fetch("isbi", tmp_path / "there", str(tmp_path / "x.zip"))
    assert placed.notes == ()
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "there" / "membranes.tif"), truth)
