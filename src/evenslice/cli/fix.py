"""The command ``evenslice fix``."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import ModelName, takes
from evenslice.cli.output import Output, check_inputs, files_of, running_code_of, words_of
from evenslice.options import FixOptions
from evenslice.progress import report_progress


@takes(FixOptions)
def fix(
    model: ModelName,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="The fixed model: .safetensors, or .pt2 or .onnx like MODEL."
        ),
    ],
    options: FixOptions,
    output: Output,
    audit: Annotated[
        Path | None, typer.Option(metavar="VOLUME", help="Audit before and after on this volume.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Ground truth of that volume.")] = None,
) -> None:
    """Make the stem of a trained model symmetric, without retraining, and report what changed."""
    with report_progress("loading ...", 0):
        check_inputs(model, audit, labels)
        from evenslice.model.source import form_of
        from evenslice.report.tables import print_fixed
        from evenslice.verbs.fix import fix as run

    output.check(*files_of(model), out, audit, labels)
    with running_code_of(model):
        result = run(
            model,
            out,
            options,
            volume=audit,
            labels=labels,
            force=output.force,
            progress=report_progress,
        )
    fixed = f"{model.partition('@')[0]}@{out}" if form_of(model) == "callable" else str(out)
    after = ["audit", *words_of(fixed, options), "VOLUME"]
    if audit is not None:
        after = ["segment", *words_of(fixed, options), str(audit), "segmented.zarr"]
    output.write(result, print_fixed, out, after=["evenslice", *after])
