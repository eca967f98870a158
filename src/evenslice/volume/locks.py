"""Locks between processes: the operating system's, which end with their holder; where there are none, files that tell who holds them."""

import contextlib
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evenslice.errors import BadInputError
from evenslice.volume.temp_names import Process, remove_stale, temp_path, this_process

BEAT_S = 15.0
SILENT_S = 600.0
WITHOUT_LINKS = {
    errno.EPERM,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EXDEV,
}


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
    remove_stale(path)
    mine = temp_path(path)
    me = this_process()
    told = {
        "host": me.host,
        "pid": me.pid,
        "began": me.began,
        "token": mine.name,
        "machine": socket.gethostname(),
    }
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
    holder, gone = holder_of(path), temp_path(path, "gone")
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


try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PATIENCE_S = 600.0
PAUSE_S = 0.05
_BUSY = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES}
_WITHOUT = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
Release = Callable[[], None]


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Try to hold a lock file; give whether that succeeded. A process that has ended holds none, a stopped one does.

    On a file system without locks a file ``NAME.held`` beside it tells who holds it; see ``take_file``.

    Raises
    ------
    FileNotFoundError
        If its folder is not there.
    """
    release = _take(path)
    if release is None:
        yield False
        return
    try:
        yield True
    finally:
        release()


@contextmanager
def held(path: Path, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold a lock file, waiting for it.

    Raises
    ------
    BadInputError
        If another process holds it all that time.
    """
    release = waited_for(lambda: _take(path), path, patience_s)
    try:
        yield
    finally:
        release()


@contextmanager
def held_briefly(path: Path, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold a lock that leaves no file behind, for as long as some files get their names.

    Raises
    ------
    BadInputError
        If another process holds it all that time.
    """
    release = waited_for(lambda: take_file(path), path, patience_s)
    try:
        yield
    finally:
        release()


def waited_for(take: Callable[[], Release | None], path: Path, patience_s: float) -> Release:
    """Return what ends the hold on a lock, waiting for it; raise ``BadInputError`` if that takes too long."""
    until = time.monotonic() + patience_s
    while (release := take()) is None:
        if time.monotonic() > until:
            raise BadInputError(
                f"another process has held {path} for {patience_s:g} s, expected less{holder_message(path)}; wait for it, or end it"
            )
        time.sleep(PAUSE_S)
    return release


def holder_message(path: Path) -> str:
    """Say which process holds a lock, where only a file tells so, and what to do if that process is gone."""
    file = path if path.suffix == ".held" else _file_of(path)
    holder = holder_of(file)
    if holder is None:
        return ""
    return (
        f" (process {holder.pid} on {holder.machine or 'another machine'} says so in {file}; a lock of another machine counts for "
        f"{SILENT_S / 60:.0f} minutes after its last sign of life; if that process is gone, remove the file)"
    )


def _file_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.held")


def _take(path: Path) -> Release | None:
    if fcntl is None:
        return _take_windows(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _BUSY:
            return None
        if error.errno in _WITHOUT:
            return take_file(_file_of(path))
        raise OSError(error.errno, error.strerror, str(path)) from error
    if not _is_at(descriptor, path):  # removed, with its folder, while we came
        os.close(descriptor)
        return None

    def release() -> None:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # also for processes that were forked meanwhile
        os.close(descriptor)

    return release


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _take_windows(path: Path) -> Release | None:
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock.release
