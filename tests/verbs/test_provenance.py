"""Every output says with what it was made: command, seed, versions, and hashes of what was read."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import zarr

from evenslice import (
    audit,
    evaluate,
    fix,
    load_model,
    open_volume,
    save_model,
    save_volume,
    segment,
)
from evenslice.cli import app as cli
from evenslice.model import provenance as hashing
from evenslice.model.provenance import command_line, file_record, pretrained_weights, provenance_of
from evenslice.verbs.inspect import inspect

WEIGHTS = {"name": "imagenet", "bytes": 9, "sha256": "1a2b3c", "hashed": "whole"}
WEIGHTS |= {"source": "a package", "terms": "MIT"}
KEYS = {"command", "seed", "versions", "platform", "inputs"}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def place(tmp_path, monkeypatch, grey, make_model):
    monkeypatch.chdir(tmp_path)
    save_volume("raw.tif", grey)
    save_volume("labels.tif", (grey > 128).astype(np.uint8))
    made_with = {"inputs": {"weights": WEIGHTS}}
    save_model("model.safetensors", replace(make_model(), provenance=made_with))
    monkeypatch.setattr(sys, "argv", ["/usr/bin/evenslice", "audit", "a b.tif", "--force"])
    return tmp_path


def check(made, place, **files):
    assert set(made) >= KEYS
    assert made["command"] == "evenslice audit 'a b.tif'"
    assert (
        made["versions"]["evenslice"] and made["versions"]["torch"] and made["versions"]["python"]
    )
    for role, name in files.items():
        record = made["inputs"][role]
        assert record["name"].endswith(name), role
        assert record["sha256"] == sha256(place / name) and record["hashed"] == "whole"
        assert record["bytes"] == (place / name).stat().st_size


def test_a_small_file_is_hashed_whole_and_its_name_stays_as_given(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc")
    assert file_record(path) == {
        "name": str(path),
        "bytes": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "hashed": "whole",
    }
    assert file_record(tmp_path / "none") == {
        "name": str(tmp_path / "none"),
        "bytes": None,
        "sha256": None,
        "hashed": "none",
    }


def test_a_large_file_is_hashed_by_samples_that_hold_both_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(hashing, "SPANS", 3)
    monkeypatch.setattr(hashing, "SPAN_BYTES", 10)
    data = bytearray(range(256)) * 8
    path = tmp_path / "large.bin"
    path.write_bytes(data)
    found = file_record(path)
    size = len(data)
    expected = hashlib.sha256(size.to_bytes(8, "little"))
    for start in (0, (size - 10) // 2, size - 10):
        expected.update(data[start : start + 10])
    assert (found["sha256"], found["hashed"], found["bytes"]) == (
        expected.hexdigest(),
        "sampled",
        size,
    )
    data[-1] ^= 1
    path.write_bytes(data)
    assert file_record(path)["sha256"] != found["sha256"]


def test_a_folder_is_hashed_by_all_its_files_or_not_at_all(tmp_path, monkeypatch):
    for name in ("b", "a"):
        (tmp_path / "store" / name).mkdir(parents=True)
        (tmp_path / "store" / name / "c").write_bytes(name.encode())
    lines = "".join(
        f"{hashlib.sha256(name).hexdigest()}  {name.decode()}/c\n" for name in (b"a", b"b")
    )
    found = file_record(tmp_path / "store")
    assert (
        found["sha256"]
        == hashlib.sha256("".join(sorted(lines.splitlines(True))).encode()).hexdigest()
    )
    assert (found["hashed"], found["bytes"]) == ("tree", 2)
    monkeypatch.setattr(hashing, "MOST_FILES", 1)
    assert file_record(tmp_path / "store")["hashed"] == "none"


def test_the_command_can_be_run_again(monkeypatch):
    for argv, expected in [
        (
            ["/opt/x/evenslice", "segment", "m", "it's", "--resume", "--force"],
            """evenslice segment m 'it'"'"'s'""",
        ),
        (["/opt/lib/evenslice/__main__.py", "audit"], "evenslice audit"),
        (["train_all.py", "--fast"], "train_all.py --fast"),
    ]:
        monkeypatch.setattr(sys, "argv", argv)
        assert command_line() == expected


def test_audits_scores_and_fixed_models_say_what_they_read(place, make_model):
    options = {"windows": 2, "tile": 32, "methods": ["gradient"], "seed": 7}
    given = {"labels": "labels.tif", "maps": "maps.zarr"}
    found = audit("model.safetensors", "raw.tif", **given, **options)
    noted = zarr.open_group("maps.zarr").attrs["evenslice"]["provenance"]
    check(noted, place, model="model.safetensors")
    made = json.loads(found.to_json())["provenance"]
    check(made, place, model="model.safetensors", volume="raw.tif", labels="labels.tif")
    assert made["inputs"]["model"]["weights"] == WEIGHTS
    assert made["seed"] == 7 and len(made["inputs"]["volume"]["voxels"]) == 16
    scores = evaluate("labels.tif", "labels.tif").to_dict()["provenance"]
    check(scores, place, prediction="labels.tif", truth="labels.tif")
    fixed = fix("model.safetensors", "fixed.safetensors", seed=3)
    check(fixed.to_dict()["provenance"], place, model="model.safetensors")
    check(load_model("fixed.safetensors").provenance, place, model="model.safetensors")
    assert inspect("fixed.safetensors").to_dict()["weights"] == WEIGHTS
    damaged = replace(
        load_model("model.safetensors"), provenance={"inputs": {"weights": {"bytes": ""}}}
    )
    assert pretrained_weights(damaged) == dict.fromkeys(WEIGHTS)


def test_stores_and_stacks_of_segment_say_what_they_were_made_of(place):
    segment("model.safetensors", "raw.tif", "out.zarr", seed=5)
    made = zarr.open_group("out.zarr").attrs["evenslice"]["provenance"]
    check(made, place, model="model.safetensors", volume="raw.tif")
    assert made["seed"] == 5
    segment("model.safetensors", "raw.tif", "out.tif")
    with tifffile.TiffFile("out.tif") as file:
        made = json.loads(file.imagej_metadata["provenance"]) if file.is_imagej else None
    check(made, place, model="model.safetensors", volume="raw.tif")


def test_a_large_type_of_labels_keeps_it_in_ome_metadata(tmp_path, grey):
    from evenslice.volume.tiff_writer import write_tiff

    labels = grey.astype(np.uint32)
    shape, dtype, voxel = labels.shape, labels.dtype, (30, 6, 6)
    made = {"command": "a <b>"}
    write_tiff(tmp_path / "l.tif", iter(labels), shape, dtype, voxel, "labels", made)
    with tifffile.TiffFile(tmp_path / "l.tif") as file:
        assert "provenance={" in tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Description"]
    found = open_volume(tmp_path / "l.tif")
    assert found.voxel_nm == (30, 6, 6) and found.meaning == "labels"


def test_the_pages_show_the_hashes(place, capsys):
    words = "audit model.safetensors raw.tif --windows 2 --tile 32 --methods gradient"
    with pytest.raises(SystemExit) as stop:
        cli.main([*words.split(), "--out", "found", "--json", "a.json"])
    assert stop.value.code == 0
    page = (place / "found" / "report.html").read_text()
    assert "pretrained weights: imagenet" in page and "terms: MIT" in page
    assert sha256(place / "model.safetensors") in page and sha256(place / "raw.tif") in page
    check(json.loads((place / "a.json").read_text())["provenance"], place, volume="raw.tif")


def test_arrays_in_memory_are_recorded_apart(grey, make_model):
    made = provenance_of(0, model=make_model(), volume=grey, labels=None)["inputs"]
    assert set(made) == {"model", "volume"}
    assert made["volume"]["sha256"] is None and len(made["volume"]["voxels"]) == 16
    assert made["model"]["sha256"] is None


def test_a_hash_is_that_of_sha256sum(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(range(256)) * 999)
    told = subprocess.run(
        ["sha256sum", path], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    assert file_record(path)["sha256"] == told
