"""``--answer`` and ``--probe`` on the command line, through the verbs that open a model."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from evenslice import save_volume
from evenslice.cli import app as cli

NETWORKS = """
import torch
from torch import nn
class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 1, 1)
    def forward(self, x):
        if x.shape[-2:] != (36, 40):
            raise ValueError("another size")
        out = self.last(self.first(x))
        return {"near": out, "far": 3 * out}
def make(): return Heads()
"""
HOW = ["--mean", "128", "--std", "40"]
CHOICE = ["--answer", "far", "--probe", "36,40"]


def run(*words):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    return stop.value.code


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "heads_net.py").write_text(NETWORKS)
    monkeypatch.delitem(sys.modules, "heads_net", raising=False)
    grey = np.random.default_rng(0).integers(0, 256, (9, 36, 40)).astype(np.uint8)
    save_volume("raw.tif", grey)
    return grey


def test_the_answer_and_the_probe_go_through_every_verb(place, capfd):
    from heads_net import make

    name = "heads_net:make"
    assert run("segment", name, "raw.tif", "s.zarr", *HOW, *CHOICE, "--precision", "fp32") == 0
    windows = np.stack([place[z - 1 : z + 2] for z in range(1, 8)])
    with torch.no_grad():
        out = make()(torch.from_numpy((windows.astype(np.float32) - 128) / 40))["far"]
    found = zarr.open_array("s.zarr/0", mode="r")[0, 1:8]
    assert np.abs(found - out.sigmoid().numpy()[:, 0]).max() < 1e-5
    assert run("fix", name, "f.safetensors", *HOW, *CHOICE) == 0
    kept = f"{name}@f.safetensors"
    assert run("inspect", kept, "--json", "i.json") == 0
    seen = json.loads(Path("i.json").read_text())
    assert (seen["spec"]["answer"], seen["spec"]["probe"]) == ("far", [36, 40])
    assert seen["size"] == [36, 40]
    assert run("audit", kept, "raw.tif", "--windows", "2", "--methods", "gradient") == 0
    assert run("export", kept, "m.pt2") == 0
    assert run("segment", "m.pt2", "raw.tif", "t.zarr", "--trust", "--precision", "fp32") == 0
    assert run("segment", kept, "raw.tif", "u.zarr", "--precision", "fp32") == 0
    one, other = (zarr.open_array(f"{name}.zarr/0", mode="r")[:] for name in "tu")
    assert np.abs(one - other).max() < 1e-5


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ([], ["--probe Y,X"]),
        (["--probe", "36,40"], ["near (1, 1, 36, 40), far (1, 1, 36, 40)", "--answer"]),
        (["--probe", "36,40", "--answer", "score"], ["--answer score", "near (1, 1, 36, 40)"]),
        (["--probe", "36,40", "--answer", "far:1"], ["far:1", "from 0 to 0"]),
        (["--probe", "36"], ["two numbers of pixels (y, x)"]),
    ],
)
def test_what_is_missing_is_said_in_one_line(place, capfd, words, facts):
    assert run("segment", "heads_net:make", "raw.tif", "s.zarr", *HOW, *words) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("evenslice: error: ")
    assert all(fact in line for fact in facts), line
