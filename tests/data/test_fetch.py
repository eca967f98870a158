"""Public datasets end to end, from small archives of exactly the public layouts."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import tifffile
from filelock import FileLock

import archives
from archives import SHAPE, gf_pa66, isbi, lucchi, membranes, snemi3d, vnc, zipped
from evenslice import open_volume
from evenslice.data import fetch as fetching
from evenslice.data.fetch import RECORD, SourceRecord, fetch
from evenslice.data.registry import DATASETS, dataset
from evenslice.errors import BadInputError
from evenslice.model.provenance import provenance_of

LAYOUTS = {"SNEMI3D": snemi3d, "Lucchi++": lucchi, "GF-PA66": gf_pa66, "ISBI 2012": isbi}
ALL = (slice(None),) * 3


def refuse(words, *args, **how):
    with pytest.raises(BadInputError, match=words) as caught:
        fetch(*args, **how)
    assert "\n" not in str(caught.value)


def listed(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "deep" / "there"


@pytest.mark.parametrize("name", [known.name for known in DATASETS])
def test_every_data_set_comes_with_volumes_that_open(shelf, folder, name):
    known = dataset(name)
    body = zipped(LAYOUTS.get(name, vnc)())
    url = shelf.put("mirror.zip", body)
    fetched = fetch(name, folder, f"{url}?token=secret")
    assert fetched.fresh
    assert known.missing(folder) == []
    for volume in known.volumes:
        raw, labels = open_volume(folder / volume.raw), open_volume(folder / volume.labels)
        assert raw.shape == labels.shape == SHAPE
    assert fetched.record.sha256 == hashlib.sha256(body).hexdigest()
    assert (fetched.record.bytes, fetched.record.url) == (len(body), url)
    assert "publishes none" in fetched.record.sha256_is
    assert json.loads((folder / RECORD).read_text()) == fetched.record.to_dict()
    record = provenance_of(None, raw=raw)["inputs"]["raw"]["fetched"]
    assert (record["url"], record["terms"]) == (url, known.terms)
    assert [path.name for path in folder.parent.iterdir()] == ["there"]
    assert f"{known.train.raw} is 6 x 8 x 10; " in fetched.warnings[0]


def test_gf_pa66_has_the_shape_of_its_info_and_three_classes(shelf, folder):
    fetch("gf-pa66", folder, shelf.put("pa66.zip", zipped(gf_pa66())))
    raw, labels = (open_volume(folder / f"pa66{kind}.raw") for kind in ("", ".ground_truth"))
    np.testing.assert_array_equal(raw.read(ALL), archives.grey(1))
    assert np.unique(labels.read(ALL)).tolist() == [0, 1, 2]


def test_membranes_of_isbi_are_one_and_voxels_have_their_size(shelf, folder):
    fetch("isbi", folder, shelf.put("x.zip", zipped(isbi())))
    made, raw = open_volume(folder / "membranes.tif"), open_volume(folder / "raw.tif")
    np.testing.assert_array_equal(made.read(ALL), membranes())
    np.testing.assert_array_equal(raw.read(ALL), archives.grey(1))
    assert raw.voxel_nm == made.voxel_nm == (50.0, 4.0, 4.0)
    assert made.meaning == "labels"
    originals = {"train-volume.tif", "train-labels.tif", "test-volume.tif"}
    assert listed(folder) == {RECORD, "raw.tif", "membranes.tif", *originals}


@pytest.mark.parametrize("membrane_is", [255, 0])
def test_membranes_of_vnc_are_one_however_they_are_drawn(shelf, folder, membrane_is):
    fetch("vnc", folder, shelf.put("x.zip", zipped(vnc(membrane_is))))
    expected = {"membranes": membranes(), "mitochondria": membranes(6), "raw": archives.grey(1)}
    for name, voxels in expected.items():
        np.testing.assert_array_equal(open_volume(folder / f"{name}.tif").read(ALL), voxels)
    assert fetch("vnc mitochondria", folder).fresh is False


@pytest.mark.parametrize(
    ("labels", "words"),
    [(255 * membranes(), "is dark in 80 %"), (np.zeros(SHAPE, np.uint8), "is dark in 0 %")],
)
def test_labels_of_isbi_drawn_otherwise_are_refused(shelf, folder, labels, words):
    files = isbi() | {"ISBI-2012-challenge/train-labels.tif": archives.tiff(labels)}
    url = shelf.put("x.zip", zipped(files))
    refuse(f"x.zip:train-labels.tif {words}", "isbi", folder, url)


def test_a_set_that_is_there_is_verified_and_not_fetched(shelf, folder):
    url = shelf.put("x.zip", zipped(lucchi()))
    first, again = fetch("lucchi", folder, url), fetch("lucchi", folder, url)
    assert (first.fresh, again.fresh) == (True, False)
    assert (again.record, again.warnings) == (first.record, first.warnings)
    assert len(shelf.asked) == 1


def test_files_put_there_by_hand_are_a_data_set(tmp_path):
    for name, body in lucchi().items():
        (tmp_path / name).write_bytes(body)
    for text in (None, "", "[]", '{"schema": "evenslice.source/1", "url": 1}'):
        if text is not None:
            (tmp_path / RECORD).write_text(text)
        fetched = fetch("lucchi", tmp_path)
        assert (fetched.fresh, fetched.record) == (False, None)


def test_force_fetches_anew_and_replaces(shelf, folder):
    fetch("lucchi", folder, shelf.put("x.zip", zipped(lucchi())))
    (folder / "mine.txt").write_text("mine")
    changed = lucchi() | {"train_im.h5": archives.hdf5(archives.grey(9), "volumes/raw")}
    fetch("lucchi", folder, shelf.put("x.zip", zipped(changed)), force=True)
    volume = open_volume(folder / "train_im.h5")
    np.testing.assert_array_equal(volume.read(ALL), archives.grey(9))
    assert (folder / "mine.txt").read_text() == "mine"


def test_files_in_the_way_are_refused_before_anything_is_downloaded(shelf, tmp_path):
    (tmp_path / "train_im.h5").write_text("mine")
    url = shelf.put("x.zip", zipped(lucchi()))
    refuse("holds train_im.h5, expected none", "lucchi", tmp_path, url)
    assert shelf.asked == []
    assert (tmp_path / "train_im.h5").read_text() == "mine"
    fetch("lucchi", tmp_path, url, force=True)
    assert open_volume(tmp_path / "train_im.h5").shape == SHAPE


def test_other_files_of_the_archive_replace_nothing_either(shelf, folder):
    folder.mkdir(parents=True)
    (folder / "test-volume.tif").write_text("mine")
    url = shelf.put("x.zip", zipped(isbi()))
    refuse("holds test-volume.tif, expected none", "isbi", folder, url)
    assert listed(folder) == {"test-volume.tif"}
    fetch("isbi", folder, url, force=True)
    assert len(shelf.asked) == 2  # force downloads again


def test_an_archive_that_is_here_already_is_used_and_stays(tmp_path):
    (tmp_path / "snemi.zip").write_bytes(zipped(snemi3d()))
    fetched = fetch("snemi", tmp_path, str(tmp_path / "snemi.zip"))
    assert fetched.record.url == "snemi.zip"
    assert (tmp_path / "snemi.zip").is_file()
    refuse("--from is none.zip, which is no file", "snemi", tmp_path / "other", "none.zip")
    assert not (tmp_path / "other").exists()


def test_a_whole_archive_is_kept_until_its_files_are_in_place(shelf, folder):
    """The record on Zenodo lacks the labels of the test volume."""
    files = {f"x/{name}": body for name, body in snemi3d().items() if name != "test-labels.h5"}
    url = shelf.put("snemi.zip", zipped(files))
    for _ in range(2):
        refuse("snemi.zip lacks test-labels.h5 .it holds", "snemi", folder, url)
    assert len(shelf.asked) == 1
    assert not folder.exists()
    shelf.put("snemi.zip", zipped(snemi3d()))
    fetch("snemi", folder, url, force=True)
    assert listed(folder.parent) == {f"there/{name}" for name in (RECORD, *snemi3d())}


def test_a_damaged_archive_is_not_kept(shelf, tmp_path, folder):
    url = shelf.put("x.zip", zipped(lucchi())[:-50])
    refuse("is damaged", "lucchi", folder, url)
    assert list(tmp_path.iterdir()) == []
    shelf.put("x.zip", zipped(lucchi()))
    assert fetch("lucchi", folder, url).fresh


def test_a_fetch_that_brought_nothing_leaves_nothing(shelf, tmp_path, folder):
    refuse("404 Not Found", "lucchi", folder, f"{shelf.address}/none.zip")
    refuse("leaves its folder", "lucchi", folder, shelf.put("x.zip", zipped({"../a": b"x"})))
    assert not folder.exists()
    assert listed(tmp_path).isdisjoint({"a", "deep/a"})


SHORT = archives.hdf5(archives.grey(0, (5, 8, 10)))


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("Lucchi++", {"test_mito.h5": SHORT}, "test_mito.h5:/main is 5 x 8 x 10, expected 6 x 8"),
        ("Lucchi++", {"test_mito.h5": b"no HDF5"}, "test_mito.h5 "),
        ("GF-PA66", {"pa66.raw": b"short"}, "pa66.raw has 5 bytes"),
        ("SNEMI3D", {"train-input.tif": archives.tiff(archives.grey()[0])}, "is a 2-D image"),
    ],
)
def test_what_is_not_as_described_is_not_put_in_place(shelf, folder, name, changed, words):
    url = shelf.put("x.zip", zipped(LAYOUTS[name]() | changed))
    refuse(f"x.zip:.*{words}", name, folder, url)
    assert not folder.exists()


def test_two_processes_do_not_fetch_into_one_folder(shelf, tmp_path):
    url = shelf.put("x.zip", zipped(lucchi()))
    downloads = tmp_path / ".there.download"
    downloads.mkdir()
    with FileLock(downloads / "fetch.lock"):
        refuse("another process is fetching into", "lucchi", tmp_path / "there", url)
    assert shelf.asked == []
    fetch("lucchi", tmp_path / "there", url)


def test_the_address_of_the_data_set_is_the_one_that_is_asked(monkeypatch, tmp_path):
    asked = []

    def download(url, store):
        asked.append(url)
        store.mkdir()
        (store / "master.zip").write_bytes(zipped(vnc()))
        return store / "master.zip", f"md5:{'1' * 32}"

    monkeypatch.setattr(fetching, "download", download)
    monkeypatch.setenv("EVENSLICE_DATA", str(tmp_path / "data"))
    fetched = fetch("vnc")
    assert asked == [dataset("vnc").archives[0].url]
    assert fetched.folder == tmp_path / "data" / "vnc"
    assert fetched.record.compared[0] == "md5 stated by the server: agrees"
    assert all(part in fetched.warnings[-1] for part in ("sha256 stated by torch-em", "differs"))
    assert SourceRecord.read(fetched.folder) == fetched.record


def test_published_shapes_need_no_note(shelf, folder, monkeypatch):
    small = dataclasses.replace(dataset("lucchi"), shape=(6, 10, 8))  # y and x the other way round
    monkeypatch.setattr(fetching, "dataset", lambda name: small)
    assert fetch("lucchi", folder, shelf.put("x.zip", zipped(lucchi()))).warnings == ()


def test_real_volumes_in_their_folders_are_data_sets(shared):
    for name in ("ISBI 2012", "VNC", "VNC mitochondria"):
        fetched = fetch(name, shared / "data" / dataset(name).folder)
        assert (fetched.fresh, fetched.warnings) == (False, ())


def test_real_isbi_goes_through_its_public_layout(shared, tmp_path):
    source = shared / "data" / "isbi2012"
    ground_truth = tifffile.imread(source / "membranes.tif")
    labels = archives.tiff(np.uint8(255 * (1 - ground_truth)))
    files = {"train-volume.tif": (source / "raw.tif").read_bytes(), "train-labels.tif": labels}
    files = {f"ISBI-2012-challenge/{name}": body for name, body in files.items()}
    (tmp_path / "x.zip").write_bytes(zipped(files))
    assert fetch("isbi", tmp_path / "there", str(tmp_path / "x.zip")).warnings == ()
    made = tifffile.imread(tmp_path / "there" / "membranes.tif")
    np.testing.assert_array_equal(made, ground_truth)
