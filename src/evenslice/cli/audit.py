"""The command ``evenslice audit``."""

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
    write_text,
)
from evenslice.errors import BadInputError

SHOWN = 6


def audit(
    model: options.ModelName,
    volume: options.VolumePath,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Truth of the same shape: stratifies the windows, measures the lag, is shown."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for audit.json and report.html.")] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Families of evidence: ablation, ablation-copy, shapley, gradient, integrated-gradients (these are the default), "
            "input-x-gradient, smoothgrad. The response to the reversal is always measured.",
        ),
    ] = None,
    windows: Annotated[
        str,
        typer.Option(metavar="N|auto", help="How many windows; auto: until decided, at most 64."),
    ] = "auto",
    tile: Annotated[int, typer.Option(min=16, help="Side of a window in pixels.")] = 256,
    region: Annotated[
        options.RegionName,
        typer.Option(help="What is explained: the class predicted, the true one, ..."),
    ] = options.RegionName.predicted,
    design: Annotated[
        options.DesignName,
        typer.Option(help="latin also measures all cyclic shifts: are all slots alike?"),
    ] = options.DesignName.reversal,
    margin: Annotated[float, typer.Option(help="Mirror pairs within this count as even.")] = 0.05,
    fail_above: Annotated[
        float | None,
        typer.Option(help="Exit 1 if some pair's interval reaches beyond +-X.", metavar="X"),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(metavar="STORE", help="Write the attribution of every window as OME-Zarr."),
    ] = None,
    slices: options.Slices = None,
    mean: options.Mean = None,
    std: options.Std = None,
    roi: options.Roi = None,
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    json: options.Json = None,
    force: options.Force = False,
    traceback: options.Traceback = False,
) -> int:
    """Measure how much each slice counts, whether previous equals next, and how sure that is."""
    from evenslice.evidence.methods import MOST_FOR_SHAPLEY
    from evenslice.evidence.perturbation import runs_needed
    from evenslice.model.inputs import model_of, name_of
    from evenslice.model.provenance import command_line
    from evenslice.progress import bar
    from evenslice.report.pages import write_audit_page
    from evenslice.report.tables import print_audit
    from evenslice.verbs.audit import AUTO
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
        loaded = model_of(
            model, slices, options.numbers(mean, "--mean"), options.numbers(std, "--std")
        )
    if loaded.normalisation is None:
        warn(
            f"{model} says nothing of its normalisation; the volume's own mean and std are used (give --mean and --std)"
        )
    chosen = None if methods is None else methods.split(",")
    if chosen is not None and loaded.slices > MOST_FOR_SHAPLEY and "shapley" in chosen:
        runs = runs_needed(chosen, loaded.slices)
        warn(
            f"exact Shapley values of {loaded.slices} slices take {runs} runs of the network for every window and direction"
        )
    with stdout_to_stderr():
        result = run(
            loaded,
            volume,
            labels=labels,
            methods=chosen,
            windows=AUTO if windows == AUTO else options.whole_number(windows, "--windows"),
            tile=tile,
            region=region.value,
            design=design.value,
            roi=roi,
            margin=margin,
            seed=seed,
            device=device.value,
            maps=maps,
            force=force,
            looks=SHOWN if out is not None else 1,
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
    return (
        options.FAILED_CHECK if fail_above is not None and result.reaches_beyond(fail_above) else 0
    )


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
                f"--maps and --out are both {maps}, expected two names; choose another for one of them"
            )
        check_store_writable(maps, force)
