"""The command ``evenslice evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import takes
from evenslice.cli.output import Output
from evenslice.options import EvaluateOptions
from evenslice.progress import report_progress


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
    output: Output,
    raw: Annotated[
        Path | None,
        typer.Option(
            metavar="RAW",
            help="Raw volume: does the ground truth fit the slice before or after better?",
        ),
    ] = None,
) -> None:
    """Compare a segmentation with the ground truth: as classes, or as objects."""
    from evenslice.report.tables import print_scores
    from evenslice.verbs.evaluate import evaluate as run

    output.check(prediction, truth, raw)
    scores = run(prediction, truth, options, raw=raw, progress=report_progress)
    after = ["evenslice", "audit", "MODEL", "VOLUME", "--labels", truth]
    output.write(scores, print_scores, after=after)
