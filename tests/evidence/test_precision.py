"""Rounding does not decide: shares in float32 and bfloat16 beside float64, by plain torch."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from evenslice import audit, build_model
from evenslice.evidence.sampling import draw_windows, read_windows
from evenslice.model.stem.find import find_stems
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation, estimate

TILE, WINDOWS = 64, 4
MEAN, STD = np.float64(128), np.float64(40)
KINDS = {"float64": torch.float64, "float32": torch.float32, "bf16": torch.bfloat16}


def normalised(raw, kind):
    return torch.from_numpy((raw.astype(np.float64) - MEAN) / STD)[None].to(kind)


def by_gradient(network, x, signs, _):
    x = x.clone().requires_grad_()
    (network(x).double() * signs).sum().backward()
    return x.grad.double().abs().sum((0, 2, 3)).numpy()


def by_ablation(network, x, signs, grey):
    with torch.no_grad():
        full, without = network(x).double() * signs, []
        for slot in range(x.shape[1]):
            ablated = x.clone()
            ablated[:, slot] = grey
            without.append(float((full - network(ablated).double() * signs).abs().sum()))
    return np.array(without)


METHODS = {"gradient": by_gradient, "ablation": by_ablation}


def shares_in(module, windows, kind, grey):
    """The mean share of every slot by method, computed in a precision."""
    network, found = copy.deepcopy(module).to(kind), {name: [] for name in METHODS}
    for raw in windows:
        pair = [normalised(one, kind) for one in (raw, raw[::-1].copy())]
        with torch.no_grad():
            signs = (sum(network(x).double() for x in pair) / 2).sign()
        for name, method in METHODS.items():
            each = [method(network, x, signs, (grey - MEAN) / STD) for x in pair]
            found[name].append(np.mean([one / one.sum() for one in each], axis=0))
    return {name: np.mean(shares, axis=0) for name, shares in found.items()}


@pytest.fixture(scope="module")
def measured():
    """A model, raw windows, their shares by the audit, and by plain torch in each precision."""
    noise = gaussian_filter(np.random.default_rng(3).normal(size=(12, 96, 96)), (1, 2, 2))
    volume = Volume(np.uint8(np.clip(128 + 300 * noise, 0, 255)))
    model = build_model("unet", "resnet18", weights="none", init="rgb", seed=1, encoder_depth=3)
    model.module.eval()
    [stem] = find_stems(model.module, 3)
    with torch.no_grad():
        stem.layer.weight[:, 0] *= 2
    norm = Normalisation((float(MEAN),), (float(STD),), "file")
    options = {"windows": WINDOWS, "tile": TILE, "methods": [*METHODS]}
    found = audit(replace(model, normalisation=norm), volume, **options)
    ours = {
        name: np.array([one.value for one in method.shares])
        for name, method in found.methods.items()
    }
    drawn = draw_windows(volume, 3, TILE, WINDOWS, 0, model.stride)
    windows = [raw for _, raw in read_windows(volume, 3, drawn)]
    grey = estimate(volume, 0).mean[0]
    again = {name: shares_in(model.module, windows, kind, grey) for name, kind in KINDS.items()}
    return model, windows, ours, again


@pytest.mark.parametrize("method", METHODS)
def test_shares_are_those_of_float64_and_in_bfloat16_near(measured, method):
    _, _, ours, again = measured
    exact = again["float64"][method]
    assert np.ptp(exact) > 0.01  # there is something to measure
    np.testing.assert_allclose(ours[method], exact, atol=1e-4, rtol=0)
    np.testing.assert_allclose(again["float32"][method], exact, atol=1e-4, rtol=0)
    assert 0 < np.abs(again["bf16"][method] - exact).max() < 0.02


@pytest.mark.parametrize(("precision", "limit"), [("float32", 1e-5), ("bf16", 0.05)])
def test_probabilities_keep_their_digits(measured, precision, limit):
    model, windows, *_ = measured

    def probability(raw, kind):
        with torch.no_grad():
            logits = copy.deepcopy(model.module).to(kind)(normalised(raw, kind))
        return logits.double().sigmoid().numpy()

    pairs = [[probability(raw, KINDS[kind]) for kind in (precision, "float64")] for raw in windows]
    assert 0 < max(np.abs(one - exact).max() for one, exact in pairs) < limit
