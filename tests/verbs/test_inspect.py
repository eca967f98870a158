"""Looking at models and volumes."""

import json

import pytest

from evenslice import cli, save_model, save_volume
from evenslice.errors import BadInputError
from evenslice.verbs.inspect import inspect, unevenness
from evenslice.volume.array import Volume


def test_unevenness_by_hand():
    assert unevenness([1.0, 2.0, 3.0]) == (1.0, 0.5)
    assert unevenness([2.0, 5.0, 2.0]) == (1.0, 0.0)
    assert unevenness([3.0]) == (0.0, 0.0)


def run(*words):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    return stop.value.code


def test_a_model_and_its_proof(tmp_path, make_model, capfd):
    for init, code in (("green", 0), ("rgb", 1)):
        path = tmp_path / f"{init}.safetensors"
        save_model(path, make_model(init))
        assert run("inspect", path) == 0
        assert run("inspect", path, "--verify", "--json", tmp_path / f"{init}.json") == code
        found = json.loads((tmp_path / f"{init}.json").read_text())
        assert (found["kind"], found["slices"], found["stems"][0]["kind"]) == ("model", 3, "conv")
        assert found["verified"]["symmetric"] == (code == 0)
        assert found["normalisation"]["uniform"] is True
    assert "largest response to the reversal" in capfd.readouterr().out


def test_a_volume(tmp_path, grey, capfd):
    save_volume(tmp_path / "v.tif", Volume(grey, (50.0, 4.0, 4.0)))
    assert run("inspect", tmp_path / "v.tif") == 0
    assert "50 x 4 x 4 nm" in capfd.readouterr().out
    found = inspect(tmp_path / "v.tif").to_dict()
    assert (found["kind"], found["shape"], found["dtype"]) == ("volume", [9, 64, 96], "uint8")


def test_anything_else_is_said(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(BadInputError, match="unknown ending"):
        inspect(tmp_path / "x.txt")
