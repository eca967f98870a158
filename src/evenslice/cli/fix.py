"""The command ``evenslice fix``."""

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
from evenslice.options import FixOptions


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
    audit: Annotated[
        Path | None, typer.Option(metavar="VOLUME", help="Audit before and after on this volume.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Ground truth of that volume.")] = None,
    json: Json = None,
    force: Force = False,
    traceback: Traceback = False,
) -> None:
    """Make the stem of a trained model symmetric, without retraining, and report what changed."""
    from evenslice.progress import bar
    from evenslice.report.tables import print_fixed
    from evenslice.verbs.fix import fix as run

    check_json(json, force, *files_of(model), out, audit, labels)
    warn_of_code(model)
    with stdout_to_stderr():
        result = run(model, out, options, volume=audit, labels=labels, force=force, progress=bar)
    for note in result.warnings:
        warn(note)
    write_json(json, result.to_dict(), force)
    if json != "-":
        print_fixed(result, out)
