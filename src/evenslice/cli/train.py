"""The command ``evenslice train``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from evenslice.cli import options
from evenslice.cli.output import check_json, is_told, warn, write_json
from evenslice.errors import BadInputError

SHOWN = 6
BETWEEN = "\0"  # between the two paths of --more, which no path holds


class PrecisionName(StrEnum):
    """In which numbers a network is trained."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class ScheduleName(StrEnum):
    """How the learning rate changes."""

    one_cycle = "one-cycle"
    cosine = "cosine"
    constant = "constant"


class LossName(StrEnum):
    """What is made small."""

    bce = "bce"
    ce = "ce"
    dice = "dice"
    bce_dice = "bce+dice"
    ce_dice = "ce+dice"


class AugmentName(StrEnum):
    """What is done to patches."""

    flips = "flips"
    none = "none"
    em = "em"


class KeepName(StrEnum):
    """Which state is saved under the name asked for."""

    best = "best"
    last = "last"


class TrainCommand(TyperCommand):
    """The command, with an option that takes two paths and may be repeated, which the parser does not know."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the two paths after each ``--more``."""
        return list(super().parse_args(ctx, paired(args)))


def paired(words: list[str], name: str = "--more") -> list[str]:
    """Join the two words after each ``name`` into one."""
    left, found = list(words), []
    while left:
        found.append(left.pop(0))
        if found[-1] == name:
            if len(left) < 2 or any(word.startswith("--") for word in left[:2]):
                raise BadInputError(
                    f"{name} needs two paths, expected VOLUME LABELS after it; write for example {name} b.tif b_labels.tif"
                )
            found.append(left.pop(0) + BETWEEN + left.pop(0))
    return found


