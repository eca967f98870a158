"""Fixing external models: a callable of the user's with its weights."""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from evenslice import audit, fix, load_model, segment
from evenslice.errors import BadInputError
from evenslice.evidence.certificate import certify
from evenslice.model.opening import model_of
from evenslice.verbs.inspect import inspect
from evenslice.volume.files import open_volume
from evenslice.volume.normalisation import Normalisation
from their_networks import NETWORKS


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "their_net.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield "their_net"
    sys.modules.pop("their_net", None)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "f.safetensors"


def test_it_is_fixed_and_comes_back(module, out, grey):
    source = f"{module}:make"
    result = fix(source, out, mean=[128.0], std=[40.0], volume=grey)
    assert result.certificate.symmetric
    assert result.change["batch_norms"] == 1
    assert result.audits[1].verdict != "asymmetric"
    with pytest.raises(BadInputError, match=f"not run unless you name it, .* give {source}@"):
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


def test_a_wider_stem_comes_back_and_its_change_is_measured_on_the_same_centres(module, out, grey):
    result = fix(f"{module}:make", out, init="mean", slices=5, volume=grey)
    assert len(result.after[0]["norms"]) == 5
    assert result.change["probability_change"] > 0
    assert result.certificate.symmetric
    back = model_of(f"{module}:make@{out}")
    assert (back.slices, back.network.first.in_channels) == (5, 5)


def test_one_normalisation_replaces_those_of_each_slot(module, out, grey):
    by_slot = {"mean": [120.0, 128.0, 136.0], "std": [30.0, 40.0, 50.0]}
    result = fix(f"{module}:make", out, volume=grey, **by_slot)
    assert result.model.normalisation == Normalisation((128.0,), (40.0,), "option")
    assert "normalised by different numbers" in result.warnings[0]
    assert result.change["normalisation_change"] > 0
    assert result.certificate.symmetric


def test_weights_of_their_own_are_loaded(module, tmp_path):
    from their_net import make

    weights = {k: v + 1 for k, v in make().state_dict().items()}
    save_file(weights, tmp_path / "own.safetensors")
    model = model_of(f"{module}:make@{tmp_path / 'own.safetensors'}")
    assert torch.equal(model.network.first.weight, weights["first.weight"])
    with pytest.raises(BadInputError, match=r"does not fit .*first.weight \(6, 3, 3, 3\) for"):
        model_of(f"{module}:seven@{tmp_path / 'own.safetensors'}")


def test_what_a_network_answers_is_found_with_its_own_weights(module, tmp_path, out):
    assert model_of(f"{module}:timid").spec.answers == "probabilities"
    weights = {"weight": torch.ones(1, 3, 1, 1), "bias": torch.zeros(1)}
    save_file(weights, tmp_path / "own.safetensors")
    source = f"{module}:timid@{tmp_path / 'own.safetensors'}"
    assert model_of(source).spec.answers == "logits"
    fix(source, out)
    answer = model_of(f"{module}:timid@{out}").module(torch.full((1, 3, 2, 2), 5.0))
    assert torch.allclose(answer, torch.full((1, 1, 2, 2), 15.0))


def test_tied_weights_are_saved_as_two(module, out):
    fix(f"{module}:tied", out)
    back = model_of(f"{module}:tied@{out}")
    assert back.network.again is back.network[1]
    assert certify(back).symmetric


def test_a_file_for_another_function_says_which(module, out):
    fix(f"{module}:make", out)
    message = r"does not fit .*first.weight \(6, 3, 3, 3\) for \(6, 7, 3, 3\)"
    with pytest.raises(BadInputError, match=message):
        model_of(f"{module}:seven@{out}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spec", None),
        ("spec", {"more": 1}),
        ("spec", {"slices": "3"}),
        ("spec", {"form": "onnx"}),
        ("spec", {"tie": "knot"}),
        ("normalisation", {"mean": "x"}),
        ("training", None),
        ("certificate", 5),
    ],
)
def test_damaged_metadata_are_refused(module, out, key, value):
    fix(f"{module}:make", out)
    with safe_open(out, "pt") as file:
        metadata = json.loads(file.metadata()["evenslice"])
    metadata[key] = metadata[key] | value if key == "spec" and value else value
    save_file(load_file(out), out, {"evenslice": json.dumps(metadata)})
    with pytest.raises(BadInputError, match="holds damaged metadata of evenslice"):
        model_of(f"{module}:make@{out}")


@pytest.mark.parametrize(
    ("metadata", "message"), [("[1]", "damaged metadata"), ('{"schema": "x/9"}', "schema 'x/9'")]
)
def test_metadata_not_understood_are_not_taken_for_plain_weights(module, out, metadata, message):
    from their_net import make

    save_file(make().state_dict(), out, {"evenslice": metadata})
    with pytest.raises(BadInputError, match=message):
        model_of(f"{module}:make@{out}")


@pytest.mark.parametrize("slices", [-3, 4, 11])
def test_a_number_of_slices_that_cannot_be_is_refused(module, out, slices):
    for more in ({}, {"init": "green"}):
        with pytest.raises(BadInputError, match="expected an odd number from 1 to 9"):
            fix(f"{module}:make", out, slices=slices, **more)
    with pytest.raises(BadInputError, match="expected an odd number from 1 to 9"):
        inspect(f"{module}:make", slices=slices)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "the classes 0 to 3, expected 0 to 2"),
        (-1, "the classes -1 to"),
        (0.5, "holds fractions"),
    ],
)
def test_labels_that_the_model_does_not_predict_are_refused(module, out, grey, value, message):
    labels = np.zeros(grey.shape, np.float32 if value == 0.5 else np.int16)
    labels[:, ::2] = value
    with pytest.raises(BadInputError, match=message):
        fix(f"{module}:classes", out, volume=grey, labels=labels)
    assert not out.exists()


def test_a_model_that_did_not_become_symmetric_is_warned_of(module, out, tmp_path):
    assert "is not symmetric" in fix(f"{module}:make", out, init="rgb").warnings[-1]
    assert fix(f"{module}:make", tmp_path / "g.safetensors").warnings == ()


def test_a_classifier_is_fixed_but_neither_audited_nor_segments(module, out, tmp_path, grey):
    scores = f"{module}:scores"
    assert fix(scores, out).certificate.symmetric
    for verb in (
        lambda: audit(scores, grey),
        lambda: segment(scores, grey, tmp_path / "s.tif"),
        lambda: fix(scores, tmp_path / "g.safetensors", tta="reversal"),
    ):
        with pytest.raises(BadInputError, match="expected a prediction"):
            verb()


def test_it_segments_with_the_volumes_own_normalisation(module, tmp_path, grey):
    segment(f"{module}:make", grey, tmp_path / "s.tif")
    assert open_volume(tmp_path / "s.tif").shape == grey.shape


def test_the_ending_follows_the_form(module, tmp_path):
    with pytest.raises(BadInputError, match=r"expected \.safetensors for this model"):
        fix(f"{module}:make", tmp_path / "f.pt2")


def test_what_is_no_model_is_refused(module, tmp_path):
    (tmp_path / "f.pt2").mkdir()
    (tmp_path / "f.safetensors").mkdir()
    for source, message in (
        ("raw.tif", "is not a model file"),
        ("gone.onnx", "does not exist"),
        ("f.pt2", "is not a file"),
        (f"{module}:make@f.safetensors", "is not a file"),
    ):
        with pytest.raises(BadInputError, match=message):
            model_of(source)
    for name in ("nowhere:make:x", "nowhere:", ":make"):
        with pytest.raises(BadInputError, match=r"expected a model .* or a volume"):
            inspect(name)
