"""What a long run has done: a folder that survives the process, so that others may join it and it may be gone on with."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError
from evenslice.volume.atomic import flush_file, named, written_beside
from evenslice.volume.locks import held, holder_message, try_lock
from evenslice.volume.temp_names import remove_stale, temp_path, throw_away

MOST_BYTES = 256 * 2**20


def stored(file: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    BadInputError
        If it is not JSON, or of absurd size.
    FileNotFoundError
        If there is no such file.
    """
    if file.stat().st_size > MOST_BYTES:
        raise corrupt_metadata(file, f"more than {MOST_BYTES} bytes")
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise corrupt_metadata(file, error) from error


def stored_table(file: Path, *needed: str) -> dict[str, Any]:
    """Read a JSON file that holds a table with some keys; raises as ``stored``, also if it holds something else."""
    found = stored(file)
    if not isinstance(found, dict):
        raise corrupt_metadata(file, "it is no table")
    missing = [key for key in needed if key not in found]
    if missing:
        raise corrupt_metadata(file, f"it lacks {', '.join(missing)}")
    return found


def stored_rows(file: Path, *needed: str) -> list[dict[str, Any]]:
    """Read a JSON file that holds a list of tables with some keys; raises as ``stored``, also if it holds something else."""
    found = stored(file)
    if not isinstance(found, list) or not all(
        isinstance(row, dict) and row.keys() >= set(needed) for row in found
    ):
        raise corrupt_metadata(file, f"it is no list of tables with {', '.join(needed)}")
    return found


def corrupt_metadata(file: Path, reason: object) -> BadInputError:
    """Return the error for a file that is not as it was written."""
    return BadInputError(
        f"{file} is damaged ({str(reason)[:100]}), expected what this run wrote; start over with --force, or remove its folder"
    )


FAN = 1000
MANIFEST, PLAN = "manifest.json", "plan.lock"
# Threads of zarr may still write there when a run that failed has been removed.
WORK = {"done", "objects", "store.zarr"}
TRIES = 20


