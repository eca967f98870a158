"""An encoder that was pretrained on grey images, from its file to the audit of a trained model."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from scipy.ndimage import gaussian_filter

from evenslice import audit, build_model, load_model, train
from evenslice.model.checkpoint import stem_record
from evenslice.report.tables import print_inspected
from evenslice.verbs.inspect import inspect
from evenslice.volume.normalisation import Normalisation

AUDIT = {"methods": ["gradient"], "windows": 12, "tile": 32}


@pytest.fixture
def raw():
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(15, 128, 128)), (1, 2, 2))
    return np.uint8(np.clip(128 + 300 * noise, 0, 255))


@pytest.fixture
def weights(tmp_path):
    """A checkpoint as MoCo writes it, as that of CEM500K."""
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", in_chans=1)
    state = {f"module.encoder_q.{key}": tensor for key, tensor in net.state_dict().items()}
    state["module.queue"] = torch.zeros(4, 8)
    torch.save({"epoch": 200, "state_dict": state, "norms": [0.57, 0.13]}, tmp_path / "w.pth.tar")
    return tmp_path / "w.pth.tar"


def test_it_is_symmetric_before_training_and_with_a_tie_after(weights, raw, tmp_path, capsys):
    options = {
        "weights": str(weights),
        "encoder": "test_resnet",
        "encoder_depth": 3,
        "init": "mirror",
    }
    model = replace(build_model(**options), normalisation=Normalisation((128.0,), (40.0,)))
    assert audit(model, raw, **AUDIT).verdict == "symmetric"
    options |= {"tie": "mirror", "steps": 3, "batch": 2, "crop": 32}
    path = tmp_path / "m.safetensors"
    train(raw, np.uint8(raw > 128), path, **options)
    trained = load_model(path)
    [stem] = stem_record(trained)
    assert stem["pattern"] == "mirror" and stem["from_uniform"] > 0  # training told slots apart
    assert audit(trained, raw, **AUDIT).verdict == "symmetric"
    found = inspect(path)
    assert found.to_dict()["spec"]["channels"] == 1
    print_inspected(found)
    assert "init mirror from one grey channel, tie mirror" in capsys.readouterr().out
