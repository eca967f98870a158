"""Fixing by an ensemble, fixing networks of other people, and one normalisation for all slots."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from evenslice import audit, fix, load_model, segment
from evenslice.errors import BadInputError
from evenslice.evidence.certificate import certify
from evenslice.model.wrapping import Ensemble
from evenslice.verbs.inspect import inspect
from evenslice.verbs.models import model_of
from evenslice.volume.files import open_volume
from evenslice.volume.normalisation import Normalisation
from their_networks import NETWORKS


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "their_net.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "their_net"
    sys.modules.pop("their_net", None)


def test_the_ensemble_is_recorded_and_used_by_everything(tmp_path, grey, make_model):
    model, out, grey = make_model("rgb"), tmp_path / "f.safetensors", grey[:5, :64, :64]
    labels = (grey > 128).astype(np.uint8)
    result = fix(model, out, tta="reversal", volume=grey, labels=labels)
    loaded = load_model(out)
    assert loaded.tta == "reversal"
    assert isinstance(loaded.module, Ensemble)
    assert all(torch.equal(v, loaded.network.state_dict()[k]) for k, v in model.module.state_dict().items())
    assert result.certificate.symmetric
    assert result.change["probability_change"] > 0
    assert {"dice_before", "dice_after"} <= set(result.change)
    before, after = result.audits
    assert abs(before.methods["gradient"].index.value) > 10 * abs(after.methods["gradient"].index.value)
    assert after.probability_change < 1e-6 < before.probability_change
    assert certify(loaded).symmetric
    for name, turned in (("one", False), ("back", True)):
        segment(out, grey[::-1] if turned else grey, tmp_path / f"{name}.tif", output="probabilities")
    one, back = (open_volume(tmp_path / f"{n}.tif").read((slice(None),) * 3) for n in ("one", "back"))
    assert np.abs(one.astype(int) - back[::-1]).max() <= 1
    segment(out, grey, tmp_path / "single.tif", output="probabilities", tta="none")
    single = open_volume(tmp_path / "single.tif").read((slice(None),) * 3)
    assert np.abs(one.astype(int) - single).max() > 1


def test_one_way_to_make_a_model_even_is_enough(tmp_path, make_model):
    for more in ({"init": "green"}, {"tie": "mirror"}):
        with pytest.raises(BadInputError, match="choose one"):
            fix(make_model("rgb"), tmp_path / "f.safetensors", tta="reversal", **more)
    assert list(tmp_path.iterdir()) == []


def test_an_init_widens(tmp_path, make_model):
    fix(make_model("rgb"), tmp_path / "f.safetensors", init="mean", slices=5, tie="mirror")
    fixed = load_model(tmp_path / "f.safetensors")
    assert (fixed.slices, fixed.spec.init, fixed.spec.tie) == (5, "mean", "mirror")
    assert fixed.certificate["symmetric"]


def test_the_change_by_a_wider_stem_is_measured_on_the_same_centres(module, tmp_path, grey):
    result = fix(f"{module}:make", tmp_path / "f.safetensors", init="mean", slices=5, volume=grey)
    assert len(result.after[0]["norms"]) == 5
    assert result.change["probability_change"] > 0
    assert result.certificate.symmetric


def test_one_normalisation_replaces_those_of_each_slot(module, tmp_path, grey):
    uneven = {"mean": [120.0, 128.0, 136.0], "std": [30.0, 40.0, 50.0]}
    result = fix(f"{module}:make", tmp_path / "f.safetensors", volume=grey, **uneven)
    assert result.model.normalisation == Normalisation((128.0,), (40.0,), "option")
    assert "normalised by different numbers" in result.warnings[0]
    assert result.change["normalisation_change"] > 0
    assert result.certificate.symmetric


def test_a_network_of_other_people_is_fixed_and_comes_back(module, tmp_path, grey):
    source, out = f"{module}:make", tmp_path / "f.safetensors"
    result = fix(source, out, mean=[128.0], std=[40.0], volume=grey)
    assert result.certificate.symmetric
    assert result.change["batch_norms"] == 1
    assert result.audits[1].verdict != "asymmetric"
    with pytest.raises(BadInputError, match=f"not run unless you name it, expected both; give {source}@"):
        load_model(out)
    back = model_of(f"{source}@{out}")
    assert back.certificate["symmetric"]
    assert back.normalisation == Normalisation((128.0,), (40.0,), "file")
    assert certify(back).symmetric
    assert inspect(f"{source}@{out}").to_dict()["stems"][0]["pattern"] == "mirror"
    from their_net import make

    network = make()
    network.load_state_dict(load_file(out))  # the file fits the user's own network as it is
    assert torch.equal(network.first.weight, back.network.first.weight)


def test_weights_of_their_own_are_loaded(module, tmp_path):
    sys.path.insert(0, str(tmp_path))
    from their_net import make

    weights = {k: v + 1 for k, v in make().state_dict().items()}
    save_file(weights, tmp_path / "own.safetensors")
    model = model_of(f"{module}:make@{tmp_path / 'own.safetensors'}")
    assert torch.equal(model.network.first.weight, weights["first.weight"])
    with pytest.raises(BadInputError, match="does not fit the network"):
        model_of(f"{module}:seven@{tmp_path / 'own.safetensors'}")


def test_their_network_widens_and_comes_back(module, tmp_path):
    fix(f"{module}:make", tmp_path / "f.safetensors", init="green", slices=5)
    back = model_of(f"{module}:make@{tmp_path / 'f.safetensors'}")
    assert (back.slices, back.network.first.in_channels) == (5, 5)
    assert certify(back).symmetric


def test_a_classifier_is_made_even_but_not_audited(module, tmp_path, grey):
    result = fix(f"{module}:scores", tmp_path / "f.safetensors")
    assert result.certificate.symmetric
    for verb in (
        lambda: audit(f"{module}:scores", grey),
        lambda: segment(f"{module}:scores", grey, tmp_path / "s.tif"),
    ):
        with pytest.raises(BadInputError, match="returns no prediction"):
            verb()


def test_their_network_segments_with_the_volumes_own_normalisation(module, tmp_path, grey):
    segment(f"{module}:make", grey, tmp_path / "s.tif")
    assert open_volume(tmp_path / "s.tif").shape == grey.shape


def test_the_ending_follows_the_form(module, tmp_path):
    with pytest.raises(BadInputError, match=r"expected \.safetensors for this model"):
        fix(f"{module}:make", tmp_path / "f.pt2")


@pytest.mark.parametrize(("source", "message"), [("raw.tif", "is not a model file"), ("gone.onnx", "does not exist")])
def test_what_is_no_model_is_refused(source, message):
    with pytest.raises(BadInputError, match=message):
        model_of(source)
