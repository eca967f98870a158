"""Unpacking an archive from elsewhere: nothing leaves the folder, nothing grows without bound."""

import lzma
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO

from evenslice.data.fetch import MB, check_room
from evenslice.errors import BadInputError, escape_control_chars
from evenslice.progress import Progress, silent

PIECE = 2**20
MOST_FILES = 10_000
MOST_NAMED = 6
MOST_HEADER = MB
LONGEST_PART = 255  # bytes
_READ_WHOLE = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    IndexError,
    KeyError,
    struct.error,
)


class DamagedError(BadInputError):
    """What was to be unpacked is no whole archive: fetching it again may help."""


class _Header(tarfile.TarInfo):
    """A header of a tar archive; long names and further headers, which are read as a whole, are bounded."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        """Read a header."""
        found = super().frombuf(buf, encoding, errors)
        if found.type in _READ_WHOLE and not 0 <= found.size <= MOST_HEADER:
            raise tarfile.ReadError(f"a header of {found.size} bytes")
        return found


@dataclass(frozen=True)
class Entry:
    """A file in an archive: path below it, bytes it states, how to open it."""

    path: tuple[str, ...]
    size: int
    open: Callable[[], IO[bytes]]

    @property
    def name(self) -> str:
        """The path as text."""
        return "/".join(self.path)


def unpack(
    archive: Path, folder: Path, wanted: Sequence[str], most: int, progress: Progress = silent
) -> list[str]:
    """Unpack a zip or tar (also compressed) into an empty folder.

    What macOS adds is dropped. A folder that wraps everything is left out, and a wanted file that lies in another folder of the archive is
    put where it is wanted, if there is only one of its name.

    Parameters
    ----------
    archive
        The file; its kind is told by what it holds.
    folder
        Where to; exists and is empty.
    wanted
        Files or folders, relative to ``folder``, that must be in it.
    most
        Bytes that it may hold unpacked.
    progress
        Shows MB.

    Returns
    -------
    list
        The files, relative to ``folder``.

    Raises
    ------
    BadInputError
        If it is no archive or damaged (``DamagedError``), holds what must not be unpacked, or lacks what is wanted.
    """
    with _entries(archive, most) as found:
        entries = _arranged(found, wanted, archive)
        total = sum(entry.size for entry in entries)
        check_room(folder, total)
        whole = -(-total // MB)
        with progress("unpacking (MB)", whole) as step:
            done = shown = 0
            for entry in entries:
                for size in _written(entry, folder, archive):
                    done += size
                    reached = whole if done == total else done // MB
                    for _ in range(shown, reached):
                        step()
                    shown = reached
    return [entry.name for entry in entries]


@contextmanager
def _entries(archive: Path, most: int) -> Iterator[list[Entry]]:
    try:
        kind = "zip" if zipfile.is_zipfile(archive) else "tar" if _is_tar(archive) else ""
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    if not kind:
        with archive.open("rb") as file:
            start = file.read(512).lstrip().lower()
        what = (
            "a web page"
            if start.startswith((b"<!doctype", b"<html", b"<?xml"))
            else "neither zip nor tar, or cut short"
        )
        raise DamagedError(
            f"{archive} is {what}, expected a whole zip or tar archive; check the address, or fetch it again"
        )
    with ExitStack() as stack:
        try:
            if kind == "zip":
                listed = _of_zip(stack.enter_context(zipfile.ZipFile(archive)), archive)
            else:
                listed = _of_tar(
                    stack.enter_context(tarfile.open(archive, tarinfo=_Header)), archive
                )
            found = _bounded(listed, archive, most)
        except BadInputError:
            raise
        except _DAMAGE as error:
            raise _damaged(archive, error) from error
        yield [entry for entry in found if not _is_litter(entry.path)]


def _is_tar(archive: Path) -> bool:
    try:
        with tarfile.open(archive, tarinfo=_Header):
            return True
    except tarfile.TarError:
        return False


def _bounded(entries: Iterable[Entry], archive: Path, most: int) -> list[Entry]:
    """Return the entries, unless they are too many or too large; no more of them are read than that takes to say."""
    found, total = [], 0
    for entry in entries:
        found.append(entry)
        total += entry.size
        if len(found) > MOST_FILES or total > most:
            raise BadInputError(
                f"{archive} holds more than {MOST_FILES} files or {most / MB:.0f} MB, expected less for this data set; "
                "check where the archive is from, nothing was unpacked"
            )
    return found


def _of_zip(archive: zipfile.ZipFile, path: Path) -> Iterator[Entry]:
    for info in archive.infolist():
        if not info.filename:
            raise _damaged(path, ValueError("a file without a name"))
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unsafe(path, info.filename, "a link or device")
        if info.flag_bits & 1:
            raise _unsafe(path, info.filename, "encrypted")
        parts = _parts(info.filename, path)
        if not info.is_dir() and not info.filename.endswith("\\"):
            yield Entry(parts, info.file_size, partial(archive.open, info))


def _of_tar(archive: tarfile.TarFile, path: Path) -> Iterator[Entry]:
    for info in archive:
        if not (info.isreg() or info.isdir()):
            raise _unsafe(path, info.name, "a link or device")
        parts = _parts(info.name, path)
        if info.isreg():
            yield Entry(parts, info.size, partial(_file_of, archive, info))


def _file_of(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(info)
    if file is None:
        raise tarfile.ReadError(f"{info.name} cannot be read")
    return file


def _parts(name: str, archive: Path) -> tuple[str, ...]:
    """Return a name in an archive as a path below it."""
    plain = name.replace("\\", "/")
    parts = tuple(part for part in plain.split("/") if part not in ("", "."))
    if plain.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", plain) or "\0" in plain:
        raise _unsafe(archive, name, "a path that leaves its folder")
    if escape_control_chars(plain) != plain or any(
        len(part.encode()) > LONGEST_PART or part[-1] in ". " for part in parts
    ):
        raise _unsafe(archive, name[:80], "a name that not every folder can hold")
    return parts


def _is_litter(path: tuple[str, ...]) -> bool:
    return not path or path[0] == "__MACOSX" or path[-1] == ".DS_Store" or path[-1].startswith("._")


def _unsafe(archive: Path, name: str, what: str) -> BadInputError:
    return BadInputError(
        f"{archive} holds {what} ({name!r}), expected plain files within one folder; check where the archive is from, nothing was unpacked"
    )


def _damaged(archive: Path, error: Exception) -> DamagedError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DamagedError(
        f"{archive} is damaged ({reason}), expected a whole archive; fetch it again"
    )


def _arranged(entries: list[Entry], wanted: Sequence[str], archive: Path) -> list[Entry]:
    """Return the entries with the paths that they get, all wanted ones among them."""
    while _lacking(entries, wanted) and _is_wrapped(entries):
        entries = [replace(entry, path=entry.path[1:]) for entry in entries]
    for name in _lacking(entries, wanted):
        alike = [entry for entry in entries if entry.path[-1] == name]
        if len(alike) == 1:
            entries[entries.index(alike[0])] = replace(alike[0], path=(name,))
    lacking = _lacking(entries, wanted)
    if lacking:
        raise BadInputError(
            f"{archive} lacks {', '.join(lacking)} (it holds {_listed(entries)}), expected {', '.join(wanted)}; get the archive that has them"
        )
    names = Counter(_same(entry.path) for entry in entries)
    folders = {
        _same(entry.path[:count]) for entry in entries for count in range(1, len(entry.path))
    }
    twice = next((name for name, count in names.items() if count > 1 or name in folders), None)
    if twice is not None:
        raise _unsafe(archive, twice, "a name twice")
    return entries


def _same(path: tuple[str, ...]) -> str:
    """Return what a path is to file systems that do not tell large letters from small ones, or ways of writing an accent."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", "/".join(path)).casefold())


