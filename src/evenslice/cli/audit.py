"""The command ``evenslice audit``."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import FAILED_CHECK, Force, Json, ModelName, Traceback, VolumePath, takes
from evenslice.cli.output import (
    check_json,
    files_of,
    stdout_to_stderr,
    warn,
    warn_of_code,
    write_json,
    write_text,
)
from evenslice.errors import BadInputError
from evenslice.options import AuditOptions

SHOWN = 6


@takes(AuditOptions)
def audit(
    model: ModelName,
    volume: VolumePath,
    options: AuditOptions,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Ground truth of the same shape: stratifies windows, measures the lag, is shown."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for audit.json and report.html.")] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(help="Exit 1 if some pair's interval reaches beyond +-X.", metavar="X"),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(metavar="STORE", help="Write the attribution of every window as OME-Zarr."),
    ] = None,
    json: Json = None,
    force: Force = False,
    traceback: Traceback = False,
) -> int:
    """Measure how much each slice counts, whether previous equals next, and how sure that is."""
    from evenslice.evidence.attribution import MOST_FOR_SHAPLEY, runs_needed
    from evenslice.model.inputs import model_of, name_of
    from evenslice.model.provenance import command_line
    from evenslice.progress import bar
    from evenslice.report.page import write_audit_page
    from evenslice.report.tables import print_audit
    from evenslice.verbs.audit import audit as run
    from evenslice.volume.atomic import folder_written_beside

    check_json(json, force, *files_of(model), volume, labels, out, maps, *_pages(out))
    _check_targets(model, out, maps, volume, labels, force)
    if fail_above is not None and not 0 <= fail_above <= 1:
        raise BadInputError(
            f"--fail-above is {fail_above}, expected a number from 0 to 1; use for example 0.05"
        )
    warn_of_code(model)
    with stdout_to_stderr():
        loaded = model_of(model, options.slices, options.mean, options.std, options.trust)
    if loaded.normalisation is None:
        warn(
            f"{model} does not state its normalisation; the mean and std of the volume are used "
            "(give --mean and --std)"
        )
    if loaded.slices > MOST_FOR_SHAPLEY and "shapley" in (options.methods or ()):
        runs = runs_needed(options.methods or (), loaded.slices)
        warn(
            f"exact Shapley values of {loaded.slices} slices take {runs} runs of the network per "
            "window and direction"
        )
    with stdout_to_stderr():
        result = run(
            loaded,
            volume,
            options,
            labels=labels,
            maps=maps,
            force=force,
            views=SHOWN if out is not None else 1,
            label=name_of(model),
            progress=bar,
        )
    if out is not None:
        facts = {"model": model, "volume": str(volume)}
        with folder_written_beside(out, force, beside=True) as folder:
            write_text(folder / "audit.json", result.to_json())
            write_audit_page(folder / "report.html", result, name_of(model), facts, command_line())
    for note in result.warnings:
        warn(note)
    write_json(json, result.to_dict(), force)
    if json != "-":
        print_audit(result)
    failed = fail_above is not None and result.reaches_beyond(fail_above)
    return FAILED_CHECK if failed else 0


def _pages(out: Path | None) -> list[Path]:
    return [] if out is None else [out / "audit.json", out / "report.html"]


def _check_targets(
    model: str, out: Path | None, maps: Path | None, volume: Path, labels: Path | None, force: bool
) -> None:
    from evenslice.model.inputs import check_apart
    from evenslice.volume.atomic import check_store_writable, check_writable

    if out is not None:
        if out.exists() and not out.is_dir():
            raise BadInputError(
                f"{out} is a file, expected a folder for --out; choose another name"
            )
        for path in (out / "audit.json", out / "report.html") if out.is_dir() else (out,):
            check_writable(path, force)
    if maps is not None:
        check_apart(maps, model, volume, labels)
        if out is not None and maps.resolve() == out.resolve():
            raise BadInputError(
                f"--maps and --out are both {maps}, expected two names; choose another for one of "
                "them"
            )
        check_store_writable(maps, force)
