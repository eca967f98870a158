"""The last step of writing: what is complete gets its name, in one step wherever the system has one."""

import ctypes
import errno
import os
import sys
from pathlib import Path

from evenslice.errors import BadInputError
from evenslice.volume.parts import left_behind, part_of, throw_away
from evenslice.volume.softlock import WITHOUT_LINKS

_AT_FDCWD, _EXCHANGE = -100, 2
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY}


def name_file(part: Path, path: Path, force: bool) -> None:
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
    old = part_of(path, "old")
    path.rename(old)
    try:
        part.rename(path)
    except OSError:
        old.rename(path)
        raise
    throw_away(old)


def recover(path: Path) -> None:
    """Give an old folder its name back if a process ended just before it gave that to the new one."""
    for old in reversed(left_behind(path, "old")):
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
