"""Locks between processes: the operating system's, which end with their holder; where there are none, files that tell who holds them."""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from evenslice.errors import BadInputError
from evenslice.volume.softlock import SILENT_S, holder_of, take_file

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
def held_if_free(path: Path) -> Iterator[bool]:
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
                f"another process has held {path} for {patience_s:g} s, expected less{told_of(path)}; wait for it, or end it"
            )
        time.sleep(PAUSE_S)
    return release


def told_of(path: Path) -> str:
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
