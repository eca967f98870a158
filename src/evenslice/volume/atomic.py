"""Writing so that nothing half-written is left: beside the target first, on the disk, then renamed."""

import asyncio
import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError
from evenslice.volume.locks import WITHOUT_LINKS, held_briefly
from evenslice.volume.temp_names import remove_stale, stale_temp_files, temp_path, throw_away

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
    spans = (
        range(part.start // side, -(-part.stop // side))
        for part, side in zip(box, array.chunks, strict=True)
    )
    folders = set()
    for place in product(*spans):
        file = root / array.metadata.encode_chunk_key(place)
        with contextlib.suppress(
            FileNotFoundError
        ):  # chunks that hold the fill value alone are not written
            flush_file(file)
            folders.add(file.parent)
    for folder in _with_parents(folders, root):
        flush_folder(folder)


def _with_parents(folders: set[Path], root: Path) -> Iterator[Path]:
    yield from sorted(
        {
            above
            for folder in folders
            for above in (folder, *folder.parents)
            if root in above.parents
        }
    )


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


_AT_FDCWD, _EXCHANGE = -100, 2
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY}


def rename_into_place(part: Path, path: Path, force: bool) -> None:
    """Give a complete file its name; the old file is there until then.

    Raises
    ------
    BadInputError
        If a file of that name is there, unless ``force``.
    """
    if force:
        part.replace(path)
        return
    try:
        os.link(part, path)
    except FileExistsError:
        raise appeared(path) from None
    except OSError as error:
        if error.errno not in WITHOUT_LINKS:
            raise
        if path.exists():
            raise appeared(path) from None
        part.replace(path)
        return
    throw_away(part)


def name_folder(part: Path, path: Path, force: bool) -> None:
    """Give a complete folder its name; an old one of that name is swapped with it and removed.

    Where the system cannot swap two folders, the old one has a hidden name for a moment; see ``recover``.

    Raises
    ------
    BadInputError
        If something of that name is there, unless ``force``.
    """
    if not path.exists() or not force:
        try:
            part.rename(path)
        except OSError as error:
            if error.errno in _TAKEN:
                raise appeared(path) from error
            raise
        return
    if swap(part, path):
        throw_away(part)
        return
    old = temp_path(path, "old")
    path.rename(old)
    try:
        part.rename(path)
    except OSError:
        old.rename(path)
        raise
    throw_away(old)


def recover(path: Path) -> None:
    """Give an old folder its name back if a process ended just before it gave that to the new one."""
    for old in reversed(stale_temp_files(path, "old")):
        if path.exists():
            throw_away(old)
        else:
            old.rename(path)


