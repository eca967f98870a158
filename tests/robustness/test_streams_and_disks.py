"""Readers that go away, full streams and full disks: the right exit code, and nothing left."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evenslice.cli.output import failure_message, print_error
from evenslice.verbs import evaluate
from robustness.commands import content, exit_code, the_error


def test_a_reader_that_has_gone_is_left_in_silence(start):
    gone, out = os.pipe()
    os.close(gone)
    with os.fdopen(out, "wb") as pipe:
        command = start("data", "list", "--json", "-", stdout=pipe)
        assert command.end() == (141, None, "")


def test_a_full_standard_output_is_one_line(start):
    with Path("/dev/full").open("w") as full:
        code, _, err = start("data", "list", "--json", "-", stdout=full).end()
    assert code == 2
    assert "standard output" in the_error(err)


@pytest.mark.parametrize(
    ("error", "fact"),
    [
        (MemoryError("Unable to hold 9 GiB"), "memory is not enough (Unable to hold 9 GiB)"),
        (RuntimeError("DefaultCPUAllocator: can't hold 9 bytes"), "memory is not enough"),
        (OSError(errno.ENOSPC, "No space left on device", "out.tif"), "out.tif cannot be used"),
    ],
)
def test_what_runs_out_is_one_line(place, capfd, monkeypatch, error, fact):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(evaluate, "evaluate", broken)
    assert exit_code(["evaluate", "labels.tif", "labels.tif"]) == 2
    assert fact in the_error(capfd.readouterr().err)
    assert fact in failure_message(error)


def test_an_endless_message_is_cut(capfd):
    print_error("begin " + "x" * 10**6 + " end")
    line = capfd.readouterr().err
    assert len(line) < 2000
    assert "begin x" in line
    assert line.endswith("x end\n")


FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
from evenslice.cli.app import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "words", ["segment model.safetensors raw.tif out.tif --device cpu", "data list --json out.json"]
)
def test_a_disk_that_is_full_leaves_nothing(place, words):
    """A limit on the size of files stands in for a full disk: writes fail in the middle."""
    before = content(place)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *words.split()],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "out." in the_error(done.stderr)
    assert {name for name in content(place) if not name.startswith("out.tif.run")} == set(before)
