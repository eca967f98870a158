"""The verb export on the command line."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli import options
from evenslice.cli.output import (
    check_json,
    files_of,
    stdout_to_stderr,
    warn,
    warn_of_code,
    write_json,
)


class FormatName(StrEnum):
    """What other programs read."""

    onnx = "onnx"
    torch_export = "torch-export"
    bioimageio = "bioimageio"


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A .safetensors of evenslice, package.module:callable, or .pt2."
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="What to write: .onnx, .pt2, or .zip for a package of bioimage.io."
        ),
    ],
    format: Annotated[
        FormatName | None, typer.Option(help="By the ending of OUT when left out.")
    ] = None,
    opset: Annotated[
        int | None, typer.Option(metavar="N", help="Of ONNX, 16 to 23; 18 when left out.")
    ] = None,
    tile: Annotated[
        int,
        typer.Option(metavar="N", help="Height and width, where the network takes only one size."),
    ] = 256,
    author: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Of a package of bioimage.io; give it once for each."),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(metavar="SPDX", help="Of a package of bioimage.io, for example CC-BY-4.0."),
    ] = None,
    slices: options.Slices = None,
    mean: options.Mean = None,
    std: options.Std = None,
    seed: options.Seed = 0,
    json: options.Json = None,
    force: options.Force = False,
    traceback: options.Traceback = False,
) -> None:
    """Write a model for other programs, checked in their runtime against torch: ONNX, torch.export, bioimage.io."""
    from evenslice.report.export_table import print_exported
    from evenslice.verbs.export import export as run

    check_json(json, force, *files_of(model), out)
    warn_of_code(model)
    with stdout_to_stderr():
        result = run(
            model,
            out,
            format=None if format is None else format.value,
            opset=opset,
            tile=tile,
            slices=slices,
            mean=options.numbers(mean, "--mean"),
            std=options.numbers(std, "--std"),
            authors=tuple(author or ()),
            license=license,
            seed=seed,
            force=force,
        )
    for note in result.warnings:
        warn(note)
    write_json(json, result.to_dict(), force)
    if json != "-":
        print_exported(result)
