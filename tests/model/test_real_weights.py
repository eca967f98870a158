"""The laws on real pretrained weights and a real window; skipped where they are not at hand."""

import pytest
import tifffile
import torch
from families import answer, difference, order_change, train_tied

from evenslice import build_model, mirror_stem, uniform_stem

REAL = {
    "resnet18": ("unet", "resnet18_conv1-layer3.safetensors", 4, 64),
    "mobilenetv2_100": ("fpn", "mobilenetv2_100.safetensors", None, 64),
    "vit_tiny_patch16_224": ("dpt", "vit_tiny_patch16_224.safetensors", None, 64),
}
CASES = [
    pytest.param(
        encoder,
        slices,
        id=f"{encoder}-{slices}",
        marks=() if (encoder, slices) == ("resnet18", 5) else (pytest.mark.slow,),
    )
    for encoder in REAL
    for slices in (3, 5, 9)
]

TRAINED_SLOWLY = [
    pytest.param("vit_tiny_patch16_224", 5, id="vit_tiny_patch16_224-5", marks=pytest.mark.slow)
]


def build(shared, encoder, slices, init):
    arch, file, depth, _ = REAL[encoder]
    options = {"weights": shared / "weights" / file, "encoder_depth": depth, "classes": 2}
    return build_model(arch, encoder, slices=slices, init=init, **options).module.eval()


def window(shared, slices):
    """A real window, normalised by one mean and one std, (1, S, 64, 64)."""
    raw = tifffile.imread(shared / "data" / "isbi2012" / "raw.tif")
    part = raw[12 : 12 + slices, 100:164, 200:264]
    return torch.from_numpy((part - part.mean()) / part.std())[None].double()


def reversed_change(network, slices, dtype):
    return order_change(network.to(dtype), slices, 64, dtype, reversal_only=True)


@pytest.mark.parametrize(("encoder", "slices"), CASES)
def test_real_stems_are_asymmetric_and_made_symmetric(shared, encoder, slices):
    rgb, even = build(shared, encoder, 3, "rgb"), build(shared, encoder, slices, "green")
    assert reversed_change(rgb, 3, torch.float32) > 1e-2
    assert order_change(even, slices, 64, torch.float32) < 1e-5
    assert order_change(even.double(), slices, 64, torch.float64) < 1e-12
    x = window(shared, slices)
    assert difference(answer(even, x.flip(1)), answer(even, x)) < 1e-12


@pytest.mark.parametrize(("encoder", "slices"), CASES)
def test_the_mean_of_real_weights_answers_like_the_grey_photograph(shared, encoder, slices):
    """In double precision: in single, a ViT carries the rounding of its stem to 1e-5."""
    rgb = build(shared, encoder, 3, "rgb").double()
    grey = window(shared, 1)
    expected = answer(rgb, grey.expand(-1, 3, -1, -1))
    mean = uniform_stem(rgb, slices, "mean")
    assert difference(answer(mean, grey.expand(-1, slices, -1, -1)), expected) < 1e-12


@pytest.mark.parametrize(
    ("encoder", "slices"), [c for c in CASES if "vit" not in c.id or c.marks] + TRAINED_SLOWLY
)
def test_a_mirror_stem_of_real_weights_stays_one(shared, encoder, slices):
    network = mirror_stem(build(shared, encoder, slices, "rgb"), slices)
    assert reversed_change(network, slices, torch.float32) < 1e-5
    trained = train_tied(network, slices, 64, steps=5)
    assert reversed_change(trained, slices, torch.float32) < 1e-5
    assert reversed_change(trained, slices, torch.float64) < 1e-12