def train(
    ctx: typer.Context,
    volume: options.VolumePath,
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Labels of the same shape.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The model, .safetensors.")],
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--more", metavar="VOLUME LABELS", help="Another volume to train on; repeatable."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="Settings: keys are these options with _ for -; options win over it.",
        ),
    ] = None,
    arch: Annotated[
        str, typer.Option(help="unet, unetplusplus, fpn, deeplabv3plus, segformer, upernet or dpt.")
    ] = "unet",
    encoder: Annotated[str, typer.Option(help="A timm name, or smp:NAME.")] = "resnet18",
    encoder_depth: Annotated[
        int | None, typer.Option(min=1, max=5, help="Stages of the encoder.")
    ] = None,
    weights: Annotated[str, typer.Option(help="imagenet, bundled, none, or a file.")] = "imagenet",
    init: Annotated[
        options.InitName, typer.Option(help="How the stem gets its slots from R, G and B.")
    ] = options.InitName.green,
    slices: Annotated[
        int, typer.Option(help="Consecutive slices the model sees: odd, 1 to 9.")
    ] = 3,
    tie: Annotated[
        options.TieName, typer.Option(help="A constraint on the stem kept through training.")
    ] = options.TieName.none,
    reverse_z: Annotated[
        bool, typer.Option("--reverse-z", help="Reverse half of the windows.")
    ] = False,
    target: Annotated[
        options.TargetName, typer.Option(help="What the labels mean.")
    ] = options.TargetName.auto,
    ignore_label: Annotated[int | None, typer.Option(help="Label that is not learnt from.")] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="Z0:Z1",
            help="Slices of each volume to validate on; the last 20 % if not given.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 1000,
    batch: Annotated[int, typer.Option(help="Patches a step, of all devices together.")] = 4,
    crop: Annotated[int, typer.Option(help="Side of a patch in pixels.")] = 256,
    lr: Annotated[float, typer.Option(help="Largest learning rate.")] = 1e-3,
    schedule: Annotated[
        ScheduleName,
        typer.Option(
            help="How the rate changes; cosine: a linear warm-up, then down along a cosine."
        ),
    ] = ScheduleName.one_cycle,
    warmup: Annotated[
        float, typer.Option(help="Part of the steps in which the cosine schedule rises.")
    ] = 0.1,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.01,
    clip: Annotated[
        float | None,
        typer.Option(metavar="X", help="Largest norm of the gradient; any if not given."),
    ] = None,
    loss: Annotated[LossName, typer.Option(help="bce is ce of one class.")] = LossName.ce_dice,
    class_weights: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="What a pixel of each class counts in the cross-entropy, background first.",
        ),
    ] = None,
    balance: Annotated[
        float,
        typer.Option(
            help="Part of the patches centred on a foreground class, the classes drawn evenly."
        ),
    ] = 0.0,
    augment: Annotated[
        AugmentName,
        typer.Option(help="em: flips, and what goes wrong with sections ([em] in FILE.toml)."),
    ] = AugmentName.flips,
    precision: Annotated[
        PrecisionName,
        typer.Option(help="bf16 and fp16 keep float32 weights; auto is bf16 on a GPU that has it."),
    ] = PrecisionName.auto,
    devices: Annotated[
        int, typer.Option(help="GPUs that share each batch; processes with --device cpu.")
    ] = 1,
    looks: Annotated[int, typer.Option(help="How often the validation slices are looked at.")] = 4,
    patience: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="End after N looks without a better Dice; never early if not given."
        ),
    ] = None,
    keep: Annotated[
        KeepName, typer.Option(help="Which state OUT is, by validation Dice.")
    ] = KeepName.best,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a killed run.")] = False,
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    json: options.Json = None,
    force: options.Force = False,
    traceback: options.Traceback = False,
) -> None:
    """Train a 2D+ segmentation model from an RGB-pretrained encoder."""
    from evenslice.learn.recipe import TrainFile, read_config
    from evenslice.model.provenance import command_line
    from evenslice.progress import bar
    from evenslice.report.pages import page_beside
    from evenslice.report.tables import print_scores
    from evenslice.report.training_page import write_training_page
    from evenslice.verbs.train import Trained
    from evenslice.verbs.train import train as run
    from evenslice.volume.atomic import check_writable

    page = page_beside(out)
    file = TrainFile() if config is None else read_config(config)
    others = [(one.volume, one.labels) for one in file.more] + [
        pair_of(text) for text in more or []
    ]
    check_json(
        json,
        force or resume,
        config,
        volume,
        labels,
        out,
        page,
        *(Path(path) for pair in others for path in pair),
    )
    recipe = file.recipe(**given(ctx))
    if page.exists():
        check_writable(page, force or resume)

    def write(result: Trained) -> None:
        """Write what belongs to the model, before the state of its run is removed."""
        write_training_page(page, result, facts, command_line())
        if json != "-":
            write_json(json, result.scores.to_dict(), force or resume)

    facts = {"volume": ", ".join([str(volume), *(path for path, _ in others)])}
    result = run(
        [str(volume), *(path for path, _ in others)],
        [str(labels), *(path for _, path in others)],
        out,
        recipe,
        device=device.value,
        resume=resume,
        force=force,
        shown=SHOWN,
        told=write,
        progress=bar,
    )
    for note in result.warnings:
        warn(note)
    scores = result.scores.to_dict()
    told = is_told(json, schema=scores["schema"], dice=scores["dice"], iou=scores["iou"])
    if json == "-" or not (result.looks or told):  # else it is written
        write_json(json, scores, force or resume)
    if json != "-":
        done = result.looks[-1]["steps"] if result.looks else recipe.steps
        if done < recipe.steps:
            print(
                f"stopped after {done} of {recipe.steps} steps: no better Dice in {recipe.patience} looks"
            )
        print_scores(result.scores, f"{out} on the validation slices")


def pair_of(text: str) -> tuple[str, str]:
    """Split what ``paired`` joined."""
    volume, labels = text.split(BETWEEN)
    return volume, labels


def given(ctx: typer.Context) -> dict[str, Any]:
    """Return the fields of the recipe that were given as options, as the recipe has them."""
    from evenslice.learn.recipe import Recipe

    found: dict[str, Any] = {}
    for name in Recipe.model_fields:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            value = ctx.params[name]
            found[name] = value.value if isinstance(value, StrEnum) else value
    if isinstance(found.get("class_weights"), str):
        found["class_weights"] = options.numbers(found["class_weights"], "--class-weights")
    return found
