"""The command ``evenslice study``."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import Force, Json, Traceback, takes
from evenslice.cli.output import check_json, write_json
from evenslice.options import StudyOptions

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
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Resolve every cell, and print sizes, a time estimate and missing data.",
        ),
    ] = False,
    json: Json = None,
    force: Force = False,
    traceback: Traceback = False,
) -> None:
    """Train, audit and score every cell of a grid, and compare them: the paper's experiment."""
    from evenslice.model.provenance import command_line
    from evenslice.progress import lines
    from evenslice.report.run_pages import write_study_page
    from evenslice.report.tables import print_study, say
    from evenslice.study.run import study as run

    check_json(json, force, file, out, *(out / name for name in OWN))
    if dry_run:
        _dry(file, out, options.device, json, force)
        return

    result = run(file, out, options, progress=lines)
    write_study_page(out / "report.html", result, command_line())
    write_json(json, result.to_dict(), force)
    if json != "-":
        print_study(result)
        say(f"The page: {out / 'report.html'}")


def _dry(file: Path, out: Path, device: str, json: str | None, force: bool) -> None:
    from evenslice.report.tables import print_estimate
    from evenslice.study.estimate import estimate_study

    result = estimate_study(file, out, device)
    write_json(json, result.to_dict(), force)
    if json != "-":
        print_estimate(result)
