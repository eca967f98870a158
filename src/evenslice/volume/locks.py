"""Locks between processes; the operating system frees those of a process that has ended."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from evenslice.errors import BadInputError

PATIENCE_S = 600.0
WITHOUT_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}  # ENOSYS filelock handles itself
SUFFIXES = (".lock", ".lock.soft")


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Try to take a lock file; give whether that succeeded.

    On a file system without locks the file ``NAME.soft`` stands for the lock; filelock takes it
    over from a process of the same machine that has ended.

    Raises
    ------
    FileNotFoundError
        If the folder of the lock is not there.
    """
    lock = _acquired(path, 0)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()


@contextmanager
def wait_lock(path: Path, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Take a lock file, waiting for it.

    Raises
    ------
    BadInputError
        If another process has it all that time.
    """
    lock = _acquired(path, patience_s)
    if lock is None:
        raise BadInputError(
            f"another process has locked {path} for {patience_s:g} s, expected less; wait for it, "
            "or end it"
        )
    try:
        yield
    finally:
        lock.release()


def _acquired(path: Path, timeout_s: float) -> BaseFileLock | None:
    if not path.parent.is_dir():  # filelock would make it
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(path.parent))
    lock: BaseFileLock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout:
        return None
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        lock = SoftFileLock(path.with_name(f"{path.name}.soft"), thread_local=False)
        try:
            lock.acquire(timeout=timeout_s)
        except Timeout:
            return None
    return lock
