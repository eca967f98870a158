"""The state of a long run: a folder from which others may join, and the run can be resumed."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError
from evenslice.options import JsonObject
from evenslice.volume.atomic import fsync, named, remove, remove_stale, temp_path, written_beside
from evenslice.volume.locks import SUFFIXES, try_lock, wait_lock

Record = JsonObject
FOLDER_SIZE = 1000  # records in one folder
MANIFEST, PLAN = "manifest.json", "plan.lock"
# Threads of zarr may still write there when a run that failed has been removed.
WORK = {"done", "objects", "store.zarr"}


def stored_table(file: Path, *needed: str) -> Record:
    """Read a JSON file that holds a table with some keys.

    Raises
    ------
    BadInputError
        If it holds something else.
    FileNotFoundError
        If there is no such file.
    """
    found = _stored(file)
    if not isinstance(found, dict) or not found.keys() >= set(needed):
        raise corrupt_metadata(file, f"it is no table with {', '.join(needed) or 'keys'}")
    return found


def stored_rows(file: Path, *needed: str) -> list[Record]:
    """Read a JSON file that holds a list of tables with some keys; raises as ``stored_table``."""
    found = _stored(file)
    if not isinstance(found, list) or not all(
        isinstance(row, dict) and row.keys() >= set(needed) for row in found
    ):
        raise corrupt_metadata(file, f"it is no list of tables with {', '.join(needed)}")
    return found


def _stored(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise corrupt_metadata(file, error) from error


def corrupt_metadata(file: Path, reason: object) -> BadInputError:
    """Return the error for a file that is not as it was written."""
    return BadInputError(
        f"{file} is damaged ({str(reason)[:100]}), expected what this run wrote; start over with "
        "--force, or remove its folder"
    )


class RunState:
    """A run's folder: its manifest, and a record for each piece of work that is done.

    Whoever takes part holds a lock, taken under the lock of the plan, so that nobody starts the run
    over under those who work on it.

    Attributes
    ----------
    folder
        Where it lies.
    manifest
        ``asked``: what the run is to do, equal for all who take part; ``chosen``: how, decided once
        by the first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = stored_table(folder / MANIFEST, "asked", "chosen")

    def is_done(self, stage: str, index: int) -> bool:
        """Whether a piece of work is done."""
        return self._record(stage, index).exists()

    def done(self, stage: str, index: int, record: Record | None = None) -> None:
        """Note that a piece of work is done and written."""
        place = self._record(stage, index)
        part = temp_path(place)
        try:
            with named(place, part):
                place.parent.mkdir(parents=True, exist_ok=True)
                part.write_text(json.dumps(record or {}))
                fsync(part)
                part.replace(place)
        except BaseException:
            remove(part)
            raise

    def left(self, stage: str, indices: range) -> list[int]:
        """Return those pieces of a stage that are not done."""
        return [index for index in indices if not self.is_done(stage, index)]

    def records(self, stage: str, count: int) -> Iterator[Record]:
        """Yield the records of the pieces 0 to ``count`` - 1 of a stage that are done."""
        for index in range(count):
            if self.is_done(stage, index):
                yield stored_table(self._record(stage, index))

    def age_s(self) -> float:
        """Return how long ago the run began, seconds."""
        return time.time() - (self.folder / MANIFEST).stat().st_mtime

    @contextmanager
    def trying(self, name: str) -> Iterator[bool]:
        """Try to take a lock of the run; give whether that succeeded."""
        with try_lock(self.folder / f"{name}.lock") as free:
            yield free

    @contextmanager
    def holding(self, name: str, out: Path) -> Iterator[None]:
        """Hold a lock of the run.

        Raises
        ------
        BadInputError
            If another process does, or the run was completed or started over since it was opened.
        """
        with ExitStack() as stack:
            with self._planning():
                if not self._is_here():
                    raise BadInputError(
                        f"the run in {self.folder} was completed or started over by another "
                        "process just now, expected it to be there; run the command again"
                    )
                if not stack.enter_context(self.trying(name)):
                    raise busy(out, self.folder / f"{name}.lock")
            yield

    def remove(self) -> None:
        """Remove the folder; what is left of it if that is cut short is no run any more."""
        with self._planning():
            remove_run(self.folder)

    @contextmanager
    def _planning(self) -> Iterator[None]:
        """Hold the lock of the plan, if the folder is there."""
        if self.folder.is_dir():
            with wait_lock(self.folder / PLAN):
                yield
        else:
            yield

    def _is_here(self) -> bool:
        try:
            return stored_table(self.folder / MANIFEST) == self.manifest
        except FileNotFoundError:
            return False

    def _record(self, stage: str, index: int) -> Path:
        folder, number = divmod(index, FOLDER_SIZE)
        return self.folder / "done" / stage / f"{folder:06d}" / f"{number:03d}.json"


