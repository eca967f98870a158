"""The commands data list and data fetch: exit codes, one line per error, JSON, what is printed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from archives import SHAPE, gf_pa66, isbi, snemi3d, zipped
from evenslice import open_volume
from evenslice.cli import app as cli
from evenslice.data.fetch import RECORD
from serving import serving


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "EVENSLICE_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def shelf():
    with serving() as shelf:
        yield shelf


def run(*words):
    with pytest.raises(SystemExit) as stop:
        cli.main(" ".join(map(str, words)).split())
    return stop.value.code


def test_list_names_all_and_says_what_is_there(capsys, monkeypatch, shelf):
    monkeypatch.setenv("COLUMNS", "200")
    assert run("data fetch gf-pa66 --from", shelf.put("pa66.zip", zipped(gf_pa66()))) == 0
    capsys.readouterr()
    assert run("data list") == 0
    out = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line for line in out.splitlines() if line.startswith("│")}
    assert list(rows) == ["SNEMI3D", "Lucchi++", "GF-PA66", "ISBI 2012", "VNC", "VNC mitochondria"]
    assert {name for name, row in rows.items() if row.rstrip("│ ").endswith("yes")} == {"GF-PA66"}
    assert "30, 6, 6" in rows["SNEMI3D"]
    assert "CC BY-SA 4.0" in rows["GF-PA66"]


def test_list_as_json(capsys, monkeypatch):
    monkeypatch.setenv("EVENSLICE_DATA", "/nowhere")
    assert run("data list --json -") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "evenslice.datasets/1"
    assert found["folder"] == "/nowhere"
    isbi_ = found["datasets"][3]
    assert (isbi_["name"], isbi_["present"]) == ("ISBI 2012", False)
    assert isbi_["missing"] == ["raw.tif", "membranes.tif"]
    test = {"role": "test", "raw": "raw.tif", "labels": "membranes.tif", "span": [24, 30]}
    assert isbi_["parts"][1] == test


def test_fetch_tells_all_that_is_needed(capsys, shelf):
    assert run("data fetch ISBI-2012 --from", shelf.put("x.zip", zipped(isbi()))) == 0
    out, err = capsys.readouterr()
    for words in (
        "ISBI 2012 was fetched into data/isbi2012",
        "train: raw.tif, labels membranes.tif, slices 0:21",
        "test: raw.tif, labels membranes.tif, slices 24:30",
        "split: ours",
        "voxel nm (z, y, x): 50, 4, 4",
        "terms: free for generating or testing non-commercial segmentation software",
        "please cite: Cardona et al. 2010",
        "publishes none that we know of",
        "Next: evenslice train data/isbi2012/raw.tif data/isbi2012/membranes.tif",
        "model.safetensors --target foreground --validation 24:30",
    ):
        assert words in out, words
    assert all(line.startswith("evenslice: warning: raw.tif") for line in err.splitlines())
    assert "30 x 512 x 512 is what was published" in err
    assert open_volume("data/isbi2012/raw.tif").shape == SHAPE


def test_fetch_as_json(capsys, shelf):
    url = shelf.put("snemi.zip", zipped(snemi3d()))
    assert run("data fetch snemi --to here --from", url, "--json fetched.json") == 0
    found = json.loads(Path("fetched.json").read_text())
    assert (found["fresh"], found["present"], found["source"]["url"]) == (True, True, url)
    volumes = ["here/train-input.tif", "here/train-labels.tif"]
    assert found["command"][:4] == ["evenslice", "train", *volumes]
    assert run("data fetch snemi --to here --json -") == 0
    out = capsys.readouterr().out
    assert '"fresh": false' in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("data fetch snemy", "the dataset 'snemy' is unknown, expected one of SNEMI3D"),
        ("data fetch snemi --from ftp://x/y.zip", "no web address, expected http:// or https://"),
        ("data fetch snemi --to taken", "taken is a file, expected a folder"),
        ("data fetch snemi --from text.zip", "text.zip is damaged or neither zip nor tar"),
        ("data fetch snemi --json taken", "taken exists, expected a new name"),
        ("data fetch snemi --from SERVER/none.zip", "404 Not Found"),
        ("data fetch", "Missing argument 'NAME'"),
        ("data", "Missing command"),
        ("data get", "No such command 'get'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(capsys, shelf, words, said):
    Path("taken").write_text("mine")
    Path("text.zip").write_text("no archive")
    assert run(*words.replace("SERVER", shelf.address).split()) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert err.startswith("evenslice: error: ")
    assert len(err.splitlines()) == 1
    assert out == ""
    assert sorted(path.name for path in Path().iterdir()) == ["taken", "text.zip"]


def test_a_killed_fetch_leaves_no_file_of_the_data_set_and_the_next_one_is_whole(shelf):
    """The server sends a part and stalls; a second process is turned away; the first is killed."""
    files = snemi3d((6, 100, 100))
    body = zipped(files)
    url = shelf.put("x.zip", body, stall=len(body) - 1000)
    words = [sys.executable, "-m", "evenslice", "data", "fetch", "snemi", "--from", url]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as first:
        try:
            assert shelf.stalled.wait(60)
            assert run("data fetch snemi --from", url) == 2
        finally:
            first.kill()
    assert not Path("data/snemi3d").exists()
    shelf["/x.zip"].stall = None
    assert run("data fetch snemi --from", url) == 0
    assert {path.name for path in Path("data/snemi3d").iterdir()} == {*files, RECORD}
    assert {path.name for path in Path("data").iterdir()} == {"snemi3d"}
