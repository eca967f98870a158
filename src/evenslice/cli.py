"""The command line: parse, call a verb, write, exit code."""

import json as jsonlib
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from evenslice import cli_options as options
from evenslice.cli_writing import check_json, complain, reason_of, warn, warn_of_code, write_json, write_text
from evenslice.errors import BadInputError

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Measure and remove the slice asymmetry that RGB pretraining leaves in 2D+ electron-microscopy models.",
)
INTERRUPTED = 130
FAILED_CHECK = 1
BAD_INPUT = 2

ModelName = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A .safetensors of evenslice, package.module:callable, .pt2 or .onnx."),
]
VolumePath = Annotated[Path, typer.Argument(metavar="VOLUME", help="A TIFF stack or a folder of images.")]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: exit 0 done, 1 a check the user asked for failed, 2 bad input, 130 interrupted."""
    words = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    # Threads that wait for each other sleep instead of spinning, or a second busy program makes torch many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(words, standalone_mode=False)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:  # nothing reaches the user as a traceback unless asked for
        if "--traceback" in words:
            raise
        complain(reason_of(error))
        sys.exit(BAD_INPUT)
    if code == INTERRUPTED:  # the parser, too, answers Ctrl-C with this code
        complain("interrupted")
    sys.exit(code if isinstance(code, int) else 0)


def _command() -> str:
    return shlex.join(["evenslice", *sys.argv[1:]])


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to.")] = Path("evenslice-demo"),
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    json: options.Json = None,
    force: options.Force = False,
    traceback: options.Traceback = False,
) -> None:
    """Train with an rgb and a green stem on bundled data, audit both, write one page; offline."""
    from evenslice.progress import lines
    from evenslice.volume.writing import folder_written_beside

    check_json(json, force)
    with folder_written_beside(out, force) as folder:
        print(
            "evenslice demo: a phantom volume, two networks, one difference between them; about two minutes",
            file=sys.stderr,
        )
        from evenslice.report.pages import write_demo_page
        from evenslice.report.tables import print_demo
        from evenslice.verbs.demo import run_demo

        result = run_demo(folder, seed=seed, device=device.value, progress=lines)
        write_text(folder / "demo.json", jsonlib.dumps(result.to_dict(), indent=2) + "\n")
        write_demo_page(folder / "report.html", result, _command())
    write_json(json, result.to_dict())
    if json != "-":
        print_demo(result)
        print(f"The page: {out / 'report.html'}")


@app.command()
def audit(
    model: ModelName,
    volume: VolumePath,
    labels: Annotated[Path | None, typer.Option(help="Truth of the same shape, shown beside the prediction.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for audit.json and report.html.")] = None,
    methods: Annotated[str, typer.Option(metavar="A,B", help="Families of evidence.")] = "gradient",
    windows: Annotated[str, typer.Option(metavar="N", help="How many windows.")] = "40",
    tile: Annotated[int, typer.Option(min=16, help="Side of a window in pixels.")] = 256,
    margin: Annotated[float, typer.Option(help="Mirror pairs within this count as even.")] = 0.05,
    fail_above: Annotated[
        float | None, typer.Option(help="Exit 1 if some pair's interval reaches beyond +-X.", metavar="X")
    ] = None,
    slices: options.Slices = None,
    mean: options.Mean = None,
    std: options.Std = None,
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    json: options.Json = None,
    force: options.Force = False,
    traceback: options.Traceback = False,
) -> int:
    """Measure how much each slice counts, whether previous equals next, and how sure that is."""
    from evenslice.progress import bar
    from evenslice.report.pages import write_audit_page
    from evenslice.report.tables import print_audit
    from evenslice.verbs.audit import audit as run
    from evenslice.verbs.models import model_of, name_of
    from evenslice.volume.writing import check_writable

    check_json(json, force, Path(model), volume, labels, out)
    if out is not None:
        if out.exists() and not out.is_dir():
            raise BadInputError(f"{out} is a file, expected a folder for --out; choose another name")
        for path in (out / "audit.json", out / "report.html") if out.is_dir() else (out,):
            check_writable(path, force)
    if fail_above is not None and not 0 <= fail_above <= 1:
        raise BadInputError(f"--fail-above is {fail_above}, expected a number from 0 to 1; use for example 0.05")
    warn_of_code(model)
    loaded = model_of(model, slices, options.numbers(mean, "--mean"), options.numbers(std, "--std"))
    if loaded.normalisation is None:
        warn(
            f"{model} says nothing of its normalisation; the volume's own mean and std are used (give --mean and --std)"
        )
    result = run(
        loaded,
        volume,
        labels=labels,
        methods=methods.split(","),
        windows=options.whole_number(windows, "--windows"),
        tile=tile,
        margin=margin,
        seed=seed,
        device=device.value,
        label=name_of(model),
        progress=bar,
    )
    if out is not None:
        out.mkdir(exist_ok=True)
        write_text(out / "audit.json", result.to_json())
        write_audit_page(
            out / "report.html", result, name_of(model), {"model": model, "volume": str(volume)}, _command()
        )
    write_json(json, result.to_dict())
    if json != "-":
        print_audit(result)
    return FAILED_CHECK if fail_above is not None and result.reaches_beyond(fail_above) else 0


@app.command()
def inspect(
    source: Annotated[str, typer.Argument(metavar="MODEL|VOLUME", help="A model in any form, or a volume.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Measure the response to the reversal; exit 1 if it is not even.")
    ] = False,
    slices: options.Slices = None,
    mean: options.Mean = None,
    std: options.Std = None,
    seed: options.Seed = 0,
    json: options.Json = None,
    force: options.Force = False,
    traceback: options.Traceback = False,
) -> int:
    """Show a model's stem, or what was understood of a volume."""
    from evenslice.report.tables import print_inspected
    from evenslice.verbs.inspect import inspect as run

    check_json(json, force, Path(source))
    warn_of_code(source)
    result = run(
        source,
        verify=verify,
        slices=slices,
        mean=options.numbers(mean, "--mean"),
        std=options.numbers(std, "--std"),
        seed=seed,
    )
    write_json(json, result.to_dict())
    if json != "-":
        print_inspected(result)
    return FAILED_CHECK if result.certificate is not None and not result.certificate.symmetric else 0


