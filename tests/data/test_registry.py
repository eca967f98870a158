"""The facts of the public datasets: complete, consistent, and found by any spelling."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from evenslice.data.registry import DATASETS, dataset, default_folder
from evenslice.errors import BadInputError

ALL = pytest.mark.parametrize("known", DATASETS, ids=lambda known: known.name)


def test_the_data_sets_of_the_paper_are_there():
    names = [known.name for known in DATASETS[:5]]
    assert names == ["SNEMI3D", "Lucchi++", "GF-PA66", "ISBI 2012", "VNC"]


@ALL
def test_nothing_is_left_out(known):
    optional = ("notes", "conversions", "aliases", "voxel_nm")
    for field in dataclasses.fields(known):
        assert getattr(known, field.name) or field.name in optional, field.name
    assert [known.train.role, known.test.role] == ["train", "test"]


@ALL
def test_addresses_are_secure_and_whole(known):
    for source in known.archives:
        for address in (source.url, source.page):
            assert urlsplit(address).scheme == "https"
            assert urlsplit(address).path.strip("/")
        assert source.sha256 is None or (len(source.sha256) == 64 and source.stated_by)


@ALL
def test_train_and_test_share_no_slice(known):
    train, test = known.train, known.test
    if train.raw != test.raw:
        assert train.span is test.span is None
        return
    assert 0 == train.span[0] < train.span[1] <= test.span[0] < test.span[1] == known.shape[0]


@pytest.mark.parametrize("name", ["ISBI 2012", "VNC", "VNC mitochondria"])
def test_our_own_split_is_the_last_fifth_after_a_gap_and_says_so(name):
    known = dataset(name)
    (_, end), (start, stop) = known.train.span, known.test.span
    assert (stop - start, start - end) == (round(0.2 * known.shape[0]), 3)
    assert known.split.startswith("ours, ") and f"slices 0:{end} train" in known.split
    assert "official" in dataset("GF-PA66").split and dataset("GF-PA66").test.span == (1600, 1900)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("lucchi", "Lucchi++"),
        ("LUCCHI ++", "Lucchi++"),
        ("Snemi-3D", "SNEMI3D"),
        ("isbi-2012", "ISBI 2012"),
        ("gfpa66", "GF-PA66"),
        ("vnc_mitochondria", "VNC mitochondria"),
    ],
)
def test_any_spelling_finds_it(spelling, name):
    assert dataset(spelling).name == name


def test_no_spelling_means_two_data_sets():
    for known in DATASETS:
        assert all(dataset(spelling) is known for spelling in (known.name, *known.aliases))


def test_an_unknown_name_is_answered_with_what_is_close():
    with pytest.raises(BadInputError, match=r"'snemy' is unknown.* did you mean SNEMI3D\?"):
        dataset("snemy")
    with pytest.raises(BadInputError, match=r"expected one of SNEMI3D, .*, VNC mitochondria$"):
        dataset("")


def test_files_are_those_of_all_parts_and_what_lies_beside_them():
    raw = ("pa66.raw", "pa66.ground_truth.raw")
    assert dataset("gf-pa66").files == (*raw, *(f"{name}.info" for name in raw))
    known = dataset("vnc")
    assert known.files == ("raw.tif", "membranes.tif")
    assert known.archived_files == tuple(f"stack1/{one.target[:-4]}" for one in known.conversions)


def test_what_is_missing_is_said(tmp_path):
    known = dataset("isbi")
    (tmp_path / "raw.tif").touch()
    assert known.missing(tmp_path) == ["membranes.tif"]
    assert known.missing(tmp_path / "none") == ["raw.tif", "membranes.tif"]
    found = known.describe(tmp_path)
    assert (found["present"], found["missing"]) == (False, ["membranes.tif"])


@pytest.mark.parametrize(("value", "folder"), [("", "data"), ("/volumes", "/volumes")])
def test_the_folder_is_that_of_the_environment(monkeypatch, value, folder):
    monkeypatch.setenv("EVENSLICE_DATA", value)
    assert str(default_folder()) == folder


def test_the_facts_import_nothing_heavy():
    heavy = "{'numpy', 'torch', 'h5py', 'requests', 'pooch'}"
    code = f"import sys, evenslice.data.registry; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@ALL
def test_the_page_on_data_says_the_same(known):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith(f"| {known.name} |")]
    facts, split = rows[:2]
    assert f"`{known.folder}`" in facts
    if known.name != "VNC mitochondria":  # "the same" there
        assert known.terms in facts
        assert " x ".join(map(str, known.shape)) in facts
        assert known.archives[0].page in page
        assert known.doi.removeprefix("10.48550/arXiv.") in page or known.citation in page
    assert known.target in facts or "the same" in facts
    for volume in known.volumes:
        assert volume.span is None or "{}:{}".format(*volume.span) in split
    assert known.split.split(":")[0].split(",")[0] in split
