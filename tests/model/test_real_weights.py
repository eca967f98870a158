"""The laws on real pretrained weights: a package's, and those of files where they are at hand."""

import copy

import pytest
import torch
from families import answer, difference, order_change, train_tied

from evenslice import build_model, initialise_stem, mirror_stem
from evenslice.data.phantom import phantom

FILES = {
    "resnet18": ("unet", "resnet18_conv1-layer3.safetensors", 4),
    "mobilenetv2_100": ("fpn", "mobilenetv2_100.safetensors", None),
    "vit_tiny_patch16_224": ("dpt", "vit_tiny_patch16_224.safetensors", None),
}
CASES = [("tf_efficientnet_lite0", 5)] + [
    pytest.param(encoder, slices, marks=pytest.mark.slow)
    for encoder in ("tf_efficientnet_lite0", *FILES)
    for slices in (3, 5, 9)
    if (encoder, slices) != ("tf_efficientnet_lite0", 5)
]


@pytest.fixture
def rgb(request, encoder):
    arch, weights, depth = "unet", "imagenet", 3
    if encoder in FILES:
        arch, file, depth = FILES[encoder]
        weights = request.getfixturevalue("shared") / "weights" / file
    options = {"weights": weights, "encoder_depth": depth, "classes": 2, "init": "rgb"}
    return build_model(arch, encoder, **options).module.eval().double()


@pytest.mark.parametrize(("encoder", "slices"), CASES)
def test_real_stems_are_asymmetric_and_made_symmetric(rgb, encoder, slices):
    raw = phantom((slices, 64, 64), 0).raw
    x = torch.from_numpy((raw - raw.mean()) / raw.std())[None].double()
    grey = x[:, :1]
    assert difference(answer(rgb, x[:, [0, 1, 2]]), answer(rgb, x[:, [2, 1, 0]])) > 1e-2
    expected = answer(rgb, grey.expand(-1, 3, -1, -1))
    for init in ("green", "mean", "mirror", "centre"):
        network = initialise_stem(copy.deepcopy(rgb), slices, init)
        assert difference(answer(network, x.flip(1)), answer(network, x)) < 1e-12
        if init in ("green", "mean"):
            assert order_change(network, slices, 64, torch.float64) < 1e-12
        if init != "green":
            assert difference(answer(network, grey.expand_as(x)), expected) < 1e-12
    network = mirror_stem(initialise_stem(rgb, slices, "rgb").float(), slices)
    trained = train_tied(network, slices, 64, steps=5)
    assert order_change(trained, slices, 64, torch.float32, reversal_only=True) < 1e-5
    assert order_change(trained.double(), slices, 64, torch.float64, reversal_only=True) < 1e-12
