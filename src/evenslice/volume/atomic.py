"""Writing so that nothing half-written is left: beside the target, flushed, then renamed.

Temporary names are hidden and tell which process made them, so that those of ended processes can be
removed: ``part`` is not complete, ``old`` a store that is being replaced, ``moving`` a complete
folder whose files are on their way into another one, ``gone`` what is being removed.
"""

import asyncio
import errno
import hashlib
import os
import re
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
WITHOUT_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES}
LONGEST_NAME = 100
WEEK_S = 7 * 24 * 3600.0
LONGEST_WAIT_S = 10.0
_TEMP_NAME = re.compile(
    r"\.(?P<label>.+)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.(?P<kind>[a-z]+)"
)


def temp_path(path: Path, kind: str = "part", suffix: str = "") -> Path:
    """Return a hidden name beside ``path`` that no other process and no other call takes."""
    owner = f"{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return path.with_name(f".{_label(path)}.{owner}.{kind}{suffix}")


def stale_temp_files(path: Path, kind: str) -> list[Path]:
    """Return what ended processes left under temporary names of this kind, oldest first.

    Processes on other machines cannot be asked: what they left counts after a week.
    """
    found = []
    for place in path.parent.glob(".*") if path.parent.is_dir() else ():
        name = _TEMP_NAME.match(place.name)
        if name is None or name["label"] != _label(path) or name["kind"] != kind:
            continue
        with suppress(FileNotFoundError):  # removed in the meantime
            written = place.lstat().st_mtime
            local = name["host"] == _host() and os.name == "posix"
            if not _is_running(int(name["pid"])) if local else time.time() - written > WEEK_S:
                found.append((written, place))
    return [place for _, place in sorted(found)]


def remove_stale(path: Path) -> None:
    """Remove what ended processes did not complete, or not remove, beside ``path``."""
    for kind in ("part", "gone"):
        for place in stale_temp_files(path, kind):
            remove(place)


