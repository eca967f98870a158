"""The command ``evenslice study``."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import takes
from evenslice.cli.output import Output
from evenslice.options import StudyOptions
from evenslice.progress import report_progress

OWN = ("study.json", "rows.csv", "report.html", "name.txt")


@takes(StudyOptions)
def study(
    file: Annotated[
        Path, typer.Argument(metavar="STUDY.toml", help="Grids of what varies, and what all share.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the study; an unfinished one is resumed, by several processes too."
        ),
    ],
    options: StudyOptions,
    output: Output,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Resolve every cell, and print sizes, a time estimate and missing data.",
        ),
    ] = False,
) -> None:
    """Train, audit and score every cell of a grid, and compare them: the paper's experiment."""
    with report_progress("loading ...", 0):
        from evenslice.model.provenance import command_line
        from evenslice.report.run_pages import write_study_page
        from evenslice.report.tables import print_estimate, print_study
        from evenslice.study.estimate import estimate_study
        from evenslice.study.run import study as run

    output.check(file, out, *(out / name for name in OWN))
    command: list[object] = ["evenslice", "study", file, "--out", out]
    if dry_run:
        found = estimate_study(file, out, options.device, report_progress)
        output.write(found, print_estimate, after=command)
        return

    result = run(file, out, options, progress=report_progress)
    write_study_page(out / "report.html", result, command_line())
    if result.failed:
        command.append("--retry")
    elif result.done == result.cells:
        command = ["evenslice", "train", "VOLUME", "LABELS", "model.safetensors"]
    wrote = [out / name for name in ("report.html", "study.json", "rows.csv")]
    output.write(result, print_study, *wrote, after=command)
