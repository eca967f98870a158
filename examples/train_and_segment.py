"""Train on one stack, audit the model, segment another stack, score it.

    python examples/train_and_segment.py OUT [--steps 200] [--weights imagenet]

Makes its own stacks (phantoms with ground truth); put yours in their place. Writes the model, the
audit and the segmentation into OUT.
"""

import argparse
import json
from pathlib import Path

from evenslice import audit, evaluate, save_volume, segment, train
from evenslice.data.phantom import phantom
from evenslice.options import TrainOptions


def stack(folder: Path, name: str, shape: tuple[int, int, int], seed: int) -> tuple[Path, Path]:
    made, raw, labels = (
        phantom(shape, seed),
        folder / f"{name}.tif",
        folder / f"{name}-membranes.tif",
    )
    save_volume(raw, made.raw, made.voxel_nm)
    save_volume(labels, made.membranes, made.voxel_nm)
    return raw, labels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", type=int, default=160, help="side of the stacks in pixels")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    shape = (30, given.size, given.size)
    raw, membranes = stack(given.out, "first", shape, seed=0)
    other, other_membranes = stack(given.out, "second", shape, seed=1)

    options = TrainOptions(
        weights=given.weights,
        encoder_depth=3,
        init="green",
        steps=given.steps,
        crop=given.crop,
        lr=5e-4,
        batch=2,
    )
    trained = train(raw, membranes, given.out / "model.safetensors", options)
    found = audit(trained.model, other, methods=["gradient"], windows=12, tile=given.size // 2)
    segment(given.out / "model.safetensors", other, given.out / "second.zarr")
    scores = evaluate(given.out / "second.zarr", other_membranes)

    (given.out / "audit.json").write_text(json.dumps(found.to_dict(), indent=2))
    print(f"validation slices: Dice {trained.scores.dice:.3f}")
    print(f"another stack: Dice {scores.dice:.3f}")
    print(f"verdict: {found.verdict}, mirror index {found.methods['gradient'].index.value:+.4f}")


if __name__ == "__main__":
    main()
