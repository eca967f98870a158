"""Made audits, windows and scores: numbers like those of a real pair of models."""

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter

from evenslice.evidence.result import Audit, Check, MethodResult
from evenslice.evidence.stats import Interval
from evenslice.evidence.window_view import WindowView
from evenslice.labels.metrics import Scores
from evenslice.volume.normalisation import Normalisation

CHECKS = {
    "completeness": Check(3.1e-5, 0.01, True, ""),
    "mirror_twin": Check(0.0, 1e-5, True, ""),
    "agreement": Check(0.31, 0.2, False, "methods disagree"),
    "stem_norms": Check(None, None, None, "this model shows no weights"),
}


APART = {"kernels": [0.6], "sums": [0.4], "norms": [-0.2]}


def around(value, spread):
    return Interval(value, value - spread, value + spread)


def method_of(shares, spread=0.01, verdict="asymmetric"):
    """One method with intervals of +-spread; pairs and index follow from the shares."""
    half = len(shares) // 2
    later, earlier = shares[half + 1 :], shares[:half][::-1]
    pairs = [(b - a) / (b + a) for a, b in zip(earlier, later, strict=True)]
    index = (
        around((sum(later) - sum(earlier)) / (sum(later) + sum(earlier)), spread) if half else None
    )
    return MethodResult(
        tuple(around(share, spread) for share in shares),
        tuple(around(pair, spread) for pair in pairs),
        index,
        verdict,
    )


def audit_of(methods, verdict="asymmetric", **changes):
    slices = len(next(iter(methods.values())).shares) if methods else 3
    norms = [4.21, 6.84, 2.96, 3.1, 3.3][:slices]
    made = Audit(
        slices=slices,
        windows=64,
        clusters=16,
        dropped=0,
        seed=7,
        margin=0.05,
        confidence=0.95,
        tile=(256, 256),
        stems=({"module": "encoder.conv1", "kind": "conv2d", "norms": norms, "asymmetry": APART},),
        normalisation=Normalisation((127.25,), (41.5,)),
        methods=methods,
        probability_change=0.0312,
        flipped_fraction=0.0184,
        checks=CHECKS,
        verdict=verdict,
    )
    return replace(made, **changes)


def blobs(seed, shape, sigma, size=1.0):
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma, mode="wrap")
    return size * noise / noise.std()


def window_of(label, weights, shape=(160, 160), seed=3):
    """A window with dark membranes where smooth noise crosses zero."""
    slices = len(weights)
    field = blobs(seed, (slices + 2, *shape), (1.2, 7, 7))[1:-1]
    membrane = np.exp(-((field / 0.16) ** 2))
    texture = blobs(seed + 1, field.shape, (0.2, 1, 1), 9.0)
    raw = np.clip(185 - 120 * membrane + texture, 0, 255).astype(np.uint8)
    speckle = np.abs(blobs(seed + 2, field.shape, (0.2, 0.8, 0.8)))
    importance = np.array(weights)[:, None, None] * (0.08 + membrane) * speckle
    centre = membrane[slices // 2]
    prediction = np.clip(centre + blobs(seed + 3, shape, 2, 0.05), 0, 1).astype(np.float32)
    return WindowView(
        label,
        (48, 512, 256),
        raw,
        importance.astype(np.float32),
        prediction,
        centre > 0.5,
        (30.0, 6.0, 6.0),
    )


def scores_of(**changes):
    per_slice = (
        {"z": 4, "dice": 0.5, "iou": 1 / 3},
        {"z": 5, "dice": None, "iou": None},
        {"z": 6, "dice": 1.0, "iou": 1.0},
    )
    per_class = {1: {"dice": 0.75, "iou": 0.6, "voxels": 9}}
    return replace(Scores(0.75, 0.6, per_class, 90, per_slice=per_slice), **changes)
