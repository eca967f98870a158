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
from evenslice.volume.atomic import remove_stale, temp_path, wait_for_zarr, written_beside
from evenslice.volume.locks import try_lock, wait_lock

Record = JsonObject
FOLDER_SIZE = 1000  # records in one folder
MANIFEST, PLAN = "manifest.json", "plan.lock"


def stored_table(file: Path, *needed: str) -> Record:
    """Read a JSON file that holds a table with some keys; else raise ``BadInputError``.

    Raises ``FileNotFoundError`` if there is no such file.
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
    over under those who work on it. Of ``manifest``, ``asked`` is what the run is to do, equal for
    all who take part, and ``chosen`` how, decided once by the first.
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
        place.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(place) as part:
            part.write_text(json.dumps(record or {}))

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

        Raises ``BadInputError`` if another process does, or the run was completed or started over
        since it was opened.
        """
        here = False
        with ExitStack() as stack:
            with suppress(FileNotFoundError), wait_lock(self.folder / PLAN):
                here = stored_table(self.folder / MANIFEST) == self.manifest
                if here and not stack.enter_context(self.trying(name)):
                    raise _busy(out, name)
            if not here:
                raise BadInputError(
                    f"the run in {self.folder} was completed or started over by another process "
                    "just now, expected it to be there; run the command again"
                )
            yield

    def remove(self) -> None:
        """Remove the folder; what is left of it if that is cut short is no run any more."""
        with suppress(FileNotFoundError), wait_lock(self.folder / PLAN):
            _remove(self.folder)

    def _record(self, stage: str, index: int) -> Path:
        folder, number = divmod(index, FOLDER_SIZE)
        return self.folder / "done" / stage / f"{folder:06d}" / f"{number:03d}.json"


def _remove(folder: Path) -> None:
    """Remove the folder of a run in one step, and then what was in it."""
    wait_for_zarr()
    gone = temp_path(folder)
    folder.rename(gone)
    shutil.rmtree(gone)


def _busy(out: Path, name: str) -> BadInputError:
    return BadInputError(
        f"another process works on {out} ({name}), expected none; wait for it, or choose another "
        "name"
    )


def _check_idle(folder: Path) -> None:
    """Raise ``BadInputError`` if a process works on a run."""
    for lock in sorted(folder.glob("*.lock")):
        if lock.name not in (PLAN, "finish.lock"):  # who finishes holds another one, too
            with try_lock(lock) as free:
                if not free:
                    raise _busy(folder.with_name(folder.name.removesuffix(".run")), lock.stem)


def open_run_state(
    folder: Path, asked: Record, choose: Callable[[Path], Record], join: bool, force: bool
) -> RunState:
    """Begin a run in ``folder``, or take part in the one that is there.

    Parameters
    ----------
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
    manifest = folder / MANIFEST
    with _begun(folder):
        if manifest.exists() and not force:
            return _joined(folder, json.loads(json.dumps(asked)), join)
        if manifest.exists():
            _check_idle(folder)
            manifest.unlink()  # first: without it there is no run
        for item in folder.iterdir():  # also of what a process left that was killed here
            if item.suffix != ".lock":
                shutil.rmtree(item) if item.is_dir() else item.unlink()
        try:
            chosen = choose(folder)
            with written_beside(manifest) as part:
                part.write_text(json.dumps({"asked": asked, "chosen": chosen}, indent=2) + "\n")
        except BaseException:
            _remove(folder)
            raise
        return RunState(folder)


@contextmanager
def _begun(folder: Path) -> Iterator[None]:
    """Make the folder of a run if need be, and hold the lock of its plan."""
    remove_stale(folder)
    names = {item.name for item in folder.glob("[!.]*")}
    if folder.is_file() or (names and not names & {MANIFEST, PLAN}):
        raise BadInputError(
            f"{folder} is no folder of a run, expected nothing of that name, for the state of the "
            "run; move it"
        )
    with ExitStack() as stack:
        while True:
            folder.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # removed by the run that was waited for
                stack.enter_context(wait_lock(folder / PLAN))
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
    if differs := differing(run_state.manifest["asked"], asked):
        raise BadInputError(
            f"{folder} holds a run with another {differs}, expected the same to resume; repeat its "
            "options, or start over with --force"
        )
    return run_state


def differing(was: Record, now: Record) -> str:
    """Name the settings that two requests do not share, also those in a table of settings."""
    found = []
    for name in sorted({*was, *now}):
        one, other = was.get(name), now.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found.append(differing(one, other))
        elif one != other:
            found.append(f"{name} (was {_short(one)}, now {_short(other)})")
    return ", ".join(filter(None, found))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
