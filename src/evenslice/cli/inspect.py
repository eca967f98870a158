"""The command ``evenslice inspect``."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import FAILED_CHECK, takes
from evenslice.cli.output import Output, check_inputs, files_of, running_code_of, words_of
from evenslice.options import InspectOptions
from evenslice.progress import report_progress


@takes(InspectOptions)
def inspect(
    source: Annotated[
        str, typer.Argument(metavar="MODEL|VOLUME", help="A model in any form, or a volume.")
    ],
    options: InspectOptions,
    output: Output,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="LABELS",
            help="Labels of a volume: do they fit the slice before or the slice after better?",
        ),
    ] = None,
) -> int:
    """Show a model's stem, or what a volume is and how well labels fit its slices."""
    from evenslice.model.source import form_of
    from evenslice.report.tables import print_inspected
    from evenslice.verbs.inspect import inspect as run

    output.check(*files_of(source), labels)
    if form_of(source) is not None:
        with report_progress("loading ...", 0):
            check_inputs(source)
            import_module("evenslice.model.opening")
    with running_code_of(source):
        result = run(source, options, labels=labels, progress=report_progress)
    after = ["audit", *words_of(source, options), "VOLUME"]
    if result.volume is not None:
        pair = ["VOLUME", source] if result.volume.meaning == "labels" else [source, "LABELS"]
        if labels is not None:
            pair = [source, str(labels)]
        after = ["train", *pair, "model.safetensors"]
    output.write(result, print_inspected, after=["evenslice", *after])
    failed = result.certificate is not None and not result.certificate.symmetric
    return FAILED_CHECK if failed else 0
