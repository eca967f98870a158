"""The verb evaluate on the command line."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from evenslice.cli import options
from evenslice.cli.output import check_json, warn, write_json

AUTO: Literal["auto"] = "auto"


def evaluate(
    prediction: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTION", help="Labels, or probabilities; a store of segment will do."
        ),
    ],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Labels of the same shape.")],
    as_: Annotated[
        options.AsName,
        typer.Option("--as", help="Compare classes (Dice, IoU) or objects (Rand, VOI, matching)."),
    ] = options.AsName.semantic,
    threshold: Annotated[
        float, typer.Option(help="Probability above which a voxel is foreground.")
    ] = 0.5,
    ignore: Annotated[
        str,
        typer.Option(
            metavar="N|none",
            help="Truth label to leave out. By default none for classes; for objects 0, which Rand and VOI leave out "
            "(matching and Dice take it as background). none: 0 is a segment as any other; N: N is left out of all.",
        ),
    ] = AUTO,
    tolerance: Annotated[
        float,
        typer.Option(
            metavar="PIXELS", help="How far an outline may lie from the true one, within the slice."
        ),
    ] = 2.0,
    roi: options.Roi = None,
    json: options.Json = None,
    force: options.Force = False,
    traceback: options.Traceback = False,
) -> None:
    """Compare a segmentation with the truth: as classes, or as objects."""
    from evenslice.progress import bar
    from evenslice.report.tables import print_scores
    from evenslice.verbs.evaluate import evaluate as run

    check_json(json, force, prediction, truth)
    result = run(
        prediction,
        truth,
        as_=as_.value,
        threshold=threshold,
        ignore=_left_out(ignore),
        tolerance=tolerance,
        roi=roi,
        progress=bar,
    )
    for warning in result.warnings:
        warn(warning)
    write_json(json, result.to_dict(), force)
    if json != "-":
        print_scores(result)


def _left_out(text: str) -> int | Literal["auto"] | None:
    """Read --ignore: a label, none, or what is usual for the kind of scores."""
    if text == AUTO:
        return AUTO
    return None if text == "none" else options.whole_number(text, "--ignore")
