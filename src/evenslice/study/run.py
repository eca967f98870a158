"""Study: the folder it keeps, its pending cells run one by one, and what their rows say."""

import csv
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from evenslice.errors import BadInputError, says_what_is_kept
from evenslice.model.provenance import provenance_of
from evenslice.model.weights_source import weights_record
from evenslice.options import JsonObject, StudyOptions
from evenslice.progress import Progress, prefixed, silent
from evenslice.segmentation.cluster import connected, outcome
from evenslice.study.cell import drop_models, run_cell
from evenslice.study.data import check_data, data_of, is_made, make_data
from evenslice.study.findings import findings_of
from evenslice.study.plan import Cell, DatasetTable, Plan, read_study
from evenslice.study.results import Study, unique
from evenslice.volume.atomic import remove_stale, written_beside
from evenslice.volume.locks import try_lock, wait_lock
from evenslice.volume.run_state import stored_rows, stored_table

Row = JsonObject
FIRST = ("arch", "encoder", "weights", "init", "tie", "dataset", "target", "seed", "dice", "iou")
MEASURED = ("mirror_index", "mirror_low", "mirror_high")
UNSHOWN = ("validation", "weights", "keep")  # of the settings that all cells share
COMPARED = ("treatment", "network", "dataset", "target", "seed")


class StudyFolder:
    """Where a study keeps what is done; made when missing.

    Raises
    ------
    BadInputError
        If the folder holds something else, or another study.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path, self._plan = path, plan
        name = path / "name.txt"
        if path.exists() and not path.is_dir():
            raise BadInputError(f"{path} is a file, expected a folder for --out; choose another")
        if not path.resolve().parent.is_dir():
            raise BadInputError(f"{path.parent} does not exist, expected a folder; create it first")
        if path.is_dir() and not name.exists() and any(path.glob("[!.]*")):
            raise BadInputError(
                f"{path} is not empty and holds no study, expected a new folder for --out; "
                "choose another"
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
            return stored_table(self.of(cell) / "row.json", "failure", *COMPARED)
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
                points = stored_rows(file, "steps")
                found.append({key: row[key] for key in COMPARED} | {"points": points})
        return found

    @contextmanager
    def tables_locked(self) -> Iterator[None]:
        """Be the only process that writes what belongs to all cells."""
        with wait_lock(self.path / "tables.lock"):
            yield


def as_csv(rows: Sequence[Row]) -> str:
    """Return rows as CSV: identity, scores and shares first; missing values are empty."""
    slots = max((row.get("slices") or 0 for row in rows), default=0)
    shares = [f"share_{slot}" for slot in range(slots)]
    first = [*FIRST, *shares, *MEASURED, "seconds", "failure"]
    before = [f"{name}_before" for name in (*shares, *MEASURED)]
    columns = dict.fromkeys([*first, *before, *(key for row in rows for key in row)])
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)  # None is written as nothing
    return text.getvalue()


def study(
    file: str | Path,
    out: str | Path,
    options: StudyOptions | None = None,
    *,
    progress: Progress = silent,
    **changes: object,
) -> Study:
    """Run the pending cells of a study, and compare all that are done.

    Several processes may be given the same folder: each takes cells that no other works on. A
    killed process loses only the steps since its last validation run.

    Parameters
    ----------
    file, out
        The TOML file; the folder of the study, resumed when it holds this study.
    options, changes
        ``StudyOptions``, and its fields as keyword arguments: ``device``, ``retry`` (run failed
        cells again), ``scheduler`` (address of a Dask scheduler whose workers see the folders).

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
    with folder.tables_locked(), progress("reading", 0):
        for name in data:
            if is_made(plan, name):
                make_data(data[name])
    pending = folder.pending(asked.retry)
    notes: Iterator[str]
    if asked.scheduler is None:
        notes = (
            run_pending(folder, plan, one, data[one.dataset], asked, progress) for one in pending
        )
    else:
        notes = _on_cluster(Path(file), folder.path, pending, asked)
    with (
        says_what_is_kept(partial(_kept, folder, plan)),
        progress(f"study {plan.table.name}", len(plan.cells)) as step,
    ):
        for note in itertools.chain([""] * (len(plan.cells) - len(pending)), notes):
            step(note)
    _remove_models(folder, plan)
    return gathered(folder, plan)


def _kept(folder: StudyFolder, plan: Plan) -> str:
    done = len(plan.cells) - len(folder.pending())
    return f"{done} of {len(plan.cells)} rows are kept in {folder.path}; the same command goes on"


def run_pending(
    folder: StudyFolder,
    plan: Plan,
    cell: Cell,
    data: DatasetTable,
    options: StudyOptions,
    progress: Progress = silent,
) -> str:
    """Run one cell unless another process does or did; return a word on how it went."""
    with folder.claiming(cell) as mine:
        if not mine:
            return "in another process"
        row = folder.row(cell)
        if row is None or (options.retry and row["failure"]):
            shown = prefixed(progress, cell.treatment)
            row = run_cell(cell, data, folder.of(cell), options.device, shown)
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
        rows, table = folder.rows(), plan.table
        trained = [one for one in plan.cells if (row := folder.row(one)) and not row["failure"]]
        made = _provenance(plan, folder.path, trained)
        result = Study(
            name=table.name,
            title=table.title,
            control=table.control,
            margin=table.audit.margin,
            dice_margin=table.dice_margin,
            confidence=table.confidence,
            cells=len(plan.cells),
            done=len(rows),
            failed=sum(bool(row["failure"]) for row in rows),
            settings=_settings(plan),
            versions=made["versions"],
            provenance=made,
            rows=tuple(rows),
            curves=tuple(folder.curves()),
            **findings_of(rows, table)._asdict(),
        )
        with written_beside(folder.path / "rows.csv") as part:
            part.write_text(as_csv(rows))
        with written_beside(folder.path / "study.json") as part:
            part.write_text(json.dumps(result.to_dict(), indent=1) + "\n")
    return result


def _provenance(plan: Plan, out: Path, done: Sequence[Cell]) -> JsonObject:
    read = {
        f"{name} {role}": path
        for name in plan.datasets
        for role, path in data_of(plan, name, out).roles().items()
    }
    seeds = sorted({cell.options.seed for cell in plan.cells})
    weights = {
        f"weights {cell.options.encoder} {cell.weights}": weights_record(
            cell.options.encoder, cell.options.weights
        )
        for cell in done
        if cell.options.weights != "none"
    }
    return provenance_of(None, **read, **weights) | {"seeds": seeds}


def _settings(plan: Plan) -> dict[str, str]:
    """Say what all cells share."""
    audit, options = plan.table.audit, [cell.options.model_dump() for cell in plan.cells]
    shared = {
        key.replace("_", " "): str(value)
        for key, value in options[0].items()
        if key not in UNSHOWN and all(one[key] == value for one in options)
    }
    return {
        "datasets": ", ".join(plan.datasets),
        "networks": ", ".join(unique(cell.network for cell in plan.cells)),
        "audit": f"{', '.join(audit.methods)}; {audit.windows} windows, margin {audit.margin:g}",
        **shared,
    }