class RunState:
    """A run's folder: its manifest, and a record for each piece of work that is done.

    Locks are the operating system's where it has some: those of a killed process are gone with it. Whoever takes part holds one, taken
    while the run was looked at under the lock of its plan, so that nobody starts the run over under those who work on it.

    Attributes
    ----------
    folder
        Where it lies.
    manifest
        ``asked``: what the run is to do, equal for all who take part; ``chosen``: how, decided once by the first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = stored_table(folder / MANIFEST, "asked", "chosen")
        if not all(isinstance(self.manifest[part], dict) for part in ("asked", "chosen")):
            raise corrupt_metadata(folder / MANIFEST, "what was asked or chosen is no table")

    def is_done(self, stage: str, index: int) -> bool:
        """Whether a piece of work is done."""
        return self._place(stage, index).exists()

    def done(self, stage: str, index: int, record: dict[str, Any] | None = None) -> None:
        """Note that a piece of work is done and written."""
        place = self._place(stage, index)
        part = temp_path(place)
        try:
            with named(place, part):
                place.parent.mkdir(parents=True, exist_ok=True)
                part.write_text(json.dumps(record or {}))
                flush_file(part)
                part.replace(place)
        except BaseException:
            throw_away(part)
            raise

    def left(self, stage: str, indices: range) -> list[int]:
        """Return those pieces of a stage that are not done."""
        return [index for index in indices if not self.is_done(stage, index)]

    def records(self, stage: str, count: int) -> Iterator[dict[str, Any]]:
        """Yield the records of the pieces 0 to ``count`` - 1 of a stage that are done."""
        for index in range(count):
            if self.is_done(stage, index):
                yield stored_table(self._place(stage, index))

    def age_s(self) -> float:
        """Return how long ago the run began, seconds."""
        return time.time() - (self.folder / MANIFEST).stat().st_mtime

    @contextmanager
    def trying(self, name: str) -> Iterator[bool]:
        """Try to hold a lock of the run; give whether that succeeded."""
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
        trying = self.trying(name)
        with self._planning():
            if not self._is_here():
                raise BadInputError(
                    f"the run in {self.folder} was completed or started over by another process just now, expected it to go on; run the "
                    "command again"
                )
            free = trying.__enter__()
        try:
            if not free:
                raise busy(out, self.folder / f"{name}.lock")
            yield
        finally:
            trying.__exit__(None, None, None)

    def remove(self) -> None:
        """Remove the folder; what is left of it if that is cut short is no run any more."""
        with self._planning():
            remove_run(self.folder)

    @contextmanager
    def _planning(self) -> Iterator[None]:
        """Hold the lock of the plan, if the folder is there."""
        if self.folder.is_dir():
            with held(self.folder / PLAN):
                yield
        else:
            yield

    def _is_here(self) -> bool:
        try:
            return bool(json.loads((self.folder / MANIFEST).read_text()) == self.manifest)
        except FileNotFoundError:
            return False

    def _place(self, stage: str, index: int) -> Path:
        return self.folder / "done" / stage / f"{index // FAN:06d}" / f"{index % FAN:03d}.json"


def remove_run(folder: Path) -> None:
    """Remove the folder of a run in one step, and then what was in it."""
    gone = temp_path(folder, "gone")
    folder.rename(gone)
    shutil.rmtree(gone)


def busy(out: Path, lock: Path) -> BadInputError:
    """Return the error for a result that another process works on."""
    return BadInputError(
        f"another process works on {out} ({lock.name.removesuffix('.lock')}), expected none{holder_message(lock)}; wait for it, or choose another name"
    )


def is_busy(folder: Path) -> Path | None:
    """Return a lock in the folder of a run that some process holds, None if nobody works there."""
    for lock in sorted(folder.glob("*.lock")):
        if lock.name not in (PLAN, "finish.lock"):  # who finishes holds another one, too
            with try_lock(lock) as free:
                if not free:
                    return lock
    return None


def open_run_state(
    folder: Path,
    asked: dict[str, Any],
    choose: Callable[[Path], dict[str, Any]],
    join: bool,
    force: bool,
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
        Whether to throw away a run that is there.

    Raises
    ------
    BadInputError
        If a run is there that must not be joined, or has another ``asked``; or something that is no run.
    """
    with begun(folder, {MANIFEST, PLAN} | WORK, PLAN):
        if (folder / MANIFEST).exists() and not force:
            return _joined(folder, json.loads(json.dumps(asked)), join)
        _clear(folder)  # also of what a process left that was killed here
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
        If something else is there, or other processes come and go all the time.
    """
    remove_stale(folder)
    for _ in range(TRIES):
        if folder.exists() and not folder.is_dir():
            raise BadInputError(
                f"{folder} is a file, expected no file of that name, for the state of the run; move it"
            )
        try:
            names = {item.name for item in folder.iterdir()} if folder.exists() else set()
            if {name for name in names if not name.startswith(".")} and not names & (
                ours | {f"{lock}.held"}
            ):
                raise BadInputError(
                    f"{folder} holds no run, expected no folder of that name, for the state of the run; move it"
                )
            if not _made(folder):
                raise BadInputError(
                    f"{folder} cannot be used for the state of the run: no folder can be made there, expected one; choose another name"
                )
            made = folder.stat().st_ino
            holding = held(folder / lock)
            holding.__enter__()
        except FileNotFoundError:  # the one before has just removed it
            continue
        try:
            if folder.exists() and folder.stat().st_ino == made:
                yield
                return
        finally:
            holding.__exit__(None, None, None)
    raise BadInputError(
        f"{folder} comes and goes, expected one process that begins there; wait for the others"
    )


def _made(folder: Path) -> bool:
    """Make a folder unless it is there; False where none can be made, as in those of the system."""
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError:
        return False
    return True


def _joined(folder: Path, asked: dict[str, Any], join: bool) -> RunState:
    run_state = RunState(folder)
    if not join:
        lock = is_busy(folder)
        if lock is not None:
            raise busy(folder.with_name(folder.name.removesuffix(".run")), lock)
        raise BadInputError(
            f"{folder} holds an unfinished run, expected none; go on with --resume, or start over with --force"
        )
    theirs = run_state.manifest["asked"]
    other = [key for key in sorted({*theirs, *asked}) if theirs.get(key) != asked.get(key)]
    if other:
        name = other[0]
        raise BadInputError(
            f"{folder} holds a run with another {name} ({_short(theirs.get(name))}), expected {_short(asked.get(name))} as asked "
            "now; repeat its options, or start over with --force"
        )
    return run_state


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _clear(folder: Path) -> None:
    if (folder / MANIFEST).exists():
        lock = is_busy(folder)
        if lock is not None:
            raise busy(folder.with_name(folder.name.removesuffix(".run")), lock)
        (folder / MANIFEST).unlink()  # first: without it there is no run
    for item in folder.iterdir():
        if not item.name.endswith((".lock", ".lock.held")):
            shutil.rmtree(item) if item.is_dir() else item.unlink()
