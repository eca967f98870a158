"""How much rounding changes shares and probabilities: an audit beside plain torch.

python reliability/rounding.py
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from keeping import keep
from soak import made

from evenslice import audit, build_model
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation, estimate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "evidence"))
from precisions import (  # the same code as the tests'
    TILE,
    WINDOWS,
    probabilities_in,
    shares_in,
    windows_of,
)

METHODS = ("gradient", "ablation")


def differences(weights: str, init: str) -> dict[str, float]:
    """Return the largest differences from float64, of shares by method and of probabilities."""
    model = build_model(weights=weights, init=init, encoder_depth=3, seed=1)
    model.module.eval()
    model = replace(model, normalisation=Normalisation((128.0,), (40.0,), "file"))
    volume = Volume(made(12, 96))
    windows, grey = windows_of(volume, model), estimate(volume, 0).mean[0]
    exact = shares_in(model, windows, "float64", grey)
    result = audit(model, volume, windows=WINDOWS, tile=TILE, methods=METHODS, seed=0)
    shares = {
        name: np.array([one.value for one in found.shares])
        for name, found in result.methods.items()
    }
    found = {f"audit, {name}": float(np.abs(shares[name] - exact[name]).max()) for name in METHODS}
    for precision in ("float32", "bf16"):
        again = shares_in(model, windows, precision, grey)
        found |= {
            f"{precision}, {name}": float(np.abs(again[name] - exact[name]).max())
            for name in METHODS
        }
        probabilities = [
            np.abs(
                probabilities_in(model, raw, precision) - probabilities_in(model, raw, "float64")
            ).max()
            for raw in windows
        ]
        found[f"{precision}, probability"] = float(max(probabilities))
    return found


def main() -> None:
    """Measure pretrained and random weights, rgb and green stems."""
    torch.set_num_threads(1)
    found = {
        f"{weights}, {init}": differences(weights, init)
        for weights in ("imagenet", "none")
        for init in ("rgb", "green")
    }
    for name, one in found.items():
        print(name, {key: f"{value:.1e}" for key, value in one.items()})
    limits = {
        "audit": 1e-4,
        "float32": 1e-4,
        "bf16": 0.02,
        "float32, probability": 1e-5,
        "bf16, probability": 0.05,
    }
    keep("rounding", {"limits": limits, "largest_difference_from_float64": found})
    over = [
        f"{name}: {key}"
        for name, one in found.items()
        for key, value in one.items()
        if value > limits.get(key, limits[key.split(",")[0]])
    ]
    sys.exit("above the tolerance: " + "; ".join(over) if over else 0)


if __name__ == "__main__":
    main()
