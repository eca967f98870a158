"""The command ``evenslice train``."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice import cli_options as options
from evenslice.cli_writing import check_json, write_json


def train(
    volume: options.VolumePath,
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Labels of the same shape.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The model, .safetensors.")],
    arch: Annotated[
        str, typer.Option(help="unet, unetplusplus, fpn, deeplabv3plus, segformer, upernet or dpt.")
    ] = "unet",
    encoder: Annotated[str, typer.Option(help="A timm name, or smp:NAME.")] = "resnet18",
    encoder_depth: Annotated[int | None, typer.Option(min=1, max=5, help="Stages of the encoder.")] = None,
    weights: Annotated[str, typer.Option(help="imagenet, bundled, none, or a file.")] = "imagenet",
    init: Annotated[
        options.InitName, typer.Option(help="How the stem gets its slots from R, G and B.")
    ] = options.InitName.green,
    slices: Annotated[int, typer.Option(help="Consecutive slices the model sees: odd, 1 to 9.")] = 3,
    tie: Annotated[
        options.TieName, typer.Option(help="A constraint on the stem kept through training.")
    ] = options.TieName.none,
    reverse_z: Annotated[bool, typer.Option("--reverse-z", help="Reverse half of the windows.")] = False,
    target: Annotated[options.TargetName, typer.Option(help="What the labels mean.")] = options.TargetName.auto,
    ignore_label: Annotated[int | None, typer.Option(help="Label that is not learnt from.")] = None,
    validation: Annotated[
        str | None, typer.Option(metavar="Z0:Z1", help="Slices to validate on; the last 20 % if not given.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 1000,
    batch: Annotated[int, typer.Option(help="Patches a step.")] = 4,
    crop: Annotated[int, typer.Option(help="Side of a patch in pixels.")] = 256,
    lr: Annotated[float, typer.Option(help="Largest learning rate of the one-cycle schedule.")] = 1e-3,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a killed run.")] = False,
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    json: options.Json = None,
    force: options.Force = False,
    traceback: options.Traceback = False,
) -> None:
    """Train a 2D+ segmentation model from an RGB-pretrained encoder."""
    from evenslice.learn.recipe import Recipe
    from evenslice.progress import bar
    from evenslice.report.tables import print_scores
    from evenslice.verbs.train import train as run

    check_json(json, force, volume, labels, out)
    recipe = Recipe(
        arch=arch,
        encoder=encoder,
        encoder_depth=encoder_depth,
        weights=weights,
        init=init.value,
        slices=slices,
        tie=tie.value,
        reverse_z=reverse_z,
        target=target.value,
        ignore_label=ignore_label,
        validation=validation,
        steps=steps,
        batch=batch,
        crop=crop,
        lr=lr,
        seed=seed,
    )
    result = run(volume, labels, out, recipe, device=device.value, resume=resume, force=force, progress=bar)
    write_json(json, result.scores.to_dict())
    if json != "-":
        print_scores(result.scores, f"{out} on the validation slices")
