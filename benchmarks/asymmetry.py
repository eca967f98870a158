"""Asymmetry of pretrained encoders by every method, before and after training.

Writes the table of docs/asymmetry.md:

    python benchmarks/asymmetry.py --data FOLDER --weights FOLDER --models FOLDER
        [--doc docs/asymmetry.md] [--steps 200]

FOLDER of --data holds raw.tif and membranes.tif (ISBI 2012: the challenge's public training stack),
that of --weights the ImageNet weights as .safetensors (timm's names). Models are trained into
--models unless they are there; each audit is kept there as JSON, so that a killed run can be
resumed. Half an hour to hours on a CPU.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from evenslice import audit, build_model, open_volume, train
from evenslice.options import TrainOptions
from evenslice.progress import report_progress
from evenslice.volume.normalisation import estimate

METHODS = ("ablation", "ablation-copy", "shapley", "gradient", "integrated-gradients")
TILE = 128
ENCODERS = {
    # architecture, encoder, depth, weights, side of the training patches, methods
    # (hundreds of gradients of a DPT are slow on a CPU)
    "ResNet-18": ("unet", "resnet18", 4, "resnet18_conv1-layer3.safetensors", 256, METHODS),
    "MobileNetV2": ("unet", "mobilenetv2_100", None, "mobilenetv2_100.safetensors", 256, METHODS),
    "ViT-Tiny": (
        "dpt",
        "vit_tiny_patch16_224",
        None,
        "vit_tiny_patch16_224.safetensors",
        128,
        METHODS[:4],
    ),
}
SIGNS = {
    "symmetric": "symmetric",
    "asymmetric": "**asymmetric**",
    "inconclusive": "?",
    "abstained": "abstains",
}


def model_of(given, name, init, stage):
    """Return the model of a cell: as built, or trained."""
    arch, encoder, depth, weights, crop, *_ = ENCODERS[name]
    raw, labels = (open_volume(given.data / file) for file in ("raw.tif", "membranes.tif"))
    if stage == "before":
        built = build_model(
            arch,
            encoder,
            weights=given.weights / weights,
            encoder_depth=depth,
            init=init,
            seed=given.seed,
        )
        built.module.eval()
        return replace(built, normalisation=estimate(raw, given.seed))
    out = given.models / f"{encoder}-{init}-{given.seed}.safetensors"
    if not out.exists():
        options = TrainOptions(
            arch=arch,
            encoder=encoder,
            encoder_depth=depth,
            weights=str(given.weights / weights),
            init=init,
            steps=given.steps,
            crop=crop,
            seed=given.seed,
        )
        train(raw, labels, out, options, progress=report_progress)
    return out


def cell(given, name, init, stage):
    """Audit one model or read its kept audit; None with --kept if there is none."""
    _, encoder, *_, methods = ENCODERS[name]
    kept = given.models / f"{encoder}-{init}-{given.seed}-{stage}-{TILE}.json"
    if given.kept and not kept.exists():
        return None
    if not kept.exists():
        found = audit(
            model_of(given, name, init, stage),
            given.data / "raw.tif",
            labels=given.data / "membranes.tif",
            methods=methods,
            tile=TILE,
            seed=given.seed,
            label=f"{name} {init} {stage}",
            progress=report_progress,
        )
        kept.write_text(found.to_json())
    return json.loads(kept.read_text())


def figure(method):
    """Write a mirror index with its interval and verdict."""
    if method["mirror_low"] is None:
        return f"{method['mirror_index']:+.3f}"
    ends = f"{method['mirror_low']:+.3f} to {method['mirror_high']:+.3f}"
    return f"{method['mirror_index']:+.3f} ({ends}) {SIGNS[method['verdict'].split(':')[0]]}"


def table(rows):
    """Write all cells as Markdown."""
    head = ["encoder", "init", "training", "windows", *METHODS, "flips", "lag (slices)", "verdict"]
    text = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for (name, init, stage), found in rows.items():
        lag = found["lag"]
        shown = [
            name,
            f"`{init}`",
            stage,
            str(found["windows"]),
            *(
                figure(found["methods"][method]) if method in found["methods"] else "-"
                for method in METHODS
            ),
            f"{found['reversal']['flipped_fraction']:.2%}",
            "-"
            if lag is None
            else f"{lag['slices']:+.4f} ({lag['low']:+.4f} to {lag['high']:+.4f})",
            found["verdict"],
        ]
        text.append("| " + " | ".join(shown) + " |")
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("data", "weights", "models"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--doc", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", default="before,after")
    parser.add_argument("--encoders", default=",".join(ENCODERS))
    parser.add_argument("--kept", action="store_true", help="only what was audited already")
    given = parser.parse_args()
    given.models.mkdir(exist_ok=True)
    stages = given.stages.split(",")
    cells = [
        (name, init, stage)
        for stage in stages
        for name in given.encoders.split(",")
        for init in ("rgb", "green")
    ]
    rows = {key: found for key in cells if (found := cell(given, *key)) is not None}
    found = table(rows)
    print(found)
    if given.doc is not None:
        before, _, rest = given.doc.read_text().partition("<!-- table -->\n")
        _, _, after = rest.partition("<!-- end of table -->")
        given.doc.write_text(f"{before}<!-- table -->\n{found}<!-- end of table -->{after}")


if __name__ == "__main__":
    main()
