"""The command ``evenslice export``."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import Force, Json, ModelName, Traceback, takes
from evenslice.cli.output import (
    check_json,
    files_of,
    stdout_to_stderr,
    warn,
    warn_of_code,
    write_json,
)
from evenslice.options import ExportOptions


@takes(ExportOptions)
def export(
    model: ModelName,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="What to write: .onnx, .pt2, or .zip for a bioimage.io package."
        ),
    ],
    options: ExportOptions,
    json: Json = None,
    force: Force = False,
    traceback: Traceback = False,
) -> None:
    """Write a model as ONNX, torch.export or bioimage.io package, checked against torch."""
    from evenslice.report.tables import print_exported
    from evenslice.verbs.export import export as run

    check_json(json, force, *files_of(model), out)
    warn_of_code(model)
    with stdout_to_stderr():
        result = run(model, out, options, force=force)
    for warning in result.warnings:
        warn(warning)
    write_json(json, result.to_dict(), force)
    if json != "-":
        print_exported(result)
