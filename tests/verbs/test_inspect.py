"""Looking at models and volumes."""

import json

import numpy as np
import pytest

from evenslice import save_model, save_volume
from evenslice.cli import app as cli
from evenslice.errors import BadInputError
from evenslice.verbs.inspect import inspect
from evenslice.volume.array import Volume


def run(*words):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    return stop.value.code


def test_a_model_and_its_proof(tmp_path, make_model, capfd):
    for init, code in (("green", 0), ("rgb", 1)):
        path = tmp_path / f"{init}.safetensors"
        save_model(path, make_model(init))
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
    assert found["range"] == [int(grey[4].min()), int(grey[4].max())]
    assert found["size_bytes"] == 9 * 64 * 96


def test_which_slices_labels_fit(tmp_path, grey, capfd):
    save_volume(tmp_path / "v.tif", grey)
    save_volume(tmp_path / "l.tif", (grey > 128).astype(np.uint8) * 7)
    words = ("inspect", tmp_path / "v.tif", "--labels", tmp_path / "l.tif")
    assert run(*words, "--target", "foreground", "--json", tmp_path / "v.json") == 0
    found = json.loads((tmp_path / "v.json").read_text())["labels"]
    assert (found["target"], found["verdict"], found["sections"]) == (
        "foreground",
        "inconclusive",
        5,
    )
    assert {"asymmetry", "low", "high", "lag"} <= set(found)
    assert "Labels (foreground): inconclusive" in capfd.readouterr().out
    assert run(*words) == 2
    assert "--target" in capfd.readouterr().err
    save_volume(tmp_path / "short.tif", grey[1:])
    assert run(*words[:-1], tmp_path / "short.tif", "--target", "foreground") == 2


def test_labels_of_a_model_are_refused(tmp_path, make_model, grey):
    save_model(tmp_path / "m.safetensors", make_model("green"))
    with pytest.raises(BadInputError, match=r"--labels was given for the model .*m.safetensors"):
        inspect(tmp_path / "m.safetensors", labels=grey)


def test_what_was_understood_of_a_store(tmp_path, grey, capfd):
    save_volume(
        tmp_path / "v.zarr", Volume(grey.astype("float32"), (50.0, 4.0, 4.0), "x", "probabilities")
    )
    for place in ("v.zarr", "v.zarr/0"):
        assert run("inspect", tmp_path / place, "--json", tmp_path / "v.json") == 0
        out = capfd.readouterr().out
        assert "OME-Zarr 0.5" in out
        assert "0: 9 x 64 x 96" in out
        facts = json.loads((tmp_path / "v.json").read_text())["facts"]
        assert facts["compression"] == "blosc lz4"
        (tmp_path / "v.json").unlink()
    with pytest.raises(BadInputError, match=r"v.zarr/9 does not exist, .* choose one of: 0"):
        inspect(tmp_path / "v.zarr" / "9")
    with pytest.raises(
        BadInputError, match=r"none.h5:/raw does not exist, expected a model .* or a volume"
    ):
        inspect(f"{tmp_path / 'none.h5'}:/raw")


def test_a_volume_without_a_number_has_no_range(tmp_path, grey, capfd):
    save_volume(tmp_path / "v.tif", np.full((3, 9, 9), np.nan, "float32"))
    assert run("inspect", tmp_path / "v.tif", "--json", tmp_path / "v.json") == 0
    assert json.loads((tmp_path / "v.json").read_text())["range"] is None
    assert "no finite value" in capfd.readouterr().out


def test_anything_else_is_said(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(BadInputError, match="unknown ending"):
        inspect(tmp_path / "x.txt")


@pytest.mark.slow
def test_the_library_that_made_it_and_the_pattern_of_its_slots(make_model, tmp_path):
    for init, slices, pattern in (("rgb", 7, "cyclic"), ("green", 5, "uniform"), ("rgb", 1, "one")):
        save_model(tmp_path / "m.safetensors", make_model(init, slices))
        found = inspect(tmp_path / "m.safetensors").to_dict()
        assert found["library_call"].startswith(
            "segmentation_models_pytorch.create_model('unet', 'tu-resnet18'"
        )
        assert found["stems"][0]["pattern"] == pattern
        assert found["stems"][0]["layer"] == "7x7 convolution, stride 2"
        assert (found["stems"][0]["from_uniform"] < 1e-6) == (pattern in ("uniform", "one"))
