"""Writing so that nothing half-written is left: beside the target, flushed, then renamed.

Temporary names are hidden and hold machine and process, so that what a killed process left is
removed by the next one that writes there. A store being replaced is ``.NAME.old`` meanwhile.
"""

import asyncio
import errno
import os
import re
import shutil
import socket
import sys
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
WEEK_S = 7 * 24 * 3600.0
LONGEST_WAIT_S = 10.0


def temp_path(path: Path, suffix: str = "") -> Path:
    """Return a hidden name beside ``path`` that no other process and no other call takes."""
    owner = f"{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return path.with_name(f".{path.name}.{owner}.part{suffix}")


def remove_stale(path: Path) -> None:
    """Remove what killed processes left beside ``path``; of other machines only after a week."""
    wanted = re.compile(re.escape(f".{path.name}.") + r"([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.part")
    for place in path.parent.glob(".*.part*"):
        name = wanted.match(place.name)
        with suppress(FileNotFoundError):  # removed in the meantime
            if name and name[1] == _machine() and os.name == "posix":
                stale = not _is_running(int(name[2]))
            else:
                stale = name is not None and time.time() - place.lstat().st_mtime > WEEK_S
            if stale:
                remove(place)


def _machine() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:  # else not permitted: of another user
        return not isinstance(error, ProcessLookupError)
    return True


def remove(place: Path) -> None:
    """Remove a file or a folder; what cannot be removed stays for ``remove_stale``."""
    if place.is_dir() and not place.is_symlink():
        wait_for_zarr()
        shutil.rmtree(place, ignore_errors=True)
    else:
        with suppress(OSError):
            place.unlink()


def wait_for_zarr() -> None:
    """Let zarr stop writing: after an error its other chunks would make the folder again."""
    if "zarr" not in sys.modules:
        return
    from zarr.core.sync import sync

    async def others() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=LONGEST_WAIT_S)

    sync(others())


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, if the file system can tell."""
    if os.name != "posix" and path.is_dir():  # cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in DISK:
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Wait until all files below a folder, and then their names, are on the disk."""
    places = [folder, *folder.rglob("*")]
    for place in sorted(places, key=Path.is_dir):
        fsync(place)


def fsync_box(array: Any, box: tuple[slice, ...]) -> None:
    """Wait until the chunks of a box of a local Zarr array without shards are on the disk."""
    root = Path(str(array.store.root), array.path)
    spans = (
        range(part.start // side, -(-part.stop // side))
        for part, side in zip(box, array.chunks, strict=True)
    )
    files = [root / array.metadata.encode_chunk_key(place) for place in product(*spans)]
    files = [file for file in files if file.exists()]  # chunks of the fill value are not written
    folders = {folder for file in files for folder in file.parents if root in folder.parents}
    for path in (*files, *sorted(folders)):
        fsync(path)


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

    Raises ``BadInputError`` if ``path`` is there in the end, unless ``force``.
    """
    inner = Path(path.stem).suffix if path.suffix.lower() == ".gz" else ""
    with _beside(path, inner + path.suffix) as part:
        yield part
        rename_into_place(part, path, force)


@contextmanager
def store_written_beside(path: Path, force: bool) -> Iterator[Path]:
    """Give a temporary folder that replaces a Zarr store on success and is removed on failure.

    Raises ``BadInputError`` if ``path`` exists, unless ``force`` is given and it is a Zarr store.
    """
    check_store_writable(path, force)
    with _beside(path) as part:
        part.mkdir()
        yield part
        rename_into_place(part, path, force)


@contextmanager
def folder_written_beside(path: Path, force: bool, beside: bool = False) -> Iterator[Path]:
    """Give a temporary folder that becomes ``path`` on success and is removed on failure.

    A folder that is there keeps what it holds, apart from the files that are written anew. With
    ``beside`` it may hold other files without ``force``, which says whether files may be replaced.

    Raises ``BadInputError`` if ``path`` is no folder, or is in use and not to be replaced.
    """
    path = path.resolve() if path.name in ("", "..") else path
    if path.exists() and not path.is_dir():
        raise BadInputError(f"{path} is a file, expected a folder to write to; choose another name")
    if path.is_dir() and any(path.iterdir()) and not beside:
        _check_free(path, force)
    _check_parent(path)
    with _beside(path) as part:
        part.mkdir()
        yield part
        if not path.exists():
            rename_into_place(part, path, force)
            return
        files = [file.relative_to(part) for file in part.rglob("*") if file.is_file()]
        for file in files:
            if (path / file).exists() and not force:
                raise _appeared(path / file)
        fsync_tree(part)
        for file in sorted(files):
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            (part / file).replace(path / file)
        for folder in {(path / file).parent for file in files}:
            fsync(folder)
        remove(part)


@contextmanager
def _beside(path: Path, suffix: str = "") -> Iterator[Path]:
    remove_stale(path)
    part = temp_path(path, suffix)
    try:
        with named(path, part):
            yield part
    except BaseException:
        remove(part)
        raise


def rename_into_place(part: Path, path: Path, force: bool) -> None:
    """Give a complete file or folder its name, in place of what has that name now.

    Raises ``BadInputError`` if something of that name is there, unless ``force``.
    """
    if part.is_dir():
        fsync_tree(part)
    else:
        fsync(part)
    if path.exists() and not force:
        raise _appeared(path)
    if path.is_dir():
        restore(path)
        path.rename(_aside(path))
        try:
            part.rename(path)
        finally:
            restore(path)
    else:
        part.replace(path)
    fsync(path.parent)


def restore(path: Path) -> None:
    """Give an old folder its name back if a process ended before the new one had it."""
    old = _aside(path)
    if old.exists() and not path.exists():
        old.rename(path)
    remove(old)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def check_writable(path: Path, force: bool) -> None:
    """Raise ``BadInputError`` if a file cannot be written, or exists and not ``force``."""
    if path.exists() and not path.is_file():
        raise BadInputError(f"{path} is a folder or a device, expected a file name; choose another")
    _check_free(path, force)
    _check_parent(path)


def check_store_writable(path: Path, force: bool) -> None:
    """Raise ``BadInputError`` if a Zarr store cannot be written, or exists and not ``force``."""
    restore(path)
    names = ("zarr.json", ".zgroup", ".zarray")
    if path.exists() and not any((path / name).is_file() for name in names):
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
    part = temp_path(path, path.suffix)
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
