"""What holds for every hostile input: one line that helps, nothing left behind, nothing changed, no memory taken, no hang."""

import contextlib
import hashlib
import os
import re
import resource
import shlex
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from evenslice.cli import app as cli

MEMORY = 300 * 2**20
LIMIT_S = 60
HASHED = 64 * 2**20
ERROR, WARNING = "evenslice: error: ", "evenslice: warning: "
DO = (
    "add allow ask change check choose close compare convert copy correct create crop decompress download drop export fetch fill free "
    "give go install leave make move name pad redirect rename renumber repeat resample run save say scale See split stack start take "
    "threshold train transpose use wait write"
)
REMEDY = re.compile(rf"\b({'|'.join(DO.split())}|did you mean)\b")
NEVER = (
    "Traceback",
    "run it again with --traceback",
    "llocate",
    "MemoryError",
    "memory is not enough",
)  # the last three: it was asked for, and not given


@dataclass(frozen=True)
class Case:
    """One hostile input: how it is made in a folder, the words given to the command, and what comes of it.

    ``name`` is ``class: case``; ``says`` must be in the one line; ``code`` 0 where the input is legal; ``slow`` ones take seconds.
    """

    name: str
    words: str | tuple[str, ...]
    says: str | tuple[str, ...] = ()
    make: Callable[[Path], object] | None = None
    code: int = 2
    slow: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def arguments(self) -> list[str]:
        """The words of the command."""
        return shlex.split(self.words) if isinstance(self.words, str) else list(self.words)

    @property
    def told(self) -> tuple[str, ...]:
        """What the line must hold."""
        return (self.says,) if isinstance(self.says, str) else self.says


def listed(cases: list[Case]) -> list[object]:
    """Return cases as the parameters of a test, under their names; some are left to the slow tests."""
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.slow else [])
        for case in cases
    ]


def listing(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return all that lies in a folder, hidden or not, and what it holds; links are not followed."""
    found: dict[str, tuple[object, ...]] = {}
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(top, name)
            what = path.lstat()
            found[str(path.relative_to(folder))] = (stat.S_IFMT(what.st_mode), *_held(path, what))
    return found


def _held(path: Path, what: os.stat_result) -> tuple[object, ...]:
    if stat.S_ISLNK(what.st_mode):
        return (str(path.readlink()),)
    if not stat.S_ISREG(what.st_mode):
        return ()
    if what.st_size > HASHED:
        return what.st_size, what.st_mtime_ns
    return what.st_size, hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def bounded_memory(most: int = MEMORY):
    """Let this process take no more memory of its own than so many bytes more: asking for it fails, touched or not."""
    held = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if held is None:
        pytest.skip("how much memory a process holds is not told here")
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(held[1]) * 1024 + most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def code_of(words: list[str]) -> int:
    """Run the command line here, and return how it exits."""
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    return stop.value.code


def the_error(err: str) -> str:
    """Return the one line of an error among warnings, or fail."""
    lines = [line for line in err.splitlines() if not line.startswith(WARNING)]
    assert len(lines) == 1, err
    assert err.endswith("\n")
    assert lines[0].startswith(ERROR), err
    return lines[0].removeprefix(ERROR)


def check_told(line: str, told: tuple[str, ...]) -> None:
    """Fail unless a line says what was found, what was expected and what to do."""
    for text in told:
        assert text in line, line
    for text in NEVER:
        assert text not in line, line
    _, expected, rest = line.partition("expected ")
    assert (expected and REMEDY.search(rest)) or "See evenslice --help." in line, line


def check(case: Case, place: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """Run a case in a folder and check all that holds for every one; return what was written."""
    if case.make is not None:
        case.make(place)
    before = listing(place)
    with bounded_memory():
        code = code_of(case.arguments)
    out, err = capfd.readouterr()
    assert code == case.code, err
    after = listing(place)
    if case.code == 0:
        assert ERROR not in err, err
        assert {name: after.get(name) for name in before} == before
        for text in case.told:
            assert text in out + err, out + err
        return out + err
    assert out == ""
    check_told(the_error(err), case.told)
    assert after == before, sorted(set(after) ^ set(before)) or "changed"
    return err
