"""Fixing and inspecting exported networks, from the command line."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from evenslice import fix
from evenslice.cli import app as cli
from evenslice.evidence.certificate import certify
from evenslice.model.opening import model_of

NORM = ("--mean", "128", "--std", "40")


def network():
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 1, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), last).eval()


class Scores(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x):
        return self.body(x).mean((2, 3))


def save_pt2(module, x, path):
    torch.export.save(torch.export.export(module, (x,)), path)


def run(*words):
    with pytest.raises(SystemExit) as stop:
        cli.main([*(str(word) for word in words), "--trust"])
    return stop.value.code


@pytest.fixture
def exported(tmp_path):
    x = torch.rand(1, 3, 64, 96)
    save_pt2(network(), x, tmp_path / "m.pt2")
    axes = {"x": {0: "b", 2: "h", 3: "w"}, "y": {0: "b", 2: "h", 3: "w"}}
    options = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes, "dynamo": False}
    torch.onnx.export(network(), (x,), tmp_path / "m.onnx", **options)
    return tmp_path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("ending", "size"), [("pt2", [64, 96]), ("onnx", None)])
def test_it_becomes_symmetric_and_keeps_its_form(exported, capfd, ending, size):
    source, out, other = (exported / f"{name}.{ending}" for name in ("m", "fixed", "other"))
    assert run("inspect", source, "--verify", "--json", exported / "before.json") == 1
    before = json.loads((exported / "before.json").read_text())
    assert before["stems"][0]["module"] == "0"
    assert before["size"] == size
    assert run("fix", source, out, *NORM) == 0
    assert run("inspect", out, "--verify", "--json", exported / "after.json") == 0
    after = json.loads((exported / "after.json").read_text())
    assert after["stems"][0]["pattern"] == "mirror"
    assert after["certificate"]["symmetric"] is True
    assert (after["normalisation"]["mean"], after["normalisation"]["source"]) == ([128.0], "file")
    assert run("fix", source, exported / "fixed.safetensors") == 2
    assert f"expected .{ending} for this model" in capfd.readouterr().err
    assert run("fix", source, other, "--tie", "mirror") == 2
    assert run("fix", source, other, "--init", "green", "--slices", "5") == 2
    assert not other.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_an_ensemble_is_recorded_in_the_file(exported, ending):
    out = exported / f"both.{ending}"
    assert run("fix", exported / f"m.{ending}", out, "--tta", "reversal", *NORM) == 0
    model = model_of(out, trust=True)
    assert (model.tta, model.normalisation.mean) == ("reversal", (128.0,))
    assert certify(model).symmetric


def test_a_classifier_of_one_batch_size_becomes_symmetric(tmp_path):
    save_pt2(Scores(), torch.rand(1, 3, 32, 32), tmp_path / "m.pt2")
    assert run("fix", tmp_path / "m.pt2", tmp_path / "fixed.pt2") == 0
    assert run("inspect", tmp_path / "fixed.pt2", "--verify") == 0


def test_half_precision_runs_in_float32_and_stays_in_the_file(tmp_path):
    out = tmp_path / "fixed.pt2"
    save_pt2(network().half(), torch.rand(1, 3, 32, 32).half(), tmp_path / "m.pt2")
    volume = np.random.default_rng(0).integers(0, 255, (5, 32, 32), dtype=np.uint8)
    fix(tmp_path / "m.pt2", out, volume=volume, mean=[128.0], std=[40.0], trust=True)
    assert run("inspect", out, "--verify") == 0
    assert next(torch.export.load(out).module().parameters()).dtype == torch.float16


@pytest.mark.parametrize("ending", ["pt2", "onnx", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 hello"])
def test_a_file_with_something_else_in_it_is_refused(tmp_path, capsys, ending, content):
    (tmp_path / f"m.{ending}").write_bytes(content)
    assert run("fix", tmp_path / f"m.{ending}", tmp_path / f"fixed.{ending}") == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "expected" in printed
    assert "unexpected" not in printed
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"m.{ending}"]
