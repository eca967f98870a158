"""Writing so that nothing half-written is left: beside the target first, on the disk, then renamed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evenslice.errors import BadInputError
from evenslice.volume.durable import flush_file, flush_folder, flush_tree
from evenslice.volume.locks import held_briefly
from evenslice.volume.parts import left_behind, part_of, sweep, throw_away
from evenslice.volume.renaming import appeared, name_file, name_folder, recover
from evenslice.volume.settling import settled

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


def check_writable(path: Path, force: bool) -> None:
    """Raise ``BadInputError`` if ``path`` exists (unless ``force``), is a folder, or its folder does not exist."""
    if path.is_dir():
        raise BadInputError(f"{path} is a folder, expected a file name; choose another")
    if path.exists() and not path.is_file():
        raise BadInputError(f"{path} is a device or pipe, expected a file name; choose another")
    if path.exists() and not force:
        raise BadInputError(f"{path} exists, expected a new name; choose another or add --force to overwrite")
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
    part = part_of(path, ending=path.suffix)
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
    sweep(path)
    part = part_of(path, ending=path.suffix)
    try:
        with named(path, part):
            yield part
            flush_file(part)
            name_file(part, path, force)
            flush_folder(path.parent)
    except BaseException:
        throw_away(part)
        raise


def check_store_writable(path: Path, force: bool) -> None:
    """Raise ``BadInputError`` if a Zarr store cannot be written: something else is there, or one is and not ``force``."""
    recover(path)
    if path.exists() and not any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")):
        raise BadInputError(f"{path} exists and is no Zarr store, expected a new name; choose another")
    if path.exists() and not force:
        raise BadInputError(f"{path} exists, expected a new name; choose another or add --force to overwrite")
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
    sweep(path)
    part = part_of(path)
    try:
        with named(path, part):
            part.mkdir()
            with settled():
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
        raise BadInputError(f"{path} exists, expected a new folder; choose another or add --force to overwrite")
    if not path.resolve().parent.is_dir():
        raise BadInputError(
            f"the folder {path.parent} of {path.name} does not exist, expected one to write to; create it first"
        )
    sweep(path)
    part = part_of(path)
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
        there = [path / file.relative_to(part) for file in _files(part) if (path / file.relative_to(part)).exists()]
        if there and not force:
            raise appeared(there[0])
        moving = part_of(path, "moving")
        part.rename(moving)  # from here on it is complete, whoever moves the files
        _move(moving, path)


def complete_moves(path: Path) -> None:
    """Give those files their names in a folder that a process had completed and not named before it ended."""
    if left_behind(path, "moving"):
        with held_briefly(_lock_of(path)):
            _complete(path)


def _complete(path: Path) -> None:
    for moving in left_behind(path, "moving"):
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