def remove(place: Path) -> None:
    """Remove a file or a folder; what cannot be removed stays for ``remove_stale``."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        with suppress(OSError):
            place.unlink()


def _label(path: Path) -> str:
    """Return the name of a path, or its start and a digest where it is too long to add to."""
    name = os.fsencode(path.name)
    if len(name) <= LONGEST_NAME:
        return path.name
    return f"{path.name[:24]}~{hashlib.sha256(name).hexdigest()[:8]}"


@lru_cache(maxsize=1)
def _host() -> str:
    """Return a digest of the machine, and of the container where processes are numbered apart."""
    container = Path("/proc/self/ns/pid")
    inside = os.readlink(container) if container.exists() else ""  # noqa: PTH115
    name = socket.gethostname() + inside
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with suppress(OSError):  # a killed process whose parent has not asked for it has ended too
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return True


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, if the file system can tell."""
    if os.name != "posix" and path.is_dir():  # cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in WITHOUT_FSYNC:
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Wait until all files below a folder, and then their names, are on the disk."""
    folders = []
    for base, _, names in os.walk(folder):
        folders.append(Path(base))
        for name in names:
            fsync(Path(base, name))
    for inner in folders:
        fsync(inner)


def fsync_box(array: Any, box: tuple[slice, ...]) -> None:
    """Wait until the chunks of a box of a local Zarr array without shards are on the disk."""
    root = Path(str(array.store.root), array.path)
    places = product(
        *(
            range(part.start // side, -(-part.stop // side))
            for part, side in zip(box, array.chunks, strict=True)
        )
    )
    files = [root / array.metadata.encode_chunk_key(place) for place in places]
    files = [file for file in files if file.exists()]  # chunks of the fill value are not written
    folders = {folder for file in files for folder in file.parents if root in folder.parents}
    for path in (*files, *sorted(folders)):
        fsync(path)


@contextmanager
def wait_for_zarr_writes() -> Iterator[None]:
    """Let an error pass only when zarr has stopped writing, so that nothing appears after it."""
    try:
        yield
    except BaseException:
        if "zarr" in sys.modules:
            from zarr.core.sync import sync

            sync(_other_tasks())
        raise


async def _other_tasks() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=LONGEST_WAIT_S)


@contextmanager
def named(path: Path, part: Path | None = None) -> Iterator[None]:
    """Have errors of the disk name ``path``, where they name no file, or the hidden ``part``."""
    try:
        yield
    except OSError as error:
        hidden = part is not None and str(error.filename).startswith(str(part))
        if error.errno in DISK and (hidden or error.filename in (None, str(path.parent))):
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def written_beside(path: Path, force: bool = True) -> Iterator[Path]:
    """Give a temporary path in the same folder, renamed to ``path`` on success, else removed.

    Raises
    ------
    BadInputError
        If ``path`` is there in the end, unless ``force``.
    """
    remove_stale(path)
    part = temp_path(path, suffix=path.suffix)
    try:
        with named(path, part):
            yield part
            rename_into_place(part, path, force)
    except BaseException:
        remove(part)
        raise


@contextmanager
def store_written_beside(path: Path, force: bool) -> Iterator[Path]:
    """Give a temporary folder that replaces a Zarr store on success and is removed on failure.

    Raises
    ------
    BadInputError
        If ``path`` exists, unless ``force`` is given and it is a Zarr store.
    """
    check_store_writable(path, force)
    with _folder_beside(path) as part, wait_for_zarr_writes():
        yield part
        rename_into_place(part, path, force)


@contextmanager
def folder_written_beside(path: Path, force: bool, beside: bool = False) -> Iterator[Path]:
    """Give a temporary folder that becomes ``path`` on success and is removed on failure.

    A folder that is there keeps what it holds, apart from the files that are written anew. If the
    process ends while these get their names, the next one that writes there completes it.

    Parameters
    ----------
    path
        The folder.
    force
        Whether files may be replaced.
    beside
        Whether the folder may hold other files without ``force``.

    Raises
    ------
    BadInputError
        If ``path`` is no folder, or is in use and not to be replaced.
    """
    path = path.resolve() if path.name in ("", "..") else path
    if path.exists() and not path.is_dir():
        raise BadInputError(f"{path} is a file, expected a folder to write to; choose another name")
    for moving in stale_temp_files(path, "moving"):
        _move_files(moving, path)
    if path.is_dir() and any(path.iterdir()) and not beside:
        _check_free(path, force)
    _check_parent(path)
    with _folder_beside(path) as part:
        yield part
        if not path.exists():
            rename_into_place(part, path, force)
            return
        for file in _files(part):
            if (path / file).exists() and not force:
                raise _appeared(path / file)
        moving = temp_path(path, "moving")
        part.rename(moving)
        try:
            _move_files(moving, path)
        except OSError:  # once more, lest some files are new and others old
            _move_files(moving, path)


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    remove_stale(path)
    part = temp_path(path)
    try:
        with named(path, part):
            part.mkdir()
            yield part
    except BaseException:
        remove(part)
        raise


def _move_files(moving: Path, path: Path) -> None:
    """Give the files of a complete folder their names in one that is there."""
    fsync_tree(moving)
    for file in _files(moving):
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (moving / file).replace(path / file)
    fsync_tree(path)
    remove(moving)


def _files(folder: Path) -> list[Path]:
    return sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())


def rename_into_place(part: Path, path: Path, force: bool) -> None:
    """Give a complete file or folder its name, in place of what has that name now.

    An old folder gets a hidden name for a moment: ``restore`` repairs it if the process ends just
    then.

    Raises
    ------
    BadInputError
        If something of that name is there, unless ``force``.
    """
    if part.is_dir():
        fsync_tree(part)
    else:
        fsync(part)
    if path.exists() and not force:
        raise _appeared(path)
    if part.is_file():
        part.replace(path)
    else:
        old = temp_path(path, "old")
        if path.exists():
            path.rename(old)
        try:
            part.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        remove(old)
    fsync(path.parent)


def restore(path: Path) -> None:
    """Give an old folder its name back if a process ended before the new one had it."""
    for old in reversed(stale_temp_files(path, "old")):
        if path.exists():
            remove(old)
        else:
            old.rename(path)


def check_writable(path: Path, force: bool) -> None:
    """Raise ``BadInputError`` if a file cannot be written, or exists and not ``force``."""
    if path.exists() and not path.is_file():
        raise BadInputError(f"{path} is a folder or a device, expected a file name; choose another")
    _check_free(path, force)
    _check_parent(path)


def check_store_writable(path: Path, force: bool) -> None:
    """Raise ``BadInputError`` if a Zarr store cannot be written, or exists and not ``force``."""
    restore(path)
    if path.exists() and not any(
        (path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")
    ):
        raise BadInputError(
            f"{path} exists and is no Zarr store, expected a new name; choose another"
        )
    _check_free(path, force)
    _check_parent(path)


def _check_free(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise BadInputError(
            f"{path} exists, expected a new name; choose another or add --force to overwrite"
        )


def _check_parent(path: Path) -> None:
    """Raise unless files can be made beside ``path``: after the work it would be late."""
    if not path.absolute().parent.is_dir():
        raise BadInputError(
            f"the folder {path.parent} of {path.name} does not exist, expected one to write to; "
            "create it first"
        )
    part = temp_path(path, suffix=path.suffix)
    try:
        part.touch()
        part.unlink()
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be written ({error.strerror}), expected a folder that takes files; "
            "choose another"
        ) from error


def _appeared(path: Path) -> BadInputError:
    return BadInputError(
        f"{path} has appeared while this ran, expected a new name; choose another or add --force "
        "to overwrite"
    )
