"""The command ``evenslice export``."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import ModelName, takes
from evenslice.cli.output import Output, check_inputs, files_of, running_code_of
from evenslice.options import ExportOptions
from evenslice.progress import report_progress


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
    output: Output,
) -> None:
    """Write a model as ONNX, torch.export or bioimage.io package, checked against torch."""
    with report_progress("loading ...", 0):
        check_inputs(model)
        from evenslice.report.tables import print_exported
        from evenslice.verbs.export import export as run

    output.check(*files_of(model), out)
    with running_code_of(model), report_progress("exporting", 0):
        result = run(model, out, options, force=output.force)
    after = ["evenslice", "audit", out, "VOLUME"]
    if result.format == "bioimageio":
        after = ["bioimageio", "test", out]
    elif result.format == "torch-export":
        after.append("--trust")
    output.write(result, print_exported, out, after=after)
