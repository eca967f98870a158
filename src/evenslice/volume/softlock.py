"""Locks where the file system has none: a file that tells which process holds it, with signs of life."""

import contextlib
import errno
import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evenslice.volume.parts import Process, part_of, sweep, this_process

BEAT_S = 15.0
SILENT_S = 600.0
WITHOUT_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes
    ----------
    process
        The process.
    token
        The file that it made the lock from, unlike that of any other hold.
    machine
        Name of its machine.
    """

    process: Process
    token: str
    machine: str

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self.process.pid


def take_file(path: Path) -> Callable[[], None] | None:
    """Try to hold a lock by a file; return what ends that, None if another process holds it.

    A process on this machine holds it until it ends, also while it is stopped; when it has ended, the next one takes over. One on
    another machine, which cannot be asked, gives a sign of life every 15 s; without any for ten minutes, the next one takes over.
    """
    sweep(path)
    mine = part_of(path)
    me = this_process()
    told = {"host": me.host, "pid": me.pid, "began": me.began, "token": mine.name, "machine": socket.gethostname()}
    try:
        mine.write_text(json.dumps(told))
        for _ in range(2):  # once more, after one that is of no use any more
            if _is_made(mine, path):
                return _holding(path, mine.name)
            if not _is_stale(path, mine) or not _take_away(path):
                return None
        return None
    finally:
        with contextlib.suppress(OSError):
            mine.unlink(missing_ok=True)


def holder_of(path: Path) -> Holder | None:
    """Return who holds a lock by a file, None if nobody does, or it does not say."""
    try:
        told = json.loads(path.read_text())
        process = Process(str(told["host"]), int(told["pid"]), int(told["began"]))
        return Holder(process, str(told["token"]), str(told["machine"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_made(mine: Path, path: Path) -> bool:
    """Give a file that is complete the name of the lock, unless that is there."""
    try:
        os.link(mine, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LINKS:
            raise
        try:
            with path.open("x") as file:
                file.write(mine.read_text())
        except FileExistsError:
            return False
    return True


def _is_stale(path: Path, mine: Path) -> bool:
    holder = holder_of(path)
    if holder is not None and holder.process.is_here:
        return holder.process.is_dead
    try:
        silent = mine.stat().st_mtime - path.stat().st_mtime  # both by the clock of the file system
    except FileNotFoundError:
        return False
    return silent > SILENT_S


def _take_away(path: Path) -> bool:
    """Take away the file of a holder that is gone; return False if another process was faster."""
    holder, gone = holder_of(path), part_of(path, "gone")
    try:
        path.replace(gone)
    except FileNotFoundError:
        return True
    if holder_of(gone) != holder:  # not the one that was looked at, but a new one
        with contextlib.suppress(OSError):
            os.link(gone, path)
        gone.unlink(missing_ok=True)
        return False
    gone.unlink(missing_ok=True)
    return True


def _holding(path: Path, token: str) -> Callable[[], None]:
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_S):
            with contextlib.suppress(OSError):
                os.utime(path)

    threading.Thread(target=beat, name="lock", daemon=True).start()

    def release() -> None:
        over.set()
        holder = holder_of(path)
        if holder is not None and holder.token == token:  # else it was taken over
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    return release
