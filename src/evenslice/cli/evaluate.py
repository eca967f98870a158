"""The command ``evenslice evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import Force, Json, Traceback, takes
from evenslice.cli.output import check_json, warn, write_json
from evenslice.options import EvaluateOptions


@takes(EvaluateOptions)
def evaluate(
    prediction: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTION", help="Labels, or probabilities; a store of segment will do."
        ),
    ],
    truth: Annotated[
        Path, typer.Argument(metavar="TRUTH", help="Ground-truth labels of the same shape.")
    ],
    options: EvaluateOptions,
    json: Json = None,
    force: Force = False,
    traceback: Traceback = False,
) -> None:
    """Compare a segmentation with the ground truth: as classes, or as objects."""
    from evenslice.progress import bar
    from evenslice.report.tables import print_scores
    from evenslice.verbs.evaluate import evaluate as run

    check_json(json, force, prediction, truth)
    result = run(prediction, truth, options, progress=bar)
    for warning in result.warnings:
        warn(warning)
    write_json(json, result.to_dict(), force)
    if json != "-":
        print_scores(result)