def swap(one: Path, other: Path) -> bool:
    """Exchange two names in one step; return False where the system cannot do that."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    names = (os.fsencode(one), os.fsencode(other))
    return bool(rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE) == 0)


def appeared(path: Path) -> BadInputError:
    """Return the error for a name that was free when the work began."""
    return BadInputError(
        f"{path} has appeared while this ran, expected a new name; choose another or add --force to overwrite"
    )


LONGEST_S = 10.0


@contextmanager
def wait_for_zarr_writes() -> Iterator[None]:
    """If what is done within fails, let the error pass only when zarr has stopped writing, so that nothing appears after it."""
    try:
        yield
    except BaseException:
        settle()
        raise


def settle() -> None:
    """Wait until zarr has done all that it was asked for in this process, 10 s at most."""
    if "zarr" in sys.modules:
        from zarr.core.sync import sync

        sync(_others())


async def _others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=LONGEST_S)


DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


def check_writable(path: Path, force: bool) -> None:
    """Raise ``BadInputError`` if ``path`` exists (unless ``force``), is a folder, or its folder does not exist."""
    if path.is_dir():
        raise BadInputError(f"{path} is a folder, expected a file name; choose another")
    if path.exists() and not path.is_file():
        raise BadInputError(f"{path} is a device or pipe, expected a file name; choose another")
    if path.exists() and not force:
        raise BadInputError(
            f"{path} exists, expected a new name; choose another or add --force to overwrite"
        )
    if path.is_symlink() and not path.exists() and not force:
        raise BadInputError(
            f"{path} is a link that leads to no file, expected a new name; choose another or add --force to overwrite"
        )
    folder = path.parent
    if not folder.is_dir():
        raise BadInputError(
            f"the folder {folder} of {path.name} does not exist, expected one to write to; create it first"
        )
    _check_takes_files(path)


def _check_takes_files(path: Path) -> None:
    """Raise ``BadInputError`` if nothing can be made beside ``path``: to find that out after the work would be late."""
    part = temp_path(path, ending=path.suffix)
    try:
        part.touch()
        part.unlink()
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be written ({error.strerror}), expected a name in a folder that takes files; choose another"
        ) from error


@contextmanager
def named(path: Path, part: Path | None = None) -> Iterator[None]:
    """Have errors of the disk, which name no file or something hidden, name what is written."""
    try:
        yield
    except OSError as error:
        hidden = part is not None and str(error.filename).startswith(str(part))
        if error.errno in DISK and (hidden or error.filename in (None, str(path.parent))):
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def written_beside(path: Path, force: bool = True) -> Iterator[Path]:
    """Give a temporary path in the same folder; rename it to ``path`` on success, remove it on any failure.

    Raises
    ------
    BadInputError
        If ``path`` is there in the end, unless ``force``.
    """
    remove_stale(path)
    part = temp_path(path, ending=path.suffix)
    try:
        with named(path, part):
            yield part
            flush_file(part)
            rename_into_place(part, path, force)
            flush_folder(path.parent)
    except BaseException:
        throw_away(part)
        raise


def check_store_writable(path: Path, force: bool) -> None:
    """Raise ``BadInputError`` if a Zarr store cannot be written: something else is there, or one is and not ``force``."""
    recover(path)
    if path.exists() and not any(
        (path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")
    ):
        raise BadInputError(
            f"{path} exists and is no Zarr store, expected a new name; choose another"
        )
    if path.exists() and not force:
        raise BadInputError(
            f"{path} exists, expected a new name; choose another or add --force to overwrite"
        )
    if not path.resolve().parent.is_dir():
        raise BadInputError(
            f"the folder {path.parent} of {path.name} does not exist, expected one to write to; create it first"
        )
    _check_takes_files(path)


@contextmanager
def store_written_beside(path: Path, force: bool) -> Iterator[Path]:
    """Give a temporary folder beside a Zarr store; on success it becomes ``path``, in place of a store that was there.

    Raises
    ------
    BadInputError
        If ``path`` exists, unless ``force`` is given and it is a Zarr store.
    """
    check_store_writable(path, force)
    remove_stale(path)
    part = temp_path(path)
    try:
        with named(path, part):
            part.mkdir()
            with wait_for_zarr_writes():
                yield part
            flush_tree(part)
            name_folder(part, path, force)
            flush_folder(path.parent)
    except BaseException:
        throw_away(part)
        raise


@contextmanager
def folder_written_beside(path: Path, force: bool, beside: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; on success it becomes ``path``, on any failure it is removed.

    With ``force`` an existing folder keeps what it holds, apart from the files that are written anew. These get their names
    together: if the process ends among them, the next one that writes there completes it.

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
    if path.exists() and not path.is_dir():
        raise BadInputError(f"{path} is a file, expected a folder to write to; choose another name")
    path = path.resolve() if path.name in ("", "..") else path
    complete_moves(path)
    if path.is_dir() and any(path.iterdir()) and not force and not beside:
        raise BadInputError(
            f"{path} exists, expected a new folder; choose another or add --force to overwrite"
        )
    if not path.resolve().parent.is_dir():
        raise BadInputError(
            f"the folder {path.parent} of {path.name} does not exist, expected one to write to; create it first"
        )
    remove_stale(path)
    part = temp_path(path)
    try:
        with named(path, part):
            part.mkdir()
            yield part
            flush_tree(part)
            _placed(part, path, force)
    except BaseException:
        throw_away(part)
        raise


def _placed(part: Path, path: Path, force: bool) -> None:
    """Give a folder that is complete its name, or its files theirs in the folder that is there."""
    with held_briefly(_lock_of(path)):
        _complete(path)
        if not path.exists():
            name_folder(part, path, force=False)
            flush_folder(path.parent)
            return
        there = [
            path / file.relative_to(part)
            for file in _files(part)
            if (path / file.relative_to(part)).exists()
        ]
        if there and not force:
            raise appeared(there[0])
        moving = temp_path(path, "moving")
        part.rename(moving)  # from here on it is complete, whoever moves the files
        _move(moving, path)


def complete_moves(path: Path) -> None:
    """Give those files their names in a folder that a process had completed and not named before it ended."""
    if stale_temp_files(path, "moving"):
        with held_briefly(_lock_of(path)):
            _complete(path)


def _complete(path: Path) -> None:
    for moving in stale_temp_files(path, "moving"):
        _move(moving, path)


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.held")


def _move(moving: Path, path: Path) -> None:
    for file in _files(moving):
        target = path / file.relative_to(moving)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            file.replace(target)
        except OSError:  # once more: it would leave some files new and some old
            file.replace(target)
    try:
        for base, _, _ in os.walk(path):
            flush_folder(Path(base))
    finally:  # it holds no file any more
        throw_away(moving)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if not file.is_dir())