def remove_run(folder: Path) -> None:
    """Remove the folder of a run in one step, and then what was in it."""
    gone = temp_path(folder, "gone")
    folder.rename(gone)
    shutil.rmtree(gone)


def clear_run(folder: Path) -> None:
    """Remove what is in the folder of a run, apart from its locks."""
    for item in folder.iterdir():
        if not item.name.endswith(SUFFIXES):
            shutil.rmtree(item) if item.is_dir() else item.unlink()


def busy(out: Path, lock: Path) -> BadInputError:
    """Return the error for a result that another process works on."""
    return BadInputError(
        f"another process works on {out} ({lock.name.removesuffix('.lock')}), expected none; wait "
        "for it, or choose another name"
    )


def _check_idle(folder: Path) -> None:
    """Raise ``BadInputError`` if a process works on a run."""
    for lock in sorted(folder.glob("*.lock")):
        if lock.name not in (PLAN, "finish.lock"):  # who finishes holds another one, too
            with try_lock(lock) as free:
                if not free:
                    raise busy(folder.with_name(folder.name.removesuffix(".run")), lock)


def open_run_state(
    folder: Path, asked: Record, choose: Callable[[Path], Record], join: bool, force: bool
) -> RunState:
    """Begin a run, or take part in the one that is there.

    Parameters
    ----------
    folder
        Of the run.
    asked
        What it is to do.
    choose
        Decides how, and prepares what is written into, given the folder; called once for a run.
    join
        Whether a run that is there may be joined; if so it must have the same ``asked``.
    force
        Whether to remove a run that is there.

    Raises
    ------
    BadInputError
        If a run is there that must not be joined, or has another ``asked``; or something that is no
        run.
    """
    with begun(folder, {MANIFEST, PLAN} | WORK, PLAN):
        if (folder / MANIFEST).exists() and not force:
            return _joined(folder, json.loads(json.dumps(asked)), join)
        if (folder / MANIFEST).exists():
            _check_idle(folder)
            (folder / MANIFEST).unlink()  # first: without it there is no run
        clear_run(folder)  # also of what a process left that was killed here
        try:
            chosen = choose(folder)
            manifest = json.dumps({"asked": asked, "chosen": chosen}, indent=2)
            with written_beside(folder / MANIFEST) as part:
                part.write_text(manifest + "\n")
        except BaseException:
            remove_run(folder)
            raise
        return RunState(folder)


@contextmanager
def begun(folder: Path, ours: set[str], lock: str) -> Iterator[None]:
    """Make the folder of a run if need be, and hold its lock.

    Parameters
    ----------
    folder
        Of the run. What ended processes left of those before it is removed.
    ours
        Names of which one at least is there if the folder holds a run and anything else.
    lock
        Name of the lock.

    Raises
    ------
    BadInputError
        If something else is there.
    """
    remove_stale(folder)
    if folder.exists() and not folder.is_dir():
        raise BadInputError(
            f"{folder} is a file, expected no file of that name, for the state of the run; move it"
        )
    names = {item.name for item in folder.glob("[!.]*")}
    if names and not names & (ours | {f"{lock}.soft"}):
        raise BadInputError(
            f"{folder} holds no run, expected no folder of that name, for the state of the run; "
            "move it"
        )
    with ExitStack() as stack:
        while True:
            folder.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # removed by the run that was waited for
                stack.enter_context(wait_lock(folder / lock))
                break
        yield


def _joined(folder: Path, asked: Record, join: bool) -> RunState:
    run_state = RunState(folder)
    if not join:
        _check_idle(folder)
        raise BadInputError(
            f"{folder} holds an unfinished run, expected none; add --resume to complete it, or "
            "start over with --force"
        )
    there = run_state.manifest["asked"]
    other = [key for key in sorted({*there, *asked}) if there.get(key) != asked.get(key)]
    if other:
        name = other[0]
        raise BadInputError(
            f"{folder} holds a run with another {name} ({_short(there.get(name))}), expected "
            f"{_short(asked.get(name))} as asked now; repeat its options, or start over with "
            "--force"
        )
    return run_state


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
