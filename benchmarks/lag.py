"""Does asymmetry do harm? A model is made asymmetric in steps: second table of docs/atlas.md.

    python benchmarks/lag.py [--doc docs/atlas.md]

The demo's green model; then a part of the weights of the previous slot (and, in the last rows, of
the centre) is given to the next slot, without retraining. Prints mirror index by gradient, Dice on
all slices audited, and the lag of the prediction in slices.
"""

import argparse
import copy
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from evenslice import audit, train
from evenslice.data.phantom import phantom
from evenslice.labels.targets import Target
from evenslice.model.stem.find import find_stems
from evenslice.options import TrainOptions
from evenslice.verbs.demo import CROP, ENCODER, RATE, SHAPE, STEPS, TILE
from evenslice.verbs.fix import predict_windows, window_scores
from evenslice.volume.array import Volume

GIVEN = {
    "as trained": (0.0, 0.0),
    "half of previous": (0.5, 0.0),
    "all of previous": (1.0, 0.0),
    "and a quarter of the centre": (1.0, 0.25),
    "and half of the centre": (1.0, 0.5),
    "and all of the centre": (1.0, 1.0),
}


def asymmetric(model, previous, centre):
    """Return a copy with parts of the previous and the centre weights moved to the next slot."""
    module = copy.deepcopy(model.module)
    [stem] = find_stems(module, 3)
    with torch.no_grad():
        weight = stem.layer.weight
        given = previous * weight[:, 0] + centre * weight[:, 1]
        weight[:, 0] *= 1 - previous
        weight[:, 1] *= 1 - centre
        weight[:, 2] += given
    return replace(model, module=module)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--doc", type=Path)
    given = parser.parse_args()
    made = phantom(SHAPE, 0)
    raw, labels = Volume(made.raw, made.voxel_nm), Volume(made.membranes, made.voxel_nm)
    options = TrainOptions(encoder=ENCODER, init="green", steps=STEPS, crop=CROP, lr=RATE, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        model = train(raw, labels, Path(folder) / "green.safetensors", options).model
    lines = [
        "| weights given to the next slot | mirror index | Dice | lag (slices) |",
        "|---|---|---|---|",
    ]
    windows = [made.raw[z - 1 : z + 2] for z in range(50, 59)]
    masks = [made.membranes[z] for z in range(50, 59)]
    for name, (previous, centre) in GIVEN.items():
        changed = asymmetric(model, previous, centre)
        found = audit(changed, raw, labels=labels, methods=["gradient"], windows=40, tile=TILE)
        index, lag = found.methods["gradient"].index, found.lag
        dice = window_scores(
            predict_windows(changed, changed.normalisation, windows), masks, Target("foreground", 1)
        ).dice
        shown = "-" if lag is None else f"{lag.value:+.3f} ({lag.low:+.3f} to {lag.high:+.3f})"
        lines.append(
            f"| {name} | {index.value:+.3f} ({index.low:+.3f} to {index.high:+.3f}) | {dice:.3f} | "
            f"{shown} |"
        )
        print(lines[-1], flush=True)
    if given.doc is not None:
        before, _, rest = given.doc.read_text().partition("<!-- lag -->\n")
        _, _, after = rest.partition("<!-- end of lag -->")
        given.doc.write_text(
            f"{before}<!-- lag -->\n" + "\n".join([*lines, ""]) + f"<!-- end of lag -->{after}"
        )


if __name__ == "__main__":
    main()
