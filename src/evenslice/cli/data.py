"""The commands ``evenslice data list`` and ``evenslice data fetch``."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import takes
from evenslice.cli.output import Output
from evenslice.progress import report_progress

data_app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, help="List and download public datasets."
)


@data_app.command(name="list")
@takes()
def list_(output: Output) -> None:
    """List the datasets, their terms, and which of them are there."""
    from evenslice.data.registry import DATASETS, default_folder
    from evenslice.report.tables import print_datasets

    output.check()
    parent = default_folder()
    found = {
        "schema": "evenslice.datasets/1",
        "folder": str(parent),
        "datasets": [one.describe(parent / one.folder) for one in DATASETS],
    }
    after = ["evenslice", "data", "fetch", "NAME"]
    output.write(found, lambda _: print_datasets(DATASETS, parent), after=after)


@data_app.command()
@takes()
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="As list names it; case, spaces and punctuation do not matter."
        ),
    ],
    output: Output,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the dataset; if not given, one in $EVENSLICE_DATA or ./data.",
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="URL|FILE", help="A mirror, or the archive as you have it already."
        ),
    ] = None,
) -> None:
    """Fetch a dataset, unpack it and verify that it is as described."""
    from evenslice.data.fetch import fetch as run
    from evenslice.report.tables import print_fetched

    output.check()
    fetched = run(name, to=to, source=from_, force=output.force, progress=report_progress)
    wrote = [fetched.folder] if fetched.fresh else []
    output.write(fetched, print_fetched, *wrote, after=fetched.command)
