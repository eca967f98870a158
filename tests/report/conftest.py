"""Made audits and windows to report on: numbers like those of a real pair of models, pictures from smoothed noise."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from evenslice.evidence.window_view import Look
from evenslice.report.page import Page, Row


def method_of(shares, spread, verdict):
    """One method's entry with intervals of +-spread; the index follows from the shares."""
    half = len(shares) // 2
    pairs = [
        (shares[half + j] - shares[half - j]) / (shares[half + j] + shares[half - j])
        for j in range(1, half + 1)
    ]
    after, before = sum(shares[half + 1 :]), sum(shares[:half])
    index = (after - before) / (after + before) if half else None
    return {
        "shares": list(shares),
        "shares_low": [share - spread for share in shares],
        "shares_high": [share + spread for share in shares],
        "mirror_pairs": pairs,
        "mirror_pairs_low": [pair - spread for pair in pairs],
        "mirror_pairs_high": [pair + spread for pair in pairs],
        "mirror_index": index,
        "mirror_low": None if index is None else index - spread,
        "mirror_high": None if index is None else index + spread,
        "centre_share": shares[half],
        "verdict": verdict,
    }


def audit_of(methods, verdict, **changes):
    slices = len(next(iter(methods.values()))["shares"]) if methods else 3
    return {
        "schema": "evenslice.audit/1",
        "slices": slices,
        "windows": 64,
        "clusters": 16,
        "seed": 7,
        "margin": 0.05,
        "confidence": 0.95,
        "stems": [
            {
                "module": "encoder.conv1",
                "kind": "conv2d",
                "norms": [4.21, 6.84, 2.96, 3.1, 3.3][:slices],
            }
        ],
        "normalisation": {"uniform": True, "mean": 127.25, "std": 41.5, "source": "file"},
        "methods": methods,
        "reversal": {"probability_change": 0.0312, "flipped_fraction": 0.0184},
        "lag": None,
        "checks": {
            "completeness": {"value": 3.1e-5, "tolerance": 0.01, "passed": True, "reason": ""},
            "mirror-tied twin": {"value": 0.0, "tolerance": 1e-5, "passed": True, "reason": ""},
            "agreement of families": {
                "value": 0.31,
                "tolerance": 0.2,
                "passed": False,
                "reason": "families disagree",
            },
            "stem norms": {
                "value": None,
                "tolerance": None,
                "passed": None,
                "reason": "this model shows no weights",
            },
        },
        "verdict": verdict,
        **changes,
    }


def blobs(seed, shape, sigma, size=1.0):
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma, mode="wrap")
    return size * noise / noise.std()


def look_of(label, weights, shape=(160, 160), seed=3, dtype=np.uint8):
    """A window with dark membranes where smooth noise crosses zero."""
    slices = len(weights)
    field = blobs(seed, (slices + 2, *shape), (1.2, 7, 7))[1:-1]
    membrane = np.exp(-((field / 0.16) ** 2))
    texture = blobs(seed + 1, field.shape, (0.2, 1, 1), 9.0)
    raw = np.clip(185 - 120 * membrane + texture, 0, 255).astype(dtype)
    speckle = np.abs(blobs(seed + 2, field.shape, (0.2, 0.8, 0.8)))
    attribution = (np.array(weights)[:, None, None] * (0.08 + membrane) * speckle).astype(
        np.float32
    )
    centre = slices // 2
    prediction = np.clip(membrane[centre] + blobs(seed + 3, shape, 2, 0.05), 0, 1).astype(
        np.float32
    )
    return Look(
        label,
        (48, 512, 256),
        raw,
        attribution,
        prediction,
        membrane[centre] > 0.5,
        (30.0, 6.0, 6.0),
    )


@pytest.fixture
def make_audit():
    return audit_of


@pytest.fixture
def make_method():
    return method_of


@pytest.fixture
def make_look():
    return look_of


@pytest.fixture
def leaning():
    methods = {
        "gradient": method_of((0.2628, 0.5487, 0.1885), 0.0061, "asymmetric"),
        "integrated-gradients": method_of((0.241, 0.578, 0.181), 0.009, "asymmetric"),
        "ablation": method_of((0.214, 0.604, 0.182), 0.031, "inconclusive"),
        "shapley": method_of((0.222, 0.597, 0.181), 0.021, "asymmetric"),
    }
    return audit_of(methods, "asymmetric", lag={"slices": 0.0015, "low": 0.0005, "high": 0.0025})


@pytest.fixture
def even():
    methods = {
        "gradient": method_of((0.24896, 0.50193, 0.24911), 0.0009, "symmetric"),
        "integrated-gradients": method_of((0.2382, 0.5234, 0.2384), 0.0012, "symmetric"),
        "ablation": method_of((0.2113, 0.5766, 0.2121), 0.008, "symmetric"),
        "shapley": method_of((0.2154, 0.5694, 0.2152), 0.006, "symmetric"),
    }
    stems = [{"module": "encoder.conv1", "kind": "conv2d", "norms": [6.84, 6.84, 6.84]}]
    return audit_of(methods, "symmetric", stems=stems)


@pytest.fixture
def page(leaning, even):
    return Page(
        title="Two ways to start the same model",
        rows=[Row("rgb", leaning, 0.8731, 0.7748, "control"), Row("green", even, 0.8724, 0.7737)],
        looks=[look_of("rgb", (0.263, 0.549, 0.189)), look_of("green", (0.249, 0.502, 0.249))],
        facts={
            "Volume": "demo volume, 60 x 256 x 256",
            "Training steps": "400",
            "Encoder": "resnet18",
        },
        command="evenslice demo ./evenslice-demo --seed 7",
        intro="One network trained twice on the same slices; only the way its first layer was filled differs.",
    )
