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
    assert [known.name for known in DATASETS[:5]] == [
        "SNEMI3D",
        "Lucchi++",
        "GF-PA66",
        "ISBI 2012",
        "VNC",
    ]


@ALL
def test_nothing_is_left_out(known):
    optional = ("notes", "conversions", "aliases", "voxel_nm")
    for field in dataclasses.fields(known):
        assert getattr(known, field.name) or field.name in optional, field.name
    assert {one.role for one in known.volumes} == {"train", "test"}
    assert known.train.role == "train"
    assert known.test.role == "test"


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
        assert train.span is None
        assert test.span is None
        return
    assert 0 == train.span[0] < train.span[1] <= test.span[0] < test.span[1] == known.shape[0]


@pytest.mark.parametrize("name", ["ISBI 2012", "VNC", "VNC mitochondria"])
def test_our_own_split_is_the_last_fifth_after_a_gap_and_says_so(name):
    known = dataset(name)
    assert known.test.span[1] - known.test.span[0] == round(0.2 * known.shape[0])
    assert known.test.span[0] - known.train.span[1] == 3
    assert known.split.startswith("ours")


def test_the_split_of_gf_pa66_is_that_of_its_authors():
    assert dataset("GF-PA66").test.span == (1600, 1900)
    assert "official" in dataset("GF-PA66").split


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("lucchi", "Lucchi++"),
        ("lucchi++", "Lucchi++"),
        ("LUCCHI ++", "Lucchi++"),
        ("snemi", "SNEMI3D"),
        ("Snemi-3D", "SNEMI3D"),
        ("isbi-2012", "ISBI 2012"),
        ("isbi2012", "ISBI 2012"),
        ("gfpa66", "GF-PA66"),
        ("vnc", "VNC"),
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
    assert dataset("gf-pa66").files == (
        "pa66.raw",
        "pa66.ground_truth.raw",
        "pa66.raw.info",
        "pa66.ground_truth.raw.info",
    )
    assert dataset("vnc").files == ("raw.tif", "membranes.tif")
    assert dataset("vnc").archived_files == (
        "stack1/raw",
        "stack1/membranes",
        "stack1/mitochondria",
    )


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
