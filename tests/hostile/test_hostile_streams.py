"""Standard streams that are closed, full or not read: no traceback, no endless wait, nothing of ours in their place."""

import os
import subprocess
import sys

import pytest
from checking import ERROR, check_told, code_of, listing, the_error

from evenslice.cli import app as cli
from evenslice.cli import signals as cli_ending
from evenslice.cli.output import print_error, reason_of
from evenslice.verbs import evaluate

COMMAND = [sys.executable, "-m", "evenslice"]
LIST = ["data", "list"]


def ended(words, redirections, reads=True):
    """Run a command in a shell with redirections; return its code, and what it wrote."""
    line = 'shift_out() { "$@" ' + redirections + '; }; shift_out "$@"'
    done = subprocess.run(
        ["sh", "-c", line, "sh", *COMMAND, *words], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def unread(words):
    """Run a command whose output nobody reads; return its code and what it said on stderr."""
    gone, out = os.pipe()
    os.close(gone)
    with os.fdopen(out, "wb") as pipe:
        done = subprocess.run(
            [*COMMAND, *words], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False
        )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "words",
    [[*LIST, "--json", "-"], LIST, ["--help"]],
    ids=lambda words: f"streams: nobody reads {' '.join(words)}",
)
def test_a_reader_that_has_gone_is_left_in_silence(words):
    assert unread(words) == (141, "")


@pytest.mark.parametrize(
    ("redirections", "words", "code", "said"),
    [
        (">&-", LIST, 0, None),
        (">&-", [*LIST, "--json", "-"], 2, "--json is -, but standard output is closed"),
        ("2>&-", ["data", "fetch", "nothing"], 2, None),
        ("<&- >&- 2>&-", LIST, 0, None),
        (">/dev/full", [*LIST, "--json", "-"], 2, "standard output"),
        ("2>/dev/full", ["data", "fetch", "nothing"], 2, None),
        ("<&-", [*LIST, "--json", "new.json"], 0, None),
    ],
    ids=lambda value: f"streams: {value}" if isinstance(value, str) and "&" in value + "&" and value[0] in "<>2" else "",
)  # fmt: skip
def test_streams_that_are_closed_or_full(place, redirections, words, code, said):
    before = listing(place)
    done = ended(words, redirections)
    assert done[0] == code, done
    assert "Traceback" not in done[2]
    if said is not None:
        check_told(the_error(done[2]), (said,))
    if "new.json" in words:
        assert (place / "new.json").read_text().startswith("{")
    assert set(listing(place)) - set(before) <= {"new.json"}


class Full:
    """A stream that takes nothing."""

    def write(self, text):
        raise OSError(28, "No space left on device")

    def flush(self):
        raise OSError(28, "No space left on device")

    def fileno(self):
        raise OSError(25, "no terminal")


def test_an_error_that_cannot_be_said_is_no_second_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Full())
    print_error("anything")
    assert code_of(["data", "fetch", "nothing"]) == 2


def test_a_result_that_cannot_be_printed_is_told(place, monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdout", Full())
    assert code_of([*LIST, "--json", "-"]) == 2
    check_told(the_error(capfd.readouterr().err), ("standard output", "No space left on device"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("Unable to hold 9 GiB"), "the memory is not enough (Unable to hold 9 GiB)"),
        (MemoryError(), "the memory is not enough"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't hold 9 bytes"),
            "the memory is not enough",
        ),
        (
            type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"),
            "the memory is not enough",
        ),
        (RecursionError("maximum recursion depth exceeded"), "nested too deep"),
        (
            OSError(28, "No space left on device", "out.tif"),
            "out.tif cannot be used (No space left on device)",
        ),
    ],
    ids=lambda value: f"limits: {value}" if isinstance(value, Exception) else "",
)
def test_what_runs_out_is_one_line(place, capfd, monkeypatch, error, said):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(evaluate, "evaluate", broken)
    assert code_of(["evaluate", "labels.tif", "labels.tif"]) == 2
    line = the_error(capfd.readouterr().err)
    assert said in line
    assert said in reason_of(error)


def test_an_endless_line_is_cut(capfd):
    print_error("begin " + "x" * 10**6 + " end")
    line = capfd.readouterr().err
    assert len(line) < 2000
    assert line.startswith(f"{ERROR}begin x")
    assert line.endswith("x end\n")


def test_the_codes_are_those_of_a_shell():
    assert (cli.INTERRUPTED, cli.TERMINATED, cli.READER_GONE) == (128 + 2, 128 + 15, 128 + 13)
    assert not cli_ending.was_closed(1)
