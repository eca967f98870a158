"""The model file: what goes in comes out, and nothing else is taken for one."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from evenslice import build_model, load_model, save_model
from evenslice.errors import BadInputError
from evenslice.volume.normalisation import Normalisation


@pytest.mark.parametrize(("slices", "tie"), [(3, "none"), (5, "mirror"), (1, "uniform")])
def test_a_model_comes_back_as_it_was(tmp_path, move_weights, slices, tie):
    small = {"encoder": "test_resnet", "encoder_depth": 2, "weights": "none", "init": "random"}
    model = build_model(**small, slices=slices, classes=3, tie=tie)
    move_weights(model.module)
    model = replace(
        model,
        normalisation=Normalisation((100.5,), (41.25,), "volume"),
        training={"slices": [[0, 20]], "seed": 3},
        scores={"dice": 0.5},
    )
    save_model(tmp_path / "m.safetensors", model)
    back = load_model(tmp_path / "m.safetensors")
    for name in ("spec", "training", "scores", "stride"):
        assert getattr(back, name) == getattr(model, name)
    assert back.normalisation == Normalisation((100.5,), (41.25,), "file")
    assert not back.module.training
    assert not any("parametrizations" in key for key in back.module.state_dict())
    x = torch.randn(1, slices, 64, 64)
    with torch.no_grad():
        assert torch.equal(back.module(x), model.module.eval()(x))


def test_the_file_states_its_stem(tmp_path, make_model):
    save_model(tmp_path / "m.safetensors", make_model("green"))
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        about = json.loads(file.metadata()["evenslice"])
    assert about["schema"] == "evenslice.model/1"
    [stem] = about["stem"]["modules"]
    assert (about["stem"]["init"], stem["kind"]) == ("green", "conv")
    assert stem["module"] == "encoder.model.conv1"
    assert max(stem["norms"]) - min(stem["norms"]) < 1e-6


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (None, "holds weights but no evenslice metadata"),
        (
            '{"schema": "evenslice.model/9"}',
            "schema 'evenslice.model/9', expected 'evenslice.model/1'",
        ),
        ("{", "damaged metadata"),
    ],
)
def test_other_weights_are_refused(tmp_path, metadata, words):
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata and {"evenslice": metadata})
    with pytest.raises(BadInputError, match=words):
        load_model(path)


def test_a_missing_or_cut_file_is_refused(tmp_path, make_model):
    save_model(tmp_path / "m.safetensors", make_model())
    whole = (tmp_path / "m.safetensors").read_bytes()
    with pytest.raises(BadInputError, match="does not exist, expected a model file"):
        load_model(tmp_path / "none.safetensors")
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:size])
        with pytest.raises(BadInputError, match="is not a model file"):
            load_model(tmp_path / "cut.safetensors")
