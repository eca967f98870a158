"""What is written reaches the disk before it gets its name: a power cut leaves the old file or the new one, never an empty one."""

import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

MANY = 2000
_UNKNOWN = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EISDIR}


def flush_file(path: Path) -> None:
    """Wait until what was written to a file is on the disk; where the file system cannot tell, go on."""
    _flush(path, os.O_RDONLY)


def flush_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk; where the file system cannot tell, go on."""
    if os.name == "posix":  # elsewhere folders cannot be opened
        _flush(path, os.O_RDONLY | os.O_DIRECTORY)


def flush_tree(folder: Path) -> None:
    """Wait until all files below a folder, and their names, are on the disk.

    Many files are flushed by flushing the file system that they lie on, where the system can do that.
    """
    files = [Path(base, name) for base, _, names in os.walk(folder) for name in names]
    if len(files) > MANY and _flush_system(folder):
        return
    for file in files:
        flush_file(file)
    for base, _, _ in os.walk(folder):
        flush_folder(Path(base))


def flush_box(array: Any, box: tuple[slice, ...]) -> None:
    """Wait until the chunks of a box of a Zarr array that lies in a folder are on the disk.

    Parameters
    ----------
    array
        A ``zarr.Array`` without shards.
    box
        Part of it, start and stop along each axis.
    """
    root = Path(str(array.store.root), array.path)
    spans = (range(part.start // side, -(-part.stop // side)) for part, side in zip(box, array.chunks, strict=True))
    folders = set()
    for place in product(*spans):
        file = root / array.metadata.encode_chunk_key(place)
        with contextlib.suppress(FileNotFoundError):  # chunks that hold the fill value alone are not written
            flush_file(file)
            folders.add(file.parent)
    for folder in _with_parents(folders, root):
        flush_folder(folder)


def _with_parents(folders: set[Path], root: Path) -> Iterator[Path]:
    yield from sorted({above for folder in folders for above in (folder, *folder.parents) if root in above.parents})


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def _flush_system(folder: Path) -> bool:
    """Flush the file system of a folder; return whether that could be done."""
    if not sys.platform.startswith("linux"):
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return bool(ctypes.CDLL(None, use_errno=True).syncfs(descriptor) == 0)
    except (OSError, AttributeError):
        return False
    finally:
        os.close(descriptor)
