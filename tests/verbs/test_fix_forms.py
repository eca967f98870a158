"""Fixing by an ensemble, fixing networks of other people, and one normalisation for all slots."""

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
from evenslice.model.inputs import model_of
from evenslice.model.logits import Ensemble
from evenslice.verbs.inspect import inspect
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


@pytest.mark.slow
def test_the_ensemble_is_recorded_and_used_by_everything(tmp_path, grey, make_model):
    model, out, grey = make_model("rgb"), tmp_path / "f.safetensors", grey[:5, :64, :64]
    labels = (grey > 128).astype(np.uint8)
    result = fix(model, out, tta="reversal", volume=grey, labels=labels)
    loaded = load_model(out)
    assert loaded.tta == "reversal"
    assert isinstance(loaded.module, Ensemble)
    assert all(
        torch.equal(v, loaded.network.state_dict()[k]) for k, v in model.module.state_dict().items()
    )
    assert result.certificate.symmetric
    assert result.change["probability_change"] > 0
    assert {"dice_before", "dice_after"} <= set(result.change)
    before, after = result.audits
    assert abs(before.methods["gradient"].index.value) > 10 * abs(
        after.methods["gradient"].index.value
    )
    assert after.probability_change < 1e-6 < before.probability_change
    assert certify(loaded).symmetric
    for name, reorder_axes in (("one", False), ("back", True)):
        segment(
            out,
            grey[::-1] if reorder_axes else grey,
            tmp_path / f"{name}.tif",
            output="probabilities",
        )
    one, back = (
        open_volume(tmp_path / f"{n}.tif").read((slice(None),) * 3) for n in ("one", "back")
    )
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
    with pytest.raises(
        BadInputError, match=f"not run unless you name it, expected both; give {source}@"
    ):
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
    with pytest.raises(
        BadInputError, match=r"does not fit the network .size mismatch for first.weight"
    ):
        model_of(f"{module}:seven@{tmp_path / 'own.safetensors'}")


def test_what_a_network_answers_is_seen_with_its_own_weights(module, tmp_path):
    assert model_of(f"{module}:timid").spec.answers == "probabilities"
    save_file(
        {"weight": torch.ones(1, 3, 1, 1), "bias": torch.zeros(1)}, tmp_path / "own.safetensors"
    )
    source = f"{module}:timid@{tmp_path / 'own.safetensors'}"
    assert model_of(source).spec.answers == "logits"
    fix(source, tmp_path / "f.safetensors")
    back = model_of(f"{module}:timid@{tmp_path / 'f.safetensors'}")
    assert torch.allclose(
        back.module(torch.full((1, 3, 2, 2), 5.0)), torch.full((1, 1, 2, 2), 15.0)
    )


def test_tied_weights_are_saved_as_two(module, tmp_path):
    fix(f"{module}:tied", tmp_path / "f.safetensors")
    back = model_of(f"{module}:tied@{tmp_path / 'f.safetensors'}")
    assert back.network.again is back.network[1]
    assert certify(back).symmetric


def test_a_file_for_another_function_says_which(module, tmp_path):
    fix(f"{module}:make", tmp_path / "f.safetensors")
    with pytest.raises(
        BadInputError,
        match=rf"for a network of 3 slices .{module}:make., expected 7 as {module}:seven",
    ):
        model_of(f"{module}:seven@{tmp_path / 'f.safetensors'}")


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.pop("spec"),
        lambda about: about.update(spec=[]),
        lambda about: about["spec"].pop("source"),
        lambda about: about["spec"].update(more=1),
        lambda about: about["spec"].update(slices="3"),
        lambda about: about["spec"].update(classes=-1),
        lambda about: about["spec"].update(form="onnx"),
        lambda about: about["spec"].update(tie="knot"),
        lambda about: about.update(normalisation={"mean": "x"}),
        lambda about: about.update(training=None),
        lambda about: about.update(certificate=5),
        lambda about: about.update(certificate={"float32": 0.0}),
    ],
)
def test_a_damaged_record_is_said_to_be_one(module, tmp_path, change):
    path = tmp_path / "f.safetensors"
    fix(f"{module}:make", path)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["evenslice"])
    change(about)
    save_file(load_file(path), path, {"evenslice": json.dumps(about)})
    with pytest.raises(BadInputError, match="holds damaged metadata of evenslice"):
        model_of(f"{module}:make@{path}")


@pytest.mark.parametrize(
    ("record", "message"), [("[1]", "damaged metadata"), ('{"schema": "x/9"}', "the schema 'x/9'")]
)
def test_a_record_that_is_not_understood_is_not_taken_for_plain_weights(
    module, tmp_path, record, message
):
    sys.path.insert(0, str(tmp_path))
    from their_net import make

    save_file(make().state_dict(), tmp_path / "f.safetensors", {"evenslice": record})
    with pytest.raises(BadInputError, match=message):
        model_of(f"{module}:make@{tmp_path / 'f.safetensors'}")


@pytest.mark.parametrize("slices", [-3, 0, 4, 11])
def test_a_number_of_slices_that_cannot_be_is_refused(module, tmp_path, slices):
    for more in ({}, {"init": "green"}):
        with pytest.raises(BadInputError, match="expected an odd number from 1 to 9"):
            fix(f"{module}:make", tmp_path / "f.safetensors", slices=slices, **more)
    with pytest.raises(BadInputError, match="expected an odd number from 1 to 9"):
        inspect(f"{module}:make", slices=slices)


def test_an_ensemble_needs_a_prediction(module, tmp_path):
    with pytest.raises(BadInputError, match="returns no prediction"):
        fix(f"{module}:scores", tmp_path / "f.safetensors", tta="reversal")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "the classes 0 to 3, expected 0 to 2"),
        (-1, "the classes -1 to"),
        (0.5, "hold fractions"),
    ],
)
def test_labels_that_the_model_does_not_predict_are_refused(module, tmp_path, grey, value, message):
    labels = np.zeros(grey.shape, np.float32 if value == 0.5 else np.int16)
    labels[:, ::2] = value
    with pytest.raises(BadInputError, match=message):
        fix(f"{module}:classes", tmp_path / "f.safetensors", volume=grey, labels=labels)
    assert not (tmp_path / "f.safetensors").exists()


def test_a_model_that_did_not_become_even_is_said_to_be_so(module, tmp_path):
    warned = fix(f"{module}:make", tmp_path / "f.safetensors", init="rgb").warnings
    assert "the saved model is not even" in warned[-1]
    assert fix(f"{module}:make", tmp_path / "g.safetensors").warnings == ()


@pytest.mark.parametrize("name", ["nowhere:make:x", "nowhere:", ":make"])
def test_a_name_that_is_neither_model_nor_volume_is_said_to_be_so(name):
    with pytest.raises(BadInputError, match=r"expected a model .* or a volume"):
        inspect(name)


def test_a_folder_is_not_said_to_be_missing(module, tmp_path):
    for name in ("f.pt2", f"{module}:make@f.safetensors"):
        (tmp_path / name.rpartition("@")[2]).mkdir()
        with pytest.raises(BadInputError, match="is not a file"):
            model_of(name)


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


@pytest.mark.parametrize(
    ("source", "message"), [("raw.tif", "is not a model file"), ("gone.onnx", "does not exist")]
)
def test_what_is_no_model_is_refused(source, message):
    with pytest.raises(BadInputError, match=message):
        model_of(source)
