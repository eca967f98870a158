"""The verb export on the command line: what it prints, writes and refuses."""

import json
import sys

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from tifffile import imread

from evenslice import save_model, save_volume
from evenslice.cli import app as cli
from evenslice.model.opening import model_of
from their_networks import NETWORKS

MADE = ["--mean", "128", "--std", "40"]


def run(*words):
    with pytest.raises(SystemExit) as stop:
        cli.main(" ".join(map(str, words)).split())
    return stop.value.code


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "exported_nets.py").write_text(NETWORKS)
    monkeypatch.delitem(sys.modules, "exported_nets", raising=False)
    return tmp_path


def test_a_function_is_exported_and_used_without_options(place, grey, capfd):
    assert run("export exported_nets:make m.pt2", *MADE, "--tile 64 --json m.json") == 0
    told = capfd.readouterr()
    assert (
        "any batch, 3 slices" in told.out
        and "Next: evenslice audit m.pt2 VOLUME --trust" in told.out
    )
    found = json.loads((place / "m.json").read_text())
    assert found["schema"] == "evenslice.export/1"
    assert (found["path"], found["format"], found["opset"]) == ("m.pt2", "torch-export", None)
    assert found["bytes"] == (place / "m.pt2").stat().st_size and found["difference"] <= 1e-4
    assert found["dynamic"] == ["batch", "y", "x"] and found["answers"] == "logits"
    assert run("inspect m.pt2 --trust --json -") == 0
    seen = json.loads(capfd.readouterr().out)
    assert (seen["slices"], seen["normalisation"]["mean"]) == (3, [128.0])
    assert seen["certificate"] == found["certificate"]
    save_volume("raw.tif", grey)
    for model, more in (("m.pt2", ["--trust"]), ("exported_nets:make", MADE)):
        out = ["--output", "probabilities", "--tile", "64"]
        assert run("segment", model, "raw.tif", f"{model[:2]}.tif", *out, *more) == 0
    assert abs(imread("m..tif").astype(int) - imread("ex.tif").astype(int)).max() <= 1


def test_a_model_of_ours_becomes_onnx(place, make_model, capfd):
    save_model("m.safetensors", make_model(init="green"))
    assert run("export m.safetensors m.onnx --format onnx --tile 64 --json -") == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["opset"], found["inputs"][0]["shape"], found["inputs"][0]["step"]) == (
        18,
        [None, 3, None, None],
        8,
    )
    assert found["certificate"]["symmetric"] and model_of("m.onnx").spec.init == "green"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["m.onnx", "n.onnx"], "m.onnx is an ONNX model already, expected"),
        (
            ["exported_nets:make", "m.zip", "--format", "onnx"],
            "m.zip has the ending '.zip', expected .onnx for onnx",
        ),
        (
            ["exported_nets:make", "m.pt2"],
            "the model has no normalisation, expected a mean and a std",
        ),
        (["exported_nets:scores", "m.pt2", *MADE], "expected a prediction (B, classes, y, x)"),
        (["missing.safetensors", "m.pt2"], "missing.safetensors does not exist"),
        (
            ["exported_nets:make", "folder/m.pt2", *MADE],
            "the folder folder of m.pt2 does not exist",
        ),
        (
            ["exported_nets:make", "m.pt2", *MADE, "--json", "m.pt2"],
            "--json is m.pt2, which this command reads or",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(place, capfd, words, told):
    if words[0] == "m.onnx":
        (place / "m.onnx").touch()
    before = sorted(place.iterdir())
    assert run("export", *words) == 2
    lines = [
        line for line in capfd.readouterr().err.splitlines() if "warning: exported_nets" not in line
    ]
    assert len(lines) == 1 and lines[0].startswith("evenslice: error: ") and told in lines[0]
    assert [p for p in sorted(place.iterdir()) if p.name != "__pycache__"] == before
