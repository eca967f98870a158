"""Study: expand the grid, run the pending cells one by one, compare their rows, write."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenslice.model.provenance import provenance_of
from evenslice.options import StudyOptions
from evenslice.progress import Progress, silent
from evenslice.segmentation.cluster import connected, outcome
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
        One per cell that is done, failures with their reason.
    curves
        What was measured during training.
    findings
        Comparisons over all rows.
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
    options: StudyOptions | None = None,
    *,
    progress: Progress = silent,
    **changes: Any,
) -> Study:
    """Run the pending cells of a study, and compare all that are done.

    Several processes may be given the same folder: each takes cells that no other works on. A
    killed process loses only the steps since its last validation run.

    Parameters
    ----------
    file
        The TOML file.
    out
        Folder of the study; made when missing, resumed when it holds this study.
    options, changes
        ``StudyOptions``, and its fields as keyword arguments: ``device``, ``retry`` (run failed
        cells again), ``scheduler`` (address of a Dask scheduler whose workers see the folders).
    progress
        How to show the progress.

    Raises
    ------
    BadInputError
        If the file cannot be used, data are missing, or the folder holds something else. What
        fails in a cell is a row.
    OSError
        If the disk is full or fails; run again to resume.
    """
    asked = StudyOptions.of(options, changes)
    plan = read_study(file)
    data = check_data(plan, Path(out))
    folder = StudyFolder(Path(out), plan)
    with folder.tables_locked():
        for name in data:
            if is_made(plan, name):
                make_data(data[name])
    pending = folder.pending(asked.retry)
    with progress(f"study {plan.table.name}", len(plan.cells)) as step:
        for _ in range(len(plan.cells) - len(pending)):
            step()
        if asked.scheduler is None:
            for cell in pending:
                step(run_pending(folder, plan, cell, data[cell.dataset], asked))
        else:
            for note in _on_cluster(Path(file), folder.path, pending, asked):
                step(note)
    _remove_models(folder, plan)
    return gathered(folder, plan)


def run_pending(
    folder: StudyFolder, plan: Plan, cell: Cell, data: Data, options: StudyOptions
) -> str:
    """Run one cell unless another process does or did; return a word on how it went."""
    with folder.claiming(cell) as mine:
        if not mine:
            return "in another process"
        row = folder.row(cell)
        if row is None or (options.retry and row["failure"]):
            row = run_cell(cell, data, folder.of(cell), options.device)
            folder.keep(cell, row)
            gathered(folder, plan)
        if not plan.table.keep_models:
            drop_models(folder.of(cell))
    return f"{cell.treatment}: {row['failure'][:60] or format(row['mirror_index'] or 0.0, '+.3f')}"


def _on_cluster(
    file: Path, out: Path, cells: Sequence[Cell], options: StudyOptions
) -> Iterator[str]:
    """Hand the cells to the workers of a Dask cluster (extra ``dask``), yield a word on each."""
    with connected(str(options.scheduler)) as (distributed, client):
        given = (str(file.resolve()), str(out.resolve()), options)
        tasks = [client.submit(_on_worker, cell.name, *given, pure=False) for cell in cells]
        for task in distributed.as_completed(tasks, loop=client.loop):
            yield str(outcome(task, distributed))


def _on_worker(name: str, file: str, out: str, options: StudyOptions) -> str:
    plan = read_study(file)
    cell = next(one for one in plan.cells if one.name == name)
    data = data_of(plan, cell.dataset, Path(out))
    return run_pending(StudyFolder(Path(out), plan), plan, cell, data, options)


def _remove_models(folder: StudyFolder, plan: Plan) -> None:
    """Remove the models of processes that were killed just after they had kept their row."""
    for cell in () if plan.table.keep_models else plan.cells:
        if folder.row(cell) is not None and any(folder.of(cell).glob("model*.safetensors")):
            with folder.claiming(cell) as mine:
                if mine:
                    drop_models(folder.of(cell))


def gathered(folder: StudyFolder, plan: Plan) -> Study:
    """Compare all rows that there are, and write rows.csv and study.json."""
    with folder.tables_locked():
        rows = folder.rows()
        found, made = findings_of(rows, plan.table), _provenance(plan, folder.path)
        result = Study(plan, tuple(rows), tuple(folder.curves()), found, made)
        folder.write_rows(rows)
        with written_beside(folder.path / "study.json") as part:
            part.write_text(json.dumps(result.to_dict(), indent=1) + "\n")
    return result


def _provenance(plan: Plan, out: Path) -> dict[str, Any]:
    read = {
        f"{name} {role}": path
        for name in dict.fromkeys(cell.dataset for cell in plan.cells)
        for role, path in data_of(plan, name, out).roles().items()
    }
    seeds = sorted({cell.options.seed for cell in plan.cells})
    return provenance_of(None, **read) | {"seeds": seeds}


def _settings(plan: Plan) -> dict[str, str]:
    table, all_options = plan.table, [cell.options.model_dump() for cell in plan.cells]
    shared = {
        key: all_options[0][key]
        for key in all_options[0]
        if all(one[key] == all_options[0][key] for one in all_options)
    }
    left_out = ("validation", "weights", "keep")
    return {
        "datasets": _named(cell.dataset for cell in plan.cells),
        "networks": _named(cell.network for cell in plan.cells),
        "audit": f"{', '.join(table.audit.methods)}; {table.audit.windows} windows, "
        f"margin {table.audit.margin:g}",
        **{
            key.replace("_", " "): str(value)
            for key, value in shared.items()
            if key not in left_out
        },
    }


def _named(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
