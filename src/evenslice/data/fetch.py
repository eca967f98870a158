"""Fetching a file that may be large: streamed, with progress, gone on with after a cut or a kill."""

import hashlib
import json
import shutil
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from evenslice.data.connection import (
    LogitsAdapter,
    UnreachableError,
    ask,
    check_address,
    read,
    shown,
)
from evenslice.errors import BadInputError
from evenslice.progress import Progress, Step, silent
from evenslice.volume.atomic import fsync, named, written_beside

MB = 10**6
PIECE = 2**16
ATTEMPTS = 4
PAUSE_S = 1.0
ROOM = 64 * MB  # that is left free in any case


@dataclass(frozen=True)
class Received:
    """A file that was fetched whole.

    Attributes
    ----------
    path
        Where it lies.
    size
        Bytes.
    sha256
        Of what was received.
    stated
        Algorithm and digest that the server stated, with which the file agrees; None if it stated none.
    """

    path: Path
    size: int
    sha256: str
    stated: tuple[str, str] | None = None


@dataclass(frozen=True)
class _Known:
    """What the server said of the file when its part was begun."""

    url: str
    etag: str | None
    digest: tuple[str, str] | None
    total: int | None

    def is_of(self, other: "_Known") -> bool:
        """Whether a part of one is a part of the other, as far as the server tells."""
        if self.digest or other.digest:
            return self.digest == other.digest
        return (self.etag, self.total) == (other.etag, other.total)


