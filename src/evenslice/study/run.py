"""Study: expand the grid, take pending cells one by one, run each to its row, compare, write."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenslice.model.provenance import provenance_of
from evenslice.progress import Progress, silent
from evenslice.study.cell import drop_models, run_cell
from evenslice.study.data import Data, check_data, data_of, is_made, make_data
from evenslice.study.findings import Findings, findings_of
from evenslice.study.folder import Row, StudyFolder
from evenslice.study.plan import Cell, Plan, read_study
from evenslice.volume.atomic import written_beside

SCHEMA = "evenslice.study/1"


@dataclass(frozen=True)
class Study:
    """What a study has found so far.

    Attributes
    ----------
    plan
        What it is to do.
    rows
        One a cell that is done, failures with their reason.
    curves
        What was seen during training.
    findings
        What the rows say together.
    provenance
        Command, seeds, versions, and hashes of the study file's data.
    """

    plan: Plan
    rows: tuple[Row, ...]
    curves: tuple[Row, ...]
    findings: Findings
    provenance: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the study as JSON can hold it (schema evenslice.study/1)."""
        table = self.plan.table
        return {
            "schema": SCHEMA,
            "name": table.name,
            "title": table.title,
            "control": table.control,
            "margin": table.audit.margin,
            "dice_margin": table.dice_margin,
            "confidence": table.confidence,
            "cells": len(self.plan.cells),
            "done": len(self.rows),
            "failed": sum(bool(row["failure"]) for row in self.rows),
            "settings": _settings(self.plan),
            "versions": self.provenance["versions"],
            "provenance": self.provenance,
            "rows": list(self.rows),
            **self.findings.to_dict(),
            "curves": list(self.curves),
        }


def study(
    file: str | Path,
    out: str | Path,
    *,
    device: str = "auto",
    retry: bool = False,
    scheduler: str | None = None,
    told: Callable[[Study], None] | None = None,
    progress: Progress = silent,
) -> Study:
    """Run the cells of a study that are pending, and compare all that are done.

    Several processes may be given the same folder: each takes cells that no other works on. A killed one loses nothing but
    the steps since the last look at the validation slices.

    Parameters
    ----------
    file
        The TOML file.
    out
        Folder of the study; made when missing, gone on with when it holds this study.
    device
        ``auto``, ``cpu`` or ``cuda``.
    retry
        Whether cells that failed are run again.
    scheduler
        Address of a Dask scheduler whose workers run the cells, seeing the same folders; None to run them here.
    told
        Called with the result while no other process writes what belongs to all cells.
    progress
        How to show the progress.

    Raises
    ------
    BadInputError
        If the file cannot be used, data are missing, or the folder holds something else. What fails in a cell is a row.
    OSError
        If the disk is full or fails; run again, the study goes on.
    """
    plan = read_study(file)
    data = check_data(plan, Path(out))
    folder = StudyFolder(Path(out), plan)
    with folder.tables_held():
        for name in filter(lambda name: is_made(plan, name), data):
            make_data(data[name])
    pending = folder.pending(retry)
    with progress(f"study {plan.table.name}", len(plan.cells)) as step:
        for _ in range(len(plan.cells) - len(pending)):
            step()
        if scheduler is None:
            for cell in pending:
                step(do_cell(folder, plan, cell, data[cell.dataset], device, retry))
        else:
            from evenslice.study.cluster import do_on_cluster

            for note in do_on_cluster(scheduler, Path(file), folder.path, pending, device, retry):
                step(note)
    _tidy(folder, plan)
    return gathered(folder, plan, told)


def do_cell(
    folder: StudyFolder, plan: Plan, cell: Cell, data: Data, device: str, retry: bool = False
) -> str:
    """Run one cell unless another process does or did; return a word on how it went."""
    with folder.claiming(cell) as mine:
        if not mine:
            return "in another process"
        row = folder.row(cell)
        if row is None or (retry and row["failure"]):
            row = run_cell(cell, data, folder.of(cell), device)
            folder.keep(cell, row)
            gathered(folder, plan)
        if not plan.table.keep_models:
            drop_models(folder.of(cell))
    return f"{cell.treatment}: {row['failure'][:60] or format(row['mirror_index'] or 0.0, '+.3f')}"


def _tidy(folder: StudyFolder, plan: Plan) -> None:
    """Remove models that a process left behind which ended just after it had kept their row."""
    for cell in () if plan.table.keep_models else plan.cells:
        if folder.row(cell) is not None and any(folder.of(cell).glob("model*.safetensors")):
            with folder.claiming(cell) as mine:
                if mine:
                    drop_models(folder.of(cell))


def gathered(folder: StudyFolder, plan: Plan, told: Callable[[Study], None] | None = None) -> Study:
    """Compare all rows that there are, and write rows.csv and study.json, and what ``told`` does."""
    with folder.tables_held():
        rows = folder.rows()
        findings = findings_of(rows, plan.table)
        result = Study(
            plan, tuple(rows), tuple(folder.curves()), findings, _provenance(plan, folder.path)
        )
        folder.write_rows(rows)
        with written_beside(folder.path / "study.json") as part:
            part.write_text(json.dumps(result.to_dict(), indent=1) + "\n")
        if told is not None:
            told(result)
    return result


def _provenance(plan: Plan, out: Path) -> dict[str, Any]:
    named = {cell.dataset: data_of(plan, cell.dataset, out) for cell in plan.cells}
    read = {
        f"{name} {role}": path
        for name, data in named.items()
        for role, path in data.roles().items()
    }
    return provenance_of(None, **read) | {
        "seeds": sorted({cell.recipe.seed for cell in plan.cells})
    }


def _settings(plan: Plan) -> dict[str, str]:
    table, recipes = plan.table, [cell.recipe.model_dump() for cell in plan.cells]
    shared = {
        key: recipes[0][key]
        for key in recipes[0]
        if all(one[key] == recipes[0][key] for one in recipes)
    }
    left_out = ("validation", "weights", "keep")
    return {
        "data sets": _named(cell.dataset for cell in plan.cells),
        "networks": _named(cell.network for cell in plan.cells),
        "audit": f"{', '.join(table.audit.methods)}; {table.audit.windows} windows, margin {table.audit.margin:g}",
        **{
            key.replace("_", " "): str(value)
            for key, value in shared.items()
            if key not in left_out
        },
    }


def _named(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
