"""Made studies to report on: numbers like those of a real one, from a seed; findings by the formulas the page names."""

import zlib

import numpy as np
from scipy.stats import t

MARGIN, DICE_MARGIN, CONFIDENCE = 0.05, 0.01, 0.95
TREATMENTS = ("rgb", "green", "mean", "random weights", "rgb, reverse-z")
NETWORKS = ("unet resnet18", "unet mobilenetv2_100", "dpt vit_tiny_patch16_224")
DATASETS = {"ISBI 2012": "foreground", "VNC": "foreground"}
LEAN = {"unet resnet18": -0.125, "unet mobilenetv2_100": -0.297, "dpt vit_tiny_patch16_224": -0.104}
CENTRE = {"unet resnet18": 0.41, "unet mobilenetv2_100": 0.51, "dpt vit_tiny_patch16_224": 0.41}
KEPT = {"rgb": 1.25, "rgb, reverse-z": 1.1}
CLAIMS = {
    "persists": "The lean of rgb is real and is there after fine-tuning: mean mirror index -0.217 (-0.232 to -0.202) after training",
    "restores": "Uniform initialisation (green) restores symmetry: mean mirror index +0.001 (-0.003 to +0.005) after training",
    "keeps accuracy": "Accuracy is kept: green is within 0.01 Dice of rgb: Dice differs by -0.001 (-0.005 to +0.003)",
}


def chance(*names):
    """A generator of its own for each cell, so that cells do not depend on how many there are."""
    return np.random.default_rng(zlib.crc32("/".join(map(str, names)).encode()))


def shares(index, centre, slices):
    """Shares of the slots of a window with a mirror index, the outer ones falling off by halves."""
    half = slices // 2
    weights = np.array([0.5**j for j in range(half)]) / sum(0.5**j for j in range(half))
    side = 1 - centre
    after, before = side * (1 + index) / 2, side * (1 - index) / 2
    return [*(before * weights[::-1]), centre, *(after * weights)]


def audited(index, spread, centre, slices, end=""):
    verdict = (
        "symmetric"
        if abs(index) + spread < MARGIN
        else "asymmetric"
        if abs(index) - spread > MARGIN
        else "inconclusive"
    )
    values = {
        f"share_{slot}{end}": float(share)
        for slot, share in enumerate(shares(index, centre, slices))
    }
    return values | {
        f"mirror_index{end}": float(index),
        f"mirror_low{end}": float(index - spread),
        f"mirror_high{end}": float(index + spread),
        f"verdict{end}": verdict,
    }


def cell(network, treatment, dataset, seed, slices=3, steps=200):
    arch, encoder = network.split(" ")[:2]
    rng = chance(network, treatment, dataset, seed, slices)
    start = LEAN.get(network, -0.12) if treatment.startswith("rgb") else 0.0
    before = start + (rng.normal(0, 0.004) if treatment in (*KEPT, "random weights") else 0.0)
    after = KEPT.get(treatment, 1.0) * start + rng.normal(
        0, 0.004 if "green" in treatment else 0.012
    )
    centre = CENTRE.get(network, 0.4)
    base = {"ISBI 2012": 0.80, "VNC": 0.74}.get(dataset, 0.7) - (0.03 if "dpt" in network else 0)
    dice = base - (0.026 if treatment == "random weights" else 0) + rng.normal(0, 0.004)
    return {
        "cell": f"{arch}-{encoder}-{treatment}-{dataset}-seed{seed}-{slices}",
        "arch": arch,
        "encoder": encoder,
        "weights": "none" if treatment == "random weights" else "imagenet",
        "init": "rgb" if treatment == "random weights" else treatment.split(",")[0],
        "tie": "none",
        "dataset": dataset,
        "target": DATASETS.get(dataset, "foreground"),
        "seed": seed,
        "reverse_z": "reverse-z" in treatment,
        "augment": "flips",
        "slices": slices,
        "steps": steps,
        "treatment": treatment,
        "network": network,
        "dice": float(dice),
        "iou": float(dice / (2 - dice)),
        **audited(after, 0.006, centre + 0.1, slices),
        **audited(before, 0.005 if before else 0.0, centre, slices, "_before"),
        "seconds": float(np.round(300 + 50 * rng.random(), 1)),
        "failure": "",
    }


def failed(row, reason):
    """The row of a cell that failed: what identifies it, and the reason; nothing was measured."""
    kept = (
        "cell",
        "arch",
        "encoder",
        "weights",
        "init",
        "tie",
        "dataset",
        "target",
        "seed",
        "reverse_z",
        "slices",
        "steps",
    )
    return {key: row[key] for key in (*kept, "treatment", "network")} | {
        "dice": None,
        "seconds": 12.5,
        "failure": reason,
    }


def curve(row):
    """Looks during training: before the first step no loss and no Dice, then both."""
    rng = chance("curve", row["cell"])
    points = []
    for steps in np.linspace(0, row["steps"], 5).astype(int):
        part = steps / row["steps"]
        index = (
            (1 - part) * row["mirror_index_before"]
            + part * row["mirror_index"]
            + rng.normal(0, 0.004) * (0 < part < 1)
        )
        points.append(
            {
                "steps": int(steps),
                "loss": float(0.35 + 0.9 * np.exp(-3 * part) + rng.normal(0, 0.02))
                if steps
                else None,
                "dice": float(row["dice"] * (1 - 0.5 * np.exp(-4 * part))) if steps else None,
            }
            | audited(index, 0.006, 0.45, row["slices"])
        )
    keys = ("treatment", "network", "dataset", "target", "seed")
    return {key: row[key] for key in keys} | {"points": points}