def _is_wrapped(entries: list[Entry]) -> bool:
    return len({entry.path[0] for entry in entries}) == 1 and all(
        len(entry.path) > 1 for entry in entries
    )


def _lacking(entries: Iterable[Entry], wanted: Sequence[str]) -> list[str]:
    there = {
        "/".join(entry.path[:count]) for entry in entries for count in range(1, len(entry.path) + 1)
    }
    return [name for name in wanted if name not in there]


def _listed(entries: list[Entry]) -> str:
    names = [entry.name for entry in entries[:MOST_NAMED]]
    more = len(entries) - len(names)
    return (", ".join(names) or "nothing") + (f" and {more} more" if more else "")


def _written(entry: Entry, folder: Path, archive: Path) -> Iterator[int]:
    """Write a file, yielding how many bytes were written at a time; never more than it states."""
    target = folder.joinpath(*entry.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    left = entry.size
    with target.open("xb") as file:
        for piece in _pieces(entry, archive):
            left -= len(piece)
            if left < 0:
                raise _unsafe(archive, entry.name, "more than it states")
            file.write(piece)
            yield len(piece)
    if left:
        raise _damaged(archive, EOFError(f"{entry.name} ends {left} bytes early"))


def _pieces(entry: Entry, archive: Path) -> Iterator[bytes]:
    try:
        with entry.open() as source:
            while piece := source.read(PIECE):
                yield piece
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
