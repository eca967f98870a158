"""Made studies to report on: numbers like those of a real one, from a seed."""

import zlib
from types import SimpleNamespace

import numpy as np

from evenslice.study.findings import findings_of
from evenslice.study.results import Study

MARGIN, DICE_MARGIN, CONFIDENCE = 0.05, 0.01, 0.95
TREATMENTS = ("rgb", "green", "mean", "random weights", "rgb, reverse-z")
NETWORKS = ("unet resnet18", "unet mobilenetv2_100", "dpt vit_tiny_patch16_224")
DATASETS = ("ISBI 2012", "VNC")
ASYMMETRY = dict(zip(NETWORKS, (-0.125, -0.297, -0.104), strict=True))
NAMES = ("treatment", "network", "dataset", "target", "seed", "slices", "steps", "context")
CONCLUDED = {"lean", "comparisons", "claims"}
TABLE = SimpleNamespace(
    control="rgb",
    dice_margin=DICE_MARGIN,
    confidence=CONFIDENCE,
    audit=SimpleNamespace(margin=MARGIN),
)


def audited(index, spread, slices, end=""):
    """The columns of an audit: the outer shares fall off by halves from half of all."""
    half, low, high = slices // 2, index - spread, index + spread
    weights = np.array([0.5**j for j in range(half)]) / sum(0.5**j for j in range(half))
    shares = [*((1 - index) / 4 * weights[::-1]), 0.5, *((1 + index) / 4 * weights)]
    verdict = "inconclusive"
    if max(abs(low), abs(high)) < MARGIN:
        verdict = "symmetric"
    elif low > MARGIN or high < -MARGIN:
        verdict = "asymmetric"
    named = {"mirror_index": index, "mirror_low": low, "mirror_high": high, "verdict": verdict}
    named |= {f"share_{slot}": float(share) for slot, share in enumerate(shares)}
    return {f"{name}{end}": value for name, value in named.items()}


def cell(network, treatment, dataset, seed, slices=3):
    names = (network, treatment, dataset, seed, slices)
    rng = np.random.default_rng(zlib.crc32("/".join(map(str, names)).encode()))
    start = ASYMMETRY.get(network, -0.12) if treatment.startswith("rgb") else 0.0
    after = 1.2 * start + float(rng.normal(0, 0.004 if treatment == "green" else 0.01))
    dice = float((0.80 if dataset == "ISBI 2012" else 0.74) + rng.normal(0, 0.004))
    dice -= 0.026 * (treatment == "random weights")
    return {
        "treatment": treatment,
        "network": network,
        "dataset": dataset,
        "target": "foreground",
        "seed": seed,
        "slices": slices,
        "steps": 200,
        "context": f"{network} {dataset} {seed} {slices}",
        "dice": dice,
        "iou": dice / (2 - dice),
        **audited(after, 0.006, slices),
        **audited(start, 0.005, slices, "_before"),
        "seconds": float(np.round(300 + 50 * rng.random(), 1)),
        "failure": "",
    }


def failed(row, reason):
    """The row of a cell that failed: what identifies it, and the reason; nothing was measured."""
    return {name: row[name] for name in NAMES} | {"dice": None, "seconds": 1.0, "failure": reason}


def curve(row):
    """Validations during training: before the first step no loss and no Dice, then both."""
    points = []
    for part in (0, 0.25, 0.5, 0.75, 1):
        index = (1 - part) * row["mirror_index_before"] + part * row["mirror_index"]
        point = {"steps": int(200 * part), **audited(index, 0.006, row["slices"])}
        point |= {"loss": 1.25 - part if part else None, "dice": part * row["dice"] or None}
        points.append(point)
    return {name: row[name] for name in NAMES[:5]} | {"points": points}


def study(
    networks=NETWORKS,
    datasets=DATASETS,
    seeds=3,
    treatments=TREATMENTS,
    five=True,
    pending=0,
    verdict=None,
):
    """A study as JSON holds it: every combination, two failed cells, one network with five slices.

    ``verdict`` is that of all claims, as found if not given.
    """
    grid = [(n, 3) for n in networks] + ([("unet resnet18", 5)] if five else [])
    rows = [
        cell(network, treatment, dataset, seed, slices)
        for network, slices in grid
        for dataset in datasets
        for treatment in treatments
        for seed in range(seeds)
    ]
    if len(rows) > 10:
        rows[4] = failed(rows[4], "out of GPU memory; use a smaller batch or crop")
        rows[-1] = failed(rows[-1], "RuntimeError: the loss is not finite at step 57")
    found = Study(**findings_of(rows, TABLE)._asdict()).model_dump(mode="json", include=CONCLUDED)
    for claim in found["claims"]:
        claim["verdict"] = verdict or claim["verdict"]
    good = [row for row in rows if not row["failure"]]
    return {
        "schema": "evenslice.study/1",
        "name": "small",
        "title": "Membranes: does uniform initialisation remove the asymmetry of RGB weights?",
        "control": "rgb",
        "margin": MARGIN,
        "dice_margin": DICE_MARGIN,
        "confidence": CONFIDENCE,
        "cells": len(rows) + pending,
        "done": len(rows),
        "failed": len(rows) - len(good),
        "settings": {"datasets": ", ".join(datasets), "audit": "gradient; margin 0.05"},
        "versions": {"evenslice": "0.1.0", "torch": "2.9.0"},
        "rows": rows,
        **found,
        "curves": [curve(row) for row in good],
    }
