"""Real EM and real pretrained weights, where they are at hand beside the checkout."""

import numpy as np
import pytest
import torch

from evenslice import audit, build_model, open_volume, train
from evenslice.model.stem.find import find_stems
from evenslice.model.stem.slots import norms_per_slot
from evenslice.options import TrainOptions

ENCODERS = {
    "resnet18": ("unet", 4, "resnet18_conv1-layer3.safetensors", (1.91, 2.17, 1.53)),
    "mobilenetv2_100": ("unet", None, "mobilenetv2_100.safetensors", (9.25, 13.36, 5.86)),
    "vit_tiny_patch16_224": ("dpt", None, "vit_tiny_patch16_224.safetensors", (10.58, 13.19, 8.19)),
}


def model_of(shared, encoder, init):
    arch, depth, weights, _ = ENCODERS[encoder]
    return build_model(
        arch, encoder, weights=shared / "weights" / weights, init=init, encoder_depth=depth
    )


@pytest.mark.parametrize("encoder", ENCODERS)
def test_pretrained_stems_prefer_green_over_red_over_blue(shared, encoder):
    norms = norms_per_slot(find_stems(model_of(shared, encoder, "rgb").module)[0])
    np.testing.assert_allclose(norms, ENCODERS[encoder][3], rtol=0.01)


@pytest.mark.parametrize(
    "encoder",
    [next(iter(ENCODERS)), *(pytest.param(e, marks=pytest.mark.slow) for e in list(ENCODERS)[1:])],
)
def test_before_training_rgb_leans_and_green_does_not(shared, encoder):
    volume = open_volume(shared / "data" / "vnc" / "raw.tif")
    rgb, green = (
        audit(model_of(shared, encoder, init), volume, windows=6, tile=64, methods=["gradient"])
        for init in ("rgb", "green")
    )
    assert rgb.verdict == "asymmetric"
    assert (
        rgb.methods["gradient"].index.value < -0.05
    )  # previous sits in the red slot, next in the blue
    assert green.verdict == "symmetric"
    shares = [share.value for share in green.methods["gradient"].shares]
    np.testing.assert_allclose(shares, 1 / 3, atol=1e-6)
    assert green.probability_change < 1e-5


@pytest.mark.parametrize(
    "name",
    ["isbi2012/raw", "isbi2012/membranes", "isbi2012/neurons", "vnc/raw", "vnc/mitochondria"],
)
def test_real_stacks_open_lazily_and_whole(shared, name):
    import tifffile

    path = shared / "data" / f"{name}.tif"
    expected = tifffile.imread(path)
    volume = open_volume(path)
    assert (volume.shape, volume.dtype) == (expected.shape, expected.dtype)
    box = (slice(3, 7), slice(100, 300), slice(17, 400))
    np.testing.assert_array_equal(volume.read(box), expected[box])


@pytest.mark.slow
@pytest.mark.parametrize(("init", "verdict"), [("rgb", "asymmetric"), ("green", "symmetric")])
def test_the_lean_outlives_training(shared, tmp_path, init, verdict):
    torch.set_num_threads(2)
    raw, labels = (shared / "data" / "isbi2012" / f"{name}.tif" for name in ("raw", "membranes"))
    weights = shared / "weights" / ENCODERS["resnet18"][2]
    recipe = TrainOptions(encoder_depth=4, weights=str(weights), init=init, steps=200)
    trained = train(raw, labels, tmp_path / "m.safetensors", recipe)
    assert trained.scores.dice > 0.75
    assert audit(trained.model, raw, methods=["gradient"]).verdict == verdict
