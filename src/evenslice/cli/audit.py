"""The command ``evenslice audit``."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import FAILED_CHECK, ModelName, VolumePath, takes
from evenslice.cli.output import (
    Output,
    check_inputs,
    files_of,
    running_code_of,
    stdout_to_stderr,
    warn,
    words_of,
    write_text,
)
from evenslice.errors import BadInputError
from evenslice.options import AuditOptions
from evenslice.progress import report_progress

SHOWN = 6  # windows on the page


@takes(AuditOptions)
def audit(
    model: ModelName,
    volume: VolumePath,
    options: AuditOptions,
    output: Output,
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
) -> int:
    """Measure how much each slice counts, whether previous equals next, and how sure that is."""
    with report_progress("loading ...", 0):
        check_inputs(model, volume, labels)
        from evenslice.evidence.attribution import MOST_FOR_SHAPLEY, runs_needed
        from evenslice.model.opening import model_of, name_of
        from evenslice.model.provenance import command_line
        from evenslice.model.source import form_of
        from evenslice.report.page import write_audit_page
        from evenslice.report.tables import print_audit
        from evenslice.verbs.audit import audit as run
        from evenslice.volume.atomic import folder_written_beside

    pages = [] if out is None else [out / "audit.json", out / "report.html"]
    output.check(*files_of(model), volume, labels, out, maps, *pages)
    if out is not None:
        if out.exists() and not out.is_dir():
            raise BadInputError(
                f"{out} is a file, expected a folder for --out; choose another name"
            )
        output.check_new(*(pages if out.is_dir() else [out]))
    if maps is not None:
        _check_maps(maps, out, model, volume, labels, output.force)
    if fail_above is not None and not 0 <= fail_above <= 1:
        raise BadInputError(
            f"--fail-above is {fail_above}, expected a number from 0 to 1; use for example 0.05"
        )
    with running_code_of(model), report_progress("loading ...", 0):
        loaded = model_of(model, options)
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
            force=output.force,
            views=SHOWN if out is not None else 1,
            label=name_of(model),
            progress=report_progress,
        )
    if out is not None:
        facts = {"model": model, "volume": str(volume)}
        with folder_written_beside(out, output.force, beside=True) as folder:
            write_text(folder / "audit.json", result.to_json())
            write_audit_page(folder / "report.html", result, name_of(model), facts, command_line())
    again = words_of(model, options)
    after: list[object] = ["segment", *again, volume, "segmented.zarr"]
    if result.verdict == "asymmetric":
        ending = ".safetensors" if form_of(model) == "callable" else Path(model).suffix
        after = ["fix", *again, f"fixed{ending}", "--audit", volume]
    elif result.verdict.startswith("inconclusive"):
        after = ["audit", *again, volume, "--windows", 2 * result.windows]
    wrote = [path for path in (*reversed(pages), maps) if path is not None]
    output.write(result, print_audit, *wrote, after=["evenslice", *after])
    return FAILED_CHECK if fail_above is not None and result.reaches_beyond(fail_above) else 0


def _check_maps(
    maps: Path, out: Path | None, model: str, volume: Path, labels: Path | None, force: bool
) -> None:
    from evenslice.volume.atomic import check_store_writable
    from evenslice.volume.inputs import check_apart

    check_apart(maps, model, volume, labels)
    if out is not None and maps.resolve() == out.resolve():
        raise BadInputError(
            f"--maps and --out are both {maps}, expected two names; choose another for one of them"
        )
    check_store_writable(maps, force)
