"""What many tests share: small volumes, a small model, and the real data where it is at hand."""

import copy
import os
import signal
from dataclasses import replace
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers of a run share the cores

import numpy as np
import pytest
import torch

from evenslice.model.build import build_model
from evenslice.model.spec import Model
from evenslice.volume.normalisation import Normalisation
from moved import perturb

REPOSITORY = Path(__file__).resolve().parent.parent
torch.set_num_threads(1)
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in the background of a shell, whose children would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real EM volumes and weights beside the checkout; not part of the project."""
    folder = Path(os.environ.get("EVENSLICE_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(
            "the folder of real data and weights is not beside the checkout (its terms forbid "
            "passing it on)"
        )
    return folder


@pytest.fixture
def grey() -> np.ndarray:
    """A smooth random uint8 volume (9, 64, 96)."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(0).normal(size=(9, 64, 96)), (1, 2, 2))
    return np.uint8(np.clip(128 + 300 * noise, 0, 255))


@pytest.fixture(scope="session")
def make_model():
    """Return a small untrained model: U-Net on three stages of ResNet-18, with a normalisation."""

    @cache
    def build(**given: object) -> Model:
        model = build_model("unet", "resnet18", weights="none", encoder_depth=3, **given)
        model.module.eval()
        return replace(model, normalisation=Normalisation((128.0,), (40.0,), "file"))

    def make(
        init: str = "rgb", slices: int = 3, tie: str = "none", classes: int = 1, seed: int = 0
    ) -> Model:
        model = build(init=init, slices=slices, tie=tie, classes=classes, seed=seed)
        return replace(model, module=copy.deepcopy(model.module))

    return make


@pytest.fixture
def move_weights():
    """Return the function that moves every parameter of a network."""
    return perturb
