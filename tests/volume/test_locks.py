"""Locks between processes: held by one at a time, free when their holder has ended."""

import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from evenslice.errors import BadInputError
from evenslice.volume.locks import try_lock, wait_lock

HOLD = """
import sys, time
from pathlib import Path
from evenslice.volume.locks import try_lock
with try_lock(Path(sys.argv[1])) as free:
    assert free
    print("locked", flush=True)
    time.sleep(300)
"""
COUNT = """
import sys, time
from pathlib import Path
from evenslice.volume.locks import wait_lock
path = Path(sys.argv[1])
for _ in range(10):
    with wait_lock(path, 60):
        value = int(path.with_name("number").read_text())
        time.sleep(0.0005)
        path.with_name("number").write_text(str(value + 1))
"""


@contextmanager
def another_process(path):
    words = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


def is_free(path):
    with try_lock(path) as free:
        return free


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.lock"


def test_it_is_held_by_one_at_a_time_and_free_afterwards(path):
    with try_lock(path) as first, try_lock(path) as second:
        assert (first, second) == (True, False)
        assert not is_free(path)
    assert is_free(path)
    with pytest.raises(KeyError), wait_lock(path):
        raise KeyError
    assert is_free(path)


def test_a_stopped_process_holds_it_and_a_killed_one_does_not(tmp_path):
    path = tmp_path / "run.lock"
    with another_process(path) as process:
        process.send_signal(signal.SIGSTOP)
        assert not is_free(path)
        with pytest.raises(BadInputError, match=r"run\.lock for 0\.1 s"), wait_lock(path, 0.1):
            pass
        process.kill()
        process.wait()
        assert is_free(path)


def test_many_processes_never_hold_it_together(tmp_path):
    """Each adds one to a number, ten times, as if nobody else did."""
    (tmp_path / "number").write_text("0")
    words = [sys.executable, "-c", COUNT, str(tmp_path / "run.lock")]
    processes = [subprocess.Popen(words) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0] * 3
    assert (tmp_path / "number").read_text() == "30"


def test_a_folder_that_is_not_there_is_not_made(path):
    with pytest.raises(FileNotFoundError):
        is_free(path.parent / "none" / "run.lock")
    assert not (path.parent / "none").exists()
