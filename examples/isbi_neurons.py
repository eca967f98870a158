"""Neurons of ISBI 2012: train on membranes, segment, watershed, compare with ground truth.

    python examples/isbi_neurons.py FOLDER [--weights imagenet] [--encoder-depth 5] [--steps 200]

FOLDER holds raw.tif, membranes.tif (1 = membrane) and neurons.tif (0 = membrane), 30 slices each.
Slices 0 to 22 are trained on, 24 to 29 are held out. Prints a table in Markdown.
"""

import argparse
import tempfile
from pathlib import Path

from evenslice import evaluate, segment, train
from evenslice.options import TrainOptions

HELD_OUT = "24:30"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--encoder-depth", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    raw, neurons = given.folder / "raw.tif", given.folder / "neurons.tif"
    with tempfile.TemporaryDirectory() as work:
        model, out = Path(work, "model.safetensors"), Path(work, "neurons.zarr")
        options = TrainOptions(
            weights=given.weights,
            encoder_depth=given.encoder_depth,
            steps=given.steps,
            validation=HELD_OUT,
            seed=given.seed,
        )
        trained = train(raw, given.folder / "membranes.tif", model, options)
        done = segment(model, raw, out, instances="watershed", voxel_nm=(50, 4, 4))
        print(
            f"membranes, held-out slices: Dice {trained.scores.dice:.3f}; {done.objects} objects\n"
        )
        print("| slices | ARE | VOI split | VOI merge | F1 at IoU 0.5 |")
        print("|---|---|---|---|---|")
        for name, roi in (("all", None), (f"held out, {HELD_OUT}", f"{HELD_OUT},:,:")):
            found = evaluate(out, neurons, as_="instances", roi=roi).to_dict()
            columns = [f"{found['adapted_rand_error']:.3f}"]
            columns += [f"{found[key]:.2f}" for key in ("voi_split", "voi_merge", "f1")]
            print(f"| {name} | {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
