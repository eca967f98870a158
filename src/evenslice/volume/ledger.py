"""What a long run has done: a folder that survives the process, so that others may join it and it may be gone on with."""

import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from evenslice.errors import BadInputError
from evenslice.volume.writing import written_beside

FAN = 1000
PATIENCE_S = 600.0


class Ledger:
    """A run's folder: its manifest, and a record for each piece of work that is done.

    Locks are the operating system's: those of a killed process are gone with it.

    Attributes
    ----------
    folder
        Where it lies.
    manifest
        ``asked``: what the run is to do, equal for all who take part; ``chosen``: how, decided once by the first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())

    def is_done(self, stage: str, index: int) -> bool:
        """Whether a piece of work is done."""
        return self._place(stage, index).exists()

    def done(self, stage: str, index: int, record: dict[str, Any] | None = None) -> None:
        """Note that a piece of work is done and written."""
        place = self._place(stage, index)
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
        part.write_text(json.dumps(record or {}))
        part.replace(place)

    def left(self, stage: str, indices: range) -> list[int]:
        """Return those pieces of a stage that are not done."""
        return [index for index in indices if not self.is_done(stage, index)]

    def records(self, stage: str, count: int) -> Iterator[dict[str, Any]]:
        """Yield the records of the pieces 0 to ``count`` - 1 of a stage that are done."""
        for index in range(count):
            if self.is_done(stage, index):
                yield json.loads(self._place(stage, index).read_text())

    def age_s(self) -> float:
        """Return how long ago the run began, seconds."""
        return time.time() - (self.folder / "manifest.json").stat().st_mtime

    @contextmanager
    def trying(self, name: str) -> Iterator[bool]:
        """Try to hold a lock of the run; give whether that succeeded."""
        with held_if_free(self.folder / f"{name}.lock") as held:
            yield held

    @contextmanager
    def holding(self, name: str, out: Path) -> Iterator[None]:
        """Hold a lock of the run, or raise ``BadInputError`` if another process does."""
        with self.trying(name) as held:
            if not held:
                raise BadInputError(
                    f"another process works on {out} ({name}), expected none; wait for it, or choose another name"
                )
            yield

    def remove(self) -> None:
        """Remove the folder; what is left of it if that is cut short is no run any more."""
        gone = self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex[:8]}.gone")
        self.folder.replace(gone)
        shutil.rmtree(gone)

    def _place(self, stage: str, index: int) -> Path:
        return self.folder / "done" / stage / f"{index // FAN:06d}" / f"{index % FAN:03d}.json"


@contextmanager
def held_if_free(path: Path) -> Iterator[bool]:
    """Try to hold a lock file; give whether that succeeded. A killed process holds none."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def open_ledger(
    folder: Path, asked: dict[str, Any], choose: Callable[[Path], dict[str, Any]], join: bool, force: bool
) -> Ledger:
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
    if folder.exists() and not folder.is_dir():
        raise BadInputError(f"{folder} is a file, expected no file of that name, for the state of the run; move it")
    names = {item.name for item in folder.iterdir()} if folder.exists() else set()
    if names and not names & {"manifest.json", "plan.lock"}:
        raise BadInputError(
            f"{folder} holds no run, expected no folder of that name, for the state of the run; move it"
        )
    asked = json.loads(json.dumps(asked))
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / "plan.lock", timeout=PATIENCE_S)
    with lock:
        if (folder / "manifest.json").exists() and not force:
            return _joined(folder, asked, join)
        _clear(folder)  # also of what a process left that was killed here
        try:
            chosen = choose(folder)
            manifest = json.dumps({"asked": asked, "chosen": chosen}, indent=2)
            with written_beside(folder / "manifest.json") as part:
                part.write_text(manifest + "\n")
        except BaseException:
            shutil.rmtree(folder)
            raise
    return Ledger(folder)


def _joined(folder: Path, asked: dict[str, Any], join: bool) -> Ledger:
    ledger = Ledger(folder)
    if not join:
        raise BadInputError(
            f"{folder} holds an unfinished run, expected none; go on with --resume, or start over with --force"
        )
    theirs = ledger.manifest["asked"]
    other = [key for key in sorted({*theirs, *asked}) if theirs.get(key) != asked.get(key)]
    if other:
        name = other[0]
        raise BadInputError(
            f"{folder} holds a run with another {name} ({_short(theirs.get(name))}), expected {_short(asked.get(name))} as asked "
            "now; repeat its options, or start over with --force"
        )
    return ledger


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _clear(folder: Path) -> None:
    if (folder / "manifest.json").exists():
        ledger = Ledger(folder)
        for lock in folder.glob("*.lock"):
            if lock.stem != "plan":
                with ledger.holding(lock.stem, folder):  # nobody works here any more
                    pass
        (folder / "manifest.json").unlink()  # first: without it there is no run
    for item in folder.iterdir():
        if item.suffix != ".lock":
            shutil.rmtree(item) if item.is_dir() else item.unlink()
