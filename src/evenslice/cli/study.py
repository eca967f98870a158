"""The command ``evenslice study``."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import takes
from evenslice.cli.output import Output
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
    from evenslice.report.tables import print_estimate, print_study, say

    output.check(file, out, *(out / name for name in OWN))
    if dry_run:
        from evenslice.study.estimate import estimate_study

        output.write(estimate_study(file, out, options.device), print_estimate)
        return
    from evenslice.model.provenance import command_line
    from evenslice.progress import lines
    from evenslice.report.run_pages import write_study_page
    from evenslice.study.run import study as run

    result = run(file, out, options, progress=lines)
    write_study_page(out / "report.html", result, command_line())
    if output.write(result, print_study):
        say(f"The page: {out / 'report.html'}")