@app.command()
def fix(
    model: ModelName,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The fixed model: .safetensors, or .pt2 or .onnx like MODEL.")
    ],
    tie: Annotated[options.TieName, typer.Option(help="Kept when training goes on.")] = options.TieName.none,
    init: Annotated[
        options.InitName | None, typer.Option(help="Replace the stem instead of averaging it; needs retraining.")
    ] = None,
    tta: Annotated[
        options.TtaName,
        typer.Option(help="Leave the weights alone; answer as the mean over each window and its reversal."),
    ] = options.TtaName.none,
    slices: options.Slices = None,
    mean: options.Mean = None,
    std: options.Std = None,
    audit: Annotated[Path | None, typer.Option(metavar="VOLUME", help="Audit before and after on this volume.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Truth of that volume.")] = None,
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    json: options.Json = None,
    force: options.Force = False,
    traceback: options.Traceback = False,
) -> None:
    """Make the stem of a trained model even, without retraining, and say what changed."""
    from evenslice.progress import bar
    from evenslice.report.tables import print_audit, print_certificate, print_stems
    from evenslice.verbs.fix import fix as run

    check_json(json, force, Path(model), out, audit, labels)
    warn_of_code(model)
    result = run(
        model,
        out,
        tie=tie.value,
        init=None if init is None else init.value,
        tta=tta.value,
        slices=slices,
        mean=options.numbers(mean, "--mean"),
        std=options.numbers(std, "--std"),
        volume=audit,
        labels=labels,
        seed=seed,
        device=device.value,
        force=force,
        progress=bar,
    )
    for note in result.warnings:
        warn(note)
    write_json(json, result.to_dict())
    if json != "-":
        print_stems({"before": result.before, "after": result.after})
        print_certificate(result.certificate)
        for name, value in (result.change or {}).items():
            print(
                f"{name.replace('_', ' ')}: {value if isinstance(value, int) or value is None else format(value, '.4f')}"
            )
        for found in result.audits or ():
            print_audit(found)


@app.command()
def train(
    volume: VolumePath,
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
    from evenslice.progress import bar
    from evenslice.report.tables import print_scores
    from evenslice.verbs.train import Recipe
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


@app.command()
def segment(
    model: ModelName,
    volume: VolumePath,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A TIFF stack (.tif).")],
    output: Annotated[
        options.OutputName, typer.Option(help="Class numbers, or probabilities as uint8.")
    ] = options.OutputName.labels,
    threshold: Annotated[float, typer.Option(help="Probability above which a voxel is foreground.")] = 0.5,
    tile: Annotated[int | None, typer.Option(help="Side of a tile with its halo in pixels.")] = None,
    tta: Annotated[
        options.TtaName | None,
        typer.Option(help="Average over each window and its reversal, or not; as the model's record says."),
    ] = None,
    roi: options.Roi = None,
    device: options.Device = options.DeviceName.auto,
    force: options.Force = False,
    traceback: options.Traceback = False,
) -> None:
    """Segment a whole volume, slice by slice."""
    from evenslice.model.streaming import HALO
    from evenslice.progress import bar
    from evenslice.verbs.segment import segment as run

    warn_of_code(model)
    run(
        model,
        volume,
        out,
        output=output.value,
        threshold=threshold,
        tile=tile,
        tta=None if tta is None else tta.value,
        roi=roi,
        device=device.value,
        force=force,
        progress=bar,
    )
    if tile is not None and tile < 4 * HALO:
        warn(f"tiles under {4 * HALO} pixels have a halo of {tile // 4} and may differ at their seams")
    print(out)


@app.command()
def evaluate(
    prediction: Annotated[Path, typer.Argument(metavar="PREDICTION", help="Labels, or probabilities.")],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Labels of the same shape.")],
    threshold: Annotated[float, typer.Option(help="Probability above which a voxel is foreground.")] = 0.5,
    ignore: Annotated[str, typer.Option(metavar="N|none", help="Truth label to leave out.")] = "none",
    roi: options.Roi = None,
    json: options.Json = None,
    force: options.Force = False,
    traceback: options.Traceback = False,
) -> None:
    """Compare a segmentation with the truth: Dice and IoU."""
    from evenslice.progress import bar
    from evenslice.report.tables import print_scores
    from evenslice.verbs.evaluate import evaluate as run

    check_json(json, force, prediction, truth)
    left_out = None if ignore == "none" else options.whole_number(ignore, "--ignore")
    result = run(prediction, truth, threshold=threshold, ignore=left_out, roi=roi, progress=bar)
    write_json(json, result.to_dict())
    if json != "-":
        print_scores(result)
