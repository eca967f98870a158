"""The folder of a study: one folder per cell with its row, locks, and the table of all rows.

Any number of processes, on one machine or on several that share the folder, may work on it at the
same time.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError
from evenslice.study.plan import Cell, Plan
from evenslice.volume.atomic import remove_stale, written_beside
from evenslice.volume.locks import try_lock, wait_lock
from evenslice.volume.run_state import stored_rows, stored_table

FIRST = ("arch", "encoder", "weights", "init", "tie", "dataset", "target", "seed", "dice", "iou")
MEASURED = ("mirror_index", "mirror_low", "mirror_high")
COMPARED = ("treatment", "network", "dataset", "target", "seed")
Row = dict[str, Any]


class StudyFolder:
    """Where a study keeps what is done.

    Parameters
    ----------
    path
        The folder, made when missing.
    plan
        The study.

    Raises
    ------
    BadInputError
        If the folder holds something else, or another study.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path, self._plan = path, plan
        if path.exists() and not path.is_dir():
            raise BadInputError(
                f"{path} is a file, expected a folder for --out; choose another name"
            )
        if not path.resolve().parent.is_dir():
            raise BadInputError(
                f"the folder {path.parent} of {path.name} does not exist, expected one to write "
                "to; create it first"
            )
        name = path / "name.txt"
        if (
            path.is_dir()
            and any(not item.name.startswith(".") for item in path.iterdir())
            and not name.exists()
        ):
            raise BadInputError(
                f"{path} is not empty and holds no study, expected a new folder for --out; choose "
                "another"
            )
        path.mkdir(exist_ok=True)
        remove_stale(name)
        if not name.exists():  # written first, so that the folder is known as a study
            # Another process may be faster.
            with suppress(BadInputError), written_beside(name, force=False) as part:
                part.write_text(plan.table.name + "\n", encoding="utf-8")
        found = name.read_text(encoding="utf-8", errors="replace").strip()
        if found != plan.table.name:
            raise BadInputError(
                f"{path} holds the study {found[:100]!r}, expected {plan.table.name!r}; choose "
                "another folder for --out"
            )
        (path / "cells").mkdir(exist_ok=True)

    def of(self, cell: Cell) -> Path:
        """Return the folder of a cell."""
        return self.path / "cells" / cell.name

    def row(self, cell: Cell) -> Row | None:
        """Return the row of a cell, None while it is pending."""
        try:
            return stored_table(self.of(cell) / "row.json", "failure")
        except OSError:
            return None

    def pending(self, retry: bool = False) -> list[Cell]:
        """Return the cells without a row, first seeds first; with ``retry`` failed ones too.

        An unfinished study so holds whole repetitions.
        """
        rows = ((cell, self.row(cell)) for cell in self._plan.cells)
        left = [cell for cell, row in rows if row is None or (retry and row["failure"])]
        return sorted(left, key=lambda cell: cell.options.seed)

    @contextmanager
    def claiming(self, cell: Cell) -> Iterator[bool]:
        """Try to lock a cell; give whether that succeeded. A killed process releases it."""
        self.of(cell).mkdir(exist_ok=True)
        with try_lock(self.path / "cells" / f"{cell.name}.lock") as mine:
            yield mine

    def keep(self, cell: Cell, row: Row) -> None:
        """Write the row of a cell."""
        with written_beside(self.of(cell) / "row.json") as part:
            part.write_text(json.dumps(row, indent=2) + "\n")

    def rows(self) -> list[Row]:
        """Return the rows that there are, in the order of the study file."""
        return [row for cell in self._plan.cells if (row := self.row(cell)) is not None]

    def curves(self) -> list[Row]:
        """Return what the validation runs of the cells measured."""
        found = []
        for cell in self._plan.cells:
            file, row = self.of(cell) / "curve.json", self.row(cell)
            if row is not None and not row["failure"] and file.exists():
                stored_table(self.of(cell) / "row.json", *COMPARED)
                found.append(
                    {key: row[key] for key in COMPARED} | {"points": stored_rows(file, "steps")}
                )
        return found

    @contextmanager
    def tables_locked(self) -> Iterator[None]:
        """Be the only process that writes what belongs to all cells."""
        with wait_lock(self.path / "tables.lock"):
            yield

    def write_rows(self, rows: Sequence[Row]) -> None:
        """Write rows.csv: one line per cell, the columns of all cells."""
        with written_beside(self.path / "rows.csv") as part:
            part.write_text(as_csv(rows))


def as_csv(rows: Sequence[Row]) -> str:
    """Return rows as CSV: identity, scores and shares first; missing values are empty."""
    slots = max((row.get("slices") or 0 for row in rows), default=0)
    shares = [f"share_{slot}" for slot in range(slots)]
    first = [*FIRST, *shares, *MEASURED, "seconds", "failure"]
    before = [f"{name}_before" for name in (*shares, *MEASURED)]
    rest = [
        key
        for key in dict.fromkeys(key for row in rows for key in row)
        if key not in (*first, *before)
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*first, *before, *rest], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: "" if value is None else value for key, value in row.items()} for row in rows
    )
    return text.getvalue()
