"""Locks between processes; the operating system frees those of a process that has ended."""

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from evenslice.errors import BadInputError

PATIENCE_S = 600.0


@contextmanager
def try_lock(path: Path, patience_s: float = 0.0) -> Iterator[bool]:
    """Try to take a lock file, waiting for it so long; give whether that succeeded.

    Raises ``FileNotFoundError`` if the folder of the lock is not there.
    """
    if not path.parent.is_dir():  # filelock would make it
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(path.parent))
    with ExitStack() as stack:
        free = True
        try:
            stack.enter_context(FileLock(path, thread_local=False).acquire(timeout=patience_s))
        except Timeout:
            free = False
        yield free


@contextmanager
def wait_lock(path: Path, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Take a lock file; raises ``BadInputError`` if another process has it all that time."""
    with try_lock(path, patience_s) as free:
        if not free:
            raise BadInputError(
                f"another process has locked {path} for {patience_s:g} s, expected less; wait for "
                "it, or end it"
            )
        yield
