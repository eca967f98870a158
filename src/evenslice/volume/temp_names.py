"""Hidden names for what is not complete yet: they tell which process made them, so that those of dead ones can be removed."""

import contextlib
import hashlib
import os
import re
import shutil
import socket
import time
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

LONGEST = 100
OLD_S = 7 * 24 * 3600.0
_NAME = re.compile(
    r"\.(?P<of>.+)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<began>\d+)-[0-9a-f]{8}\.(?P<kind>[a-z]+)"
)


@dataclass(frozen=True)
class Process:
    """A process, told from all others on all machines.

    Attributes
    ----------
    host
        Digest of the machine, and of the container, that numbers it.
    pid, began
        Its number, and when it began, in ticks of the machine; 0 where that is not known.
    """

    host: str
    pid: int
    began: int

    @property
    def is_here(self) -> bool:
        """Whether it is one of those that can be seen from here."""
        return self.host == host()

    @property
    def is_dead(self) -> bool:
        """Whether it is known to have ended."""
        return self.is_here and not _lives(self.pid, self.began)


def this_process() -> Process:
    """Return the process that asks."""
    return Process(host(), os.getpid(), began(os.getpid()))


@lru_cache(maxsize=1)
def host() -> str:
    """Return a digest of the machine and of the container that processes are numbered in."""
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
        return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def began(pid: int) -> int:
    """Return when a process began, in ticks since the machine did; 0 if that is not known."""
    return _told(pid)[1]


def _told(pid: int) -> tuple[str, int]:
    """Return what the system tells of a process: its state, and when it began; nothing where it does not tell."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return facts[0], int(facts[19])
    except (OSError, ValueError, IndexError):
        return "", 0


def _lives(pid: int, since: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        pass
    state, when = _told(pid)
    return state not in ("Z", "X") and (
        not since or when in (0, since)
    )  # Z: it ended, and nobody has asked how


def temp_path(path: Path, kind: str = "part", ending: str = "") -> Path:
    """Return a hidden name beside ``path`` that no other process and no other call takes."""
    me = this_process()
    who = f"{me.host}-{me.pid}-{me.began}-{uuid.uuid4().hex[:8]}"
    return path.with_name(f".{_label(path)}.{who}.{kind}{ending}")


def stale_temp_files(path: Path, kind: str) -> list[Path]:
    """Return what processes that have ended left under hidden names of this kind beside ``path``, the last one last.

    Of processes on other machines nothing is known: what they left counts after a week.
    """
    start = f".{_label(path)}."
    found = []
    with contextlib.suppress(OSError), os.scandir(path.parent) as items:
        for item in items:
            if (
                not item.name.startswith(start)
                or (name := _NAME.match(item.name)) is None
                or name["kind"] != kind
            ):
                continue
            maker = Process(name["host"], int(name["pid"]), int(name["began"]))
            with contextlib.suppress(OSError):  # removed in the meantime
                when = item.stat(follow_symlinks=False).st_mtime
                if name["of"] == _label(path) and (
                    maker.is_dead or (not maker.is_here and time.time() - when > OLD_S)
                ):
                    found.append((when, Path(item.path)))
    return [place for _, place in sorted(found)]


def remove_stale(path: Path) -> None:
    """Remove what processes that have ended did not complete beside ``path``, and what they did not remove."""
    for kind in ("part", "gone"):
        for place in stale_temp_files(path, kind):
            throw_away(place)


def throw_away(place: Path) -> None:
    """Remove a file or a folder; what cannot be removed stays for the next sweep."""
    with contextlib.suppress(OSError):
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)


def _label(path: Path) -> str:
    """Return the name of a path, or its start and a digest where it is too long to add to."""
    name = path.name
    if len(os.fsencode(name)) <= LONGEST:
        return name
    return f"{name[:24]}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