class _Place:
    """The file, its part while it is not whole, and a note of what the part is of."""

    def __init__(self, target: Path, url: str) -> None:
        self.target, self.url = target, url
        self.part = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")

    def size(self) -> int:
        """Bytes of the part."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def known(self) -> _Known | None:
        """Return what is known of the part, None if there is none of this address."""
        try:
            values = json.loads(self._note.read_text())
            digest = values["digest"] and (str(values["digest"][0]), str(values["digest"][1]))
            known = _Known(values["url"], values["etag"], digest, values["total"])
        except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
            return None
        return known if known.url == _key(self.url) else None

    @property
    def is_noted(self) -> bool:
        """Whether there is a note."""
        return self._note.is_file()

    def note(self, known: _Known) -> None:
        """Write down what the part is of."""
        with written_beside(self._note) as beside:
            beside.write_text(json.dumps(asdict(known)) + "\n")

    def clear(self) -> None:
        """Throw the part away."""
        self.part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


class _Meter:
    """Progress in MB; the bar begins when the server has said how large the file is."""

    def __init__(self, label: str, progress: Progress, stack: ExitStack) -> None:
        self._label, self._progress, self._stack = label, progress, stack
        self._step: Step | None = None
        self._shown = 0

    def at(self, size: int, total: int | None) -> None:
        """Show how many bytes there are."""
        if self._step is None:
            said = "MB" if total is not None else "MB, size not stated"
            self._step = self._stack.enter_context(
                self._progress(f"{self._label} ({said})", -(-(total or 0) // MB))
            )
        reached = -(-size // MB) if size == total else size // MB
        for _ in range(self._shown, reached):
            self._step()
        self._shown = max(self._shown, reached)


def download(url: str, target: Path, progress: Progress = silent) -> Received:
    """Fetch a file into ``target``, going on with what an earlier try left beside it.

    The part lies beside as ``NAME.part``, with a note ``NAME.part.json`` of address, size and entity tag; if the file at the source is
    another one by now, it is fetched anew. Cut connections and errors of the server that may pass are tried again, with
    growing pauses. Where the server states a digest of the file, it is compared.

    Parameters
    ----------
    url
        Address, http or https.
    target
        The file; its folder must exist. One that is there from the same address is kept as it is.
    progress
        Shows MB.

    Raises
    ------
    BadInputError
        If it cannot be had, there is no room for it, or it is not what the server stated. A part is kept.
    """
    check_address(url)
    place = _Place(target, url)
    known = place.known()
    if target.is_file() and known is not None and known.total == target.stat().st_size:
        return Received(target, target.stat().st_size, _hash(target, "sha256"), known.digest)
    if known is None:
        place.clear()
    with ExitStack() as stack:
        _receive_all(place, _Meter(target.name, progress, stack))
    return _checked(place)


def _receive_all(place: _Place, meter: _Meter) -> None:
    failures, received = 0, False
    while True:
        before = place.size()
        try:
            return _receive(place, meter)
        except UnreachableError as error:
            gained = place.size() > before
            received, failures = received or gained, 1 if gained else failures + 1
            if failures >= ATTEMPTS or not (error.passing or received):
                raise BadInputError(_advice(place, str(error))) from error
            time.sleep(PAUSE_S * 2 ** (failures - 1))


def _advice(place: _Place, reason: str) -> str:
    what = f"{shown(place.url)} cannot be fetched ({reason}), expected a file"
    if place.size():
        return (
            f"{what}; the part of {place.size() / MB:.1f} MB is kept: run the same command to go on"
        )
    return f"{what}; check address and network, then run the same command again"


def _receive(place: _Place, meter: _Meter) -> None:
    """Make one request and write what comes; return when the part is whole."""
    known, start = place.known(), place.size()
    if known is None or (known.total is not None and start > known.total):
        start = 0
    if known is not None and start == known.total:
        return
    tag = None if known is None or known.digest else known.etag
    with ask(place.url, start, tag) as answer:
        now = _Known(_key(place.url), answer.etag, answer.digest, answer.total)
        if answer.status == 416 or (
            answer.start and not (known and answer.start == start and known.is_of(now))
        ):
            if answer.status == 416 and start and answer.total == start:
                return place.note(now)
            place.clear()
            raise UnreachableError("the file at the source is another one by now", True)
        check_room(place.part.parent, (answer.total or 0) - answer.start)
        place.note(now)
        _write(place.part, answer, meter)


def _write(part: Path, answer: LogitsAdapter, meter: _Meter) -> None:
    size = answer.start
    with named(part), part.open("ab" if size else "wb") as file:
        while piece := read(answer, PIECE):
            if size // ROOM < (size + len(piece)) // ROOM:
                check_room(part.parent, len(piece))
            file.write(piece)
            size += len(piece)
            meter.at(size, answer.total)
    if answer.total is not None and size != answer.total:
        raise UnreachableError(f"the connection was cut after {size} of {answer.total} bytes", True)


def check_room(folder: Path, needed: int) -> None:
    """Raise ``BadInputError`` unless so many bytes fit on the disk of a folder, and some more."""
    free = shutil.disk_usage(folder).free
    if needed + ROOM > free:
        raise BadInputError(
            f"{folder} has {free / MB:.0f} MB free, expected {(needed + ROOM) / MB:.0f} MB; make room, or choose another folder with --to"
        )


def _checked(place: _Place) -> Received:
    """Compare the part with what the server stated, and give it its name."""
    known, size = place.known(), place.size()
    stated = known.digest if known is not None else None
    sha256 = _hash(place.part, "sha256")
    if (
        stated is not None
        and (sha256 if stated[0] == "sha256" else _hash(place.part, stated[0])) != stated[1]
    ):
        place.clear()
        raise BadInputError(
            f"{shown(place.url)} came with another {stated[0]} than its server states, expected {stated[1]}; it was thrown away: fetch it again"
        )
    fsync(place.part)
    place.part.replace(place.target)
    place.note(_Known(_key(place.url), known.etag if known else None, stated, size))
    return Received(place.target, size, sha256, stated)


def _key(url: str) -> str:
    """Return what an address is known by in a note; its query, which may be secret, as a digest."""
    query = urlsplit(url).query
    return shown(url) + (f"?{hashlib.sha256(query.encode()).hexdigest()[:16]}" if query else "")


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file."""
    return _hash(path, "sha256")


def _hash(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()


def forget(target: Path) -> None:
    """Remove a file that was fetched and all that was kept of it."""
    _Place(target, "").clear()
    target.unlink(missing_ok=True)


def is_kept(target: Path) -> bool:
    """Whether a file that was fetched lies there whole, with what was noted of it."""
    return target.is_file() and _Place(target, "").is_noted
