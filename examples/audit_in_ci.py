"""Audit a model in continuous integration: the build fails if the model is asymmetric.

    MODEL=model.safetensors VOLUME=raw.tif pytest examples/audit_in_ci.py

MODEL is a file (.safetensors, .onnx) or package.module:callable; MEAN and STD are what it was
normalised with, in raw intensities. Without MODEL a small network with a uniform stem is audited on
a phantom. The same in a shell, with exit code 1:
    evenslice audit MODEL VOLUME --fail-above 0.05
"""

import os

import pytest

from evenslice import assert_symmetric, build_model
from evenslice.data.phantom import phantom


def number(name: str) -> list[float] | None:
    return [float(os.environ[name])] if name in os.environ else None


@pytest.fixture(scope="module")
def volume():
    return os.environ.get("VOLUME") or phantom((18, 96, 96)).raw


def test_the_model_is_symmetric(volume):
    model = os.environ.get("MODEL") or build_model(weights="none", encoder_depth=3, init="green")
    normalisation = (
        {"mean": number("MEAN"), "std": number("STD")}
        if "MODEL" in os.environ
        else {"mean": [128], "std": [40]}
    )
    found = assert_symmetric(
        model,
        volume,
        tile=int(os.environ.get("TILE", "48")),
        margin=0.05,
        methods=["gradient"],
        **normalisation,
    )
    assert found.methods["gradient"].index is not None


def test_an_asymmetric_model_fails(volume):
    asymmetric = build_model(weights="none", encoder_depth=3, init="green")
    asymmetric.module.encoder.model.conv1.weight.data[:, 0] *= (
        3  # the previous slice counts three times
    )
    with pytest.raises(AssertionError, match="evenslice fix"):
        assert_symmetric(asymmetric, volume, tile=48, methods=["gradient"], mean=[128], std=[40])
