"""Public data sets as the terminal shows them."""

import shlex
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from evenslice.data.placing import Placed
from evenslice.data.registry import Dataset
from evenslice.report.terminal import Terminal, say
from evenslice.volume.array import sizes


def print_datasets(known: tuple[Dataset, ...], parent: Path) -> None:
    """Print all data sets, and which of them are there."""
    table = Table(
        "name", "z x y x x", "voxel nm", "target", "terms", "there", title="Public data sets"
    )
    for one in known:
        missing = one.missing(parent / one.folder)
        there = "yes" if not missing else "no" if len(missing) == len(one.files) else "in part"
        row = (one.name, sizes(one.shape), _voxel(one), one.target, one.terms, there)
        table.add_row(*(escape(cell) for cell in row))
    Terminal().print(table)
    say(
        f"Fetch one with: evenslice data fetch NAME. They are looked for in {parent} ($EVENSLICE_DATA)."
    )


def print_placed(placed: Placed) -> None:
    """Print what a data set is, how it is split, on what terms, and what to do with it."""
    known, record = placed.dataset, placed.record
    if placed.fresh:
        say(f"{known.name} was fetched into {placed.folder}: {known.title}")
    else:
        say(f"{known.name} is in {placed.folder} already (--force fetches it again): {known.title}")
    for part in known.parts:
        span = "" if part.span is None else f", slices {part.span[0]}:{part.span[1]}"
        say(f"  {part.role}: {part.raw}, labels {part.labels}{span}")
    facts = {
        "split": known.split,
        "voxel nm (z, y, x)": _voxel(known),
        "labels are": known.target,
        "terms": known.terms,
        "please cite": f"{known.citation} (doi {known.doi})",
        "remarks": known.notes,
        "from": record.get("url", ""),
        "sha256": f"{record['sha256']} {record['sha256_is']}" if record else "",
    }
    for name, value in facts.items():
        if value:
            say(f"  {name}: {value}")
    for line in record.get("compared", []):
        say(f"  {line}")
    say(f"Next: {shlex.join(placed.command)}")


def _voxel(known: Dataset) -> str:
    return (
        "not stated"
        if known.voxel_nm is None
        else ", ".join(f"{side:g}" for side in known.voxel_nm)
    )
