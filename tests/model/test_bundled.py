"""The bundled encoder: it loads, it is what its card says, and its features say something."""

import re
from pathlib import Path

import pytest
import skimage.data
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import evenslice

FOLDER = Path(evenslice.__file__).parent / "model" / "bundled"
WEIGHTS = FOLDER / "resnet18_conv1-layer2.safetensors"
CARD = (FOLDER / "CARD.md").read_text()
PHOTOGRAPHS = "astronaut.png chelsea.png coffee.png rocket.jpg china.jpg flower.jpg"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return load_file(WEIGHTS)


@pytest.fixture(scope="module")
def facts() -> dict[str, str]:
    with safe_open(WEIGHTS, "pt") as file:
        return file.metadata()


@pytest.fixture(scope="module")
def encoder(state):
    model = timm.create_model("resnet18", features_only=True, out_indices=(0, 1, 2))
    model.load_state_dict(state, strict=True)
    return model.eval()


def photograph(facts) -> Tensor:
    """A crop of a colour photograph, normalised as in pretraining, (1, 3, 128, 128)."""
    mean, std = (
        torch.tensor([float(v) for v in facts[key].split(",")]).view(1, 3, 1, 1)
        for key in ("mean", "std")
    )
    pixels = torch.from_numpy(skimage.data.astronaut()[:128, 160:288].copy())
    return (pixels.permute(2, 0, 1)[None] / 255 - mean) / std


def test_loads_strictly_and_only_what_it_says(encoder, facts):
    assert facts["timm"] == "resnet18"
    assert facts["missing"] == "layer3, layer4, fc"
    assert [len(facts[key].split(",")) for key in ("mean", "std")] == [3, 3]
    assert "pretraining/pretrain.py" in facts["origin"]
    parts = {key.split(".")[0] for key in encoder.state_dict()}
    assert parts == {"conv1", "bn1", "layer1", "layer2"}


def test_is_small_float16_and_finite(state):
    assert WEIGHTS.stat().st_size < 1.6e6
    for key, value in state.items():
        counter = key.endswith("num_batches_tracked")
        assert value.dtype == (torch.int64 if counter else torch.float16), key
        assert torch.isfinite(value).all(), key
        if key.endswith("running_var"):
            assert (value > 0).all(), f"{key}: a variance underflowed in float16"


def test_the_card_states_the_stem_norms_and_every_photograph(state):
    stated = re.search(
        r"^Stem norms R / G / B: ([\d.]+) / ([\d.]+) / ([\d.]+)$", CARD, re.MULTILINE
    )
    measured = state["conv1.weight"].float().pow(2).sum((0, 2, 3)).sqrt().tolist()
    assert [float(value) for value in stated.groups()] == pytest.approx(measured, abs=1e-3)
    assert all(name in CARD for name in PHOTOGRAPHS.split())


@torch.no_grad()
def test_features_are_alive(encoder, facts):
    torch.manual_seed(0)
    photo = photograph(facts)
    noise = torch.randn_like(photo) * photo.std() + photo.mean()
    for level, (of_photo, of_noise) in enumerate(zip(encoder(photo), encoder(noise), strict=True)):
        both = torch.cat([of_photo, of_noise])
        spread = both.std((0, 2, 3))
        assert (spread > 1e-3 * spread.median()).all(), f"level {level}: a channel says nothing"
        assert of_photo.std((2, 3)).median() > 1e-2, f"level {level}: flat on a photograph"
        mean_photo, mean_noise = of_photo.mean((0, 2, 3)), of_noise.mean((0, 2, 3))
        alike = torch.cosine_similarity(mean_photo, mean_noise, dim=0)
        assert alike < 0.99, f"level {level}: cannot tell a photograph from noise"


@torch.no_grad()
def test_channels_are_not_interchangeable(encoder, facts):
    photo = photograph(facts)
    first, swapped = encoder(photo)[0], encoder(photo.flip(1))[0]
    assert (first - swapped).abs().mean() > 1e-3 * first.abs().mean()
