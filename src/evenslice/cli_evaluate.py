"""The verb evaluate on the command line."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice import cli_options as options
from evenslice.cli_writing import check_json, write_json


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
