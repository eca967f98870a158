"""Rounding does not decide: shares and scores in float32 and bfloat16 beside float64."""

import numpy as np
import pytest
from precisions import WINDOWS, probabilities_in, shares_in, windows_of

from evenslice import audit, build_model
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation, estimate

SHARES_32, SHARES_16, PROBABILITY_32, PROBABILITY_16 = 1e-4, 0.02, 1e-5, 0.05


@pytest.fixture(scope="module")
def found(smooth):
    volume = Volume(smooth)
    model = build_model(weights="bundled", init="rgb", seed=1)
    model.module.eval()
    model = model.with_facts(normalisation=Normalisation((128.0,), (40.0,), "file"))
    windows = windows_of(volume, model)
    grey = estimate(volume, 0).mean[0]
    result = audit(
        model, volume, windows=WINDOWS, tile=64, methods=("gradient", "ablation"), seed=0
    )
    ours = {
        name: np.array([one.value for one in method.shares])
        for name, method in result.methods.items()
    }
    again = {
        precision: shares_in(model, windows, precision, grey)
        for precision in ("float64", "float32", "bf16")
    }
    return model, windows, ours, again


@pytest.fixture(scope="module")
def smooth():
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(3).normal(size=(12, 96, 96)), (1, 2, 2))
    return np.uint8(np.clip(128 + 300 * noise, 0, 255))


@pytest.mark.parametrize("method", ["gradient", "ablation"])
def test_our_shares_are_those_of_float64(found, method):
    _, _, ours, again = found
    assert np.ptp(again["float64"][method]) > 0.01  # there is something to measure
    np.testing.assert_allclose(ours[method], again["float64"][method], atol=SHARES_32, rtol=0)
    np.testing.assert_allclose(
        again["float32"][method], again["float64"][method], atol=SHARES_32, rtol=0
    )


@pytest.mark.parametrize("method", ["gradient", "ablation"])
def test_shares_in_bfloat16_are_near(found, method):
    *_, again = found
    difference = np.abs(again["bf16"][method] - again["float64"][method]).max()
    assert 0 < difference < SHARES_16


def test_probabilities_keep_their_digits(found):
    model, windows, *_ = found
    exact = [probabilities_in(model, raw, "float64") for raw in windows]
    for precision, limit in (("float32", PROBABILITY_32), ("bf16", PROBABILITY_16)):
        worst = max(
            np.abs(probabilities_in(model, raw, precision) - one).max()
            for raw, one in zip(windows, exact, strict=True)
        )
        assert 0 < worst < limit, precision
