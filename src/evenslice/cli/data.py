"""The commands ``evenslice data list`` and ``evenslice data fetch``."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import Force, Json, Traceback
from evenslice.cli.output import check_json, warn, write_json

data_app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, help="List and download public datasets."
)


@data_app.command(name="list")
def list_(json: Json = None, force: Force = False, traceback: Traceback = False) -> None:
    """List the datasets, their terms, and which of them are there."""
    from evenslice.data.registry import DATASETS, default_folder
    from evenslice.report.tables import print_datasets

    check_json(json, force)
    parent = default_folder()
    listed = [one.describe(parent / one.folder) for one in DATASETS]
    write_json(
        json, {"schema": "evenslice.datasets/1", "folder": str(parent), "datasets": listed}, force
    )
    if json != "-":
        print_datasets(DATASETS, parent)


@data_app.command()
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="As list names it; case, spaces and punctuation do not matter."
        ),
    ],
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
    json: Json = None,
    force: Force = False,
    traceback: Traceback = False,
) -> None:
    """Fetch a dataset, unpack it and verify that it is as described."""
    from evenslice.data.fetch import fetch as run
    from evenslice.progress import bar
    from evenslice.report.tables import print_fetched

    check_json(json, force)
    fetched = run(name, to=to, source=from_, force=force, progress=bar)
    for note in fetched.notes:
        warn(note)
    write_json(json, fetched.to_dict(), force)
    if json != "-":
        print_fetched(fetched)
