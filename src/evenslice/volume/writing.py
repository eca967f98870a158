"""Writing so that nothing half-written is left: beside the target first, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evenslice.errors import BadInputError


def check_writable(path: Path, force: bool) -> None:
    """Raise ``BadInputError`` if ``path`` exists (unless ``force``), is a folder, or its folder does not exist."""
    if path.is_dir():
        raise BadInputError(f"{path} is a folder, expected a file name; choose another")
    if path.exists() and not path.is_file():
        raise BadInputError(f"{path} is a device or pipe, expected a file name; choose another")
    if path.exists() and not force:
        raise BadInputError(f"{path} exists, expected a new name; choose another or add --force to overwrite")
    folder = path.parent
    if not folder.is_dir():
        raise BadInputError(
            f"the folder {folder} of {path.name} does not exist, expected one to write to; create it first"
        )


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; rename it to ``path`` on success, remove it on any failure."""
    part = path.with_name(f".{path.stem[:32]}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def check_store_writable(path: Path, force: bool) -> None:
    """Raise ``BadInputError`` if a Zarr store cannot be written: something else is there, or one is and not ``force``."""
    if path.exists() and not any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")):
        raise BadInputError(f"{path} exists and is no Zarr store, expected a new name; choose another")
    if path.exists() and not force:
        raise BadInputError(f"{path} exists, expected a new name; choose another or add --force to overwrite")
    if not path.resolve().parent.is_dir():
        raise BadInputError(
            f"the folder {path.parent} of {path.name} does not exist, expected one to write to; create it first"
        )


@contextmanager
def store_written_beside(path: Path, force: bool) -> Iterator[Path]:
    """Give a temporary folder beside a Zarr store; on success it becomes ``path``, in place of a store that was there.

    Raises
    ------
    BadInputError
        If ``path`` exists, unless ``force`` is given and it is a Zarr store.
    """
    check_store_writable(path, force)
    part = path.resolve().parent / f".{path.name}.{os.getpid()}.part"
    old = part.with_suffix(".old")
    shutil.rmtree(part, ignore_errors=True)  # of a killed run that had the same number
    part.mkdir()
    try:
        yield part
        if path.exists():
            path.replace(old)
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not path.exists():
            old.replace(path)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def folder_written_beside(path: Path, force: bool) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; on success it becomes ``path``, on any failure it is removed.

    With ``force`` an existing folder keeps what it holds, apart from the files that are written anew.
    """
    if path.exists() and not path.is_dir():
        raise BadInputError(f"{path} is a file, expected a folder to write to; choose another name")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise BadInputError(f"{path} exists, expected a new folder; choose another or add --force to overwrite")
    if not path.resolve().parent.is_dir():
        raise BadInputError(
            f"the folder {path.parent} of {path.name} does not exist, expected one to write to; create it first"
        )
    part = path.resolve().parent / f".{path.name}.{os.getpid()}.part"
    shutil.rmtree(part, ignore_errors=True)  # of a killed run that had the same number
    part.mkdir()
    try:
        yield part
        if not path.exists():
            part.replace(path)
            return
        for file in sorted(f for f in part.rglob("*") if not f.is_dir()):
            target = path / file.relative_to(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