def mean_over_blocks(values, blocks):
    """Mean of the block means with a t interval from the pooled spread within blocks; None where there is none."""
    values, blocks = np.asarray(values, float), np.asarray(blocks)
    apart = [values[blocks == name] for name in dict.fromkeys(blocks.tolist())]
    value, freedom = float(np.mean([part.mean() for part in apart])), len(values) - len(apart)
    if freedom < 1:
        return value, None, None, None
    variance = sum(((part - part.mean()) ** 2).sum() for part in apart) / freedom
    error = float(np.sqrt(variance * sum(1 / len(part) for part in apart)) / len(apart))
    reach = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return (
        value,
        value - reach,
        value + reach,
        float(2 * t.sf(abs(value) / error, freedom)) if error else float(value == 0),
    )


def lean(rows, treatment, network, when):
    key = "mirror_index" + ("_before" if when == "before" else "")
    own = [
        row for row in rows if row["treatment"] == treatment and network in ("all", row["network"])
    ]
    value, low, high, p = mean_over_blocks(
        [row[key] for row in own], [row["dataset"] for row in own]
    )
    verdict = "undecided"
    if low is not None:
        verdict = (
            "leans"
            if low > MARGIN or high < -MARGIN
            else "even"
            if low > -MARGIN and high < MARGIN
            else "undecided"
        )
    found = {"treatment": treatment, "network": network, "when": when, "cells": len(own)}
    found |= {
        "datasets": len({row["dataset"] for row in own}),
        "value": value,
        "low": low,
        "high": high,
        "p": p,
    }
    return found | {"p_holm": p if network == "all" else None, "verdict": verdict}


def comparison(rows, treatment, outcome, margin):
    of = (lambda row: abs(row["mirror_index"])) if outcome == "lean" else (lambda row: row[outcome])
    context = lambda row: (row["network"], row["slices"], row["dataset"], row["seed"])  # noqa: E731
    control = {context(row): of(row) for row in rows if row["treatment"] == "rgb"}
    own = [row for row in rows if row["treatment"] == treatment and context(row) in control]
    value, low, high, p = mean_over_blocks(
        [of(row) - control[context(row)] for row in own], [row["dataset"] for row in own]
    )
    verdict = "undecided"
    if margin is not None and low is not None and -margin < low and high < margin:
        verdict = "equivalent"
    elif p is not None and p < 0.05:
        verdict = "higher" if value > 0 else "lower"
    found = {
        "treatment": treatment,
        "control": "rgb",
        "network": "all",
        "outcome": outcome,
        "cells": len(own),
    }
    found |= {
        "datasets": len({row["dataset"] for row in own}),
        "value": value,
        "low": low,
        "high": high,
    }
    found |= {
        "p": p,
        "p_holm": None if p is None else min(1.0, 4 * p),
        "p_signflip": 0.03,
        "margin": margin,
    }
    same = None if margin is None else 0.021
    return found | {
        "p_equivalence": same,
        "p_equivalence_holm": same,
        "p_not_worse": same,
        "verdict": verdict,
    }


def claims(verdict):
    return [
        {"name": name, "verdict": verdict, "sentence": f"{text} (18 cells, 2 data sets)."}
        for name, text in CLAIMS.items()
    ]


def study(
    networks=NETWORKS,
    datasets=tuple(DATASETS),
    seeds=3,
    treatments=TREATMENTS,
    five=True,
    pending=0,
    verdict="yes",
):
    """A study as JSON holds it: every combination, two failed cells, one network with five slices if asked for."""
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
    good = [row for row in rows if not row["failure"]]
    used = [name for name in treatments if any(row["treatment"] == name for row in good)]
    return {
        "schema": "evenslice.study/1",
        "name": "small",
        "title": "Membranes: does the lean of RGB weights persist, and does uniform initialisation remove it?",
        "control": "rgb",
        "margin": MARGIN,
        "dice_margin": DICE_MARGIN,
        "confidence": CONFIDENCE,
        "cells": len(rows) + pending,
        "done": len(rows),
        "failed": len(rows) - len(good),
        "settings": {
            "data sets": ", ".join(datasets),
            "steps": "200",
            "audit": "gradient; 40 windows, margin 0.05",
        },
        "command": "evenslice study studies/small.toml --out small",
        "versions": {"evenslice": "0.1.0", "torch": "2.9.0"},
        "rows": rows,
        "lean": [
            lean(good, treatment, network, when)
            for when in ("before", "after")
            for treatment in used
            for network in (
                "all",
                *dict.fromkeys(row["network"] for row in good if row["treatment"] == treatment),
            )
        ],
        "comparisons": [
            comparison(good, treatment, outcome, margin)
            for outcome, margin in (("lean", None), ("dice", DICE_MARGIN), ("iou", None))
            for treatment in used
            if treatment != "rgb" and "rgb" in used
        ],
        "claims": claims(verdict),
        "curves": [curve(row) for row in good],
    }
