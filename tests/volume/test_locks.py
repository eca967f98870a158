"""Locks: the system's, which end with their holder, and files that tell who holds them where the system has none."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from evenslice.errors import BadInputError
from evenslice.volume import locks
from evenslice.volume import locks as softlock
from evenslice.volume.locks import held, held_briefly, holder_message, try_lock
from evenslice.volume.temp_names import this_process

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has locks of its own")
WITHOUT = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]


@contextmanager
def another(code):
    """A forked process that runs this; it ends when it is killed."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            code(lambda: os.write(tell, b"1"))
        finally:
            os._exit(0)
    os.read(ready, 1)
    os.close(ready), os.close(tell)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def holding(path):
    def hold(ready):
        with try_lock(path) as free:
            assert free
            ready()
            time.sleep(300)

    return hold


def is_free(path):
    with try_lock(path) as free:
        return free


def refuse(monkeypatch, owner, name, code):
    monkeypatch.setattr(
        owner, name, lambda *_: (_ for _ in ()).throw(OSError(code, os.strerror(code)))
    )


@pytest.fixture(params=["locks", *map(errno.errorcode.get, WITHOUT)])
def path(request, tmp_path, monkeypatch):
    """A lock on a file system that has locks, or that says in some way that it has none."""
    if request.param != "locks":
        refuse(monkeypatch, locks.fcntl, "flock", getattr(errno, request.param))
    return tmp_path / "run.lock"


def test_it_is_held_by_one_at_a_time_and_free_afterwards(path):
    with try_lock(path) as first, try_lock(path) as second:
        assert (first, second) == (True, False)
        assert not is_free(path)
    assert is_free(path)
    with pytest.raises(KeyError), held(path):
        raise KeyError
    assert is_free(path)
    assert not list(path.parent.glob(".*"))


def test_another_process_holds_it_also_while_it_is_stopped_and_not_when_it_was_killed(path):
    with another(holding(path)) as pid:
        assert not is_free(path)
        os.kill(pid, signal.SIGSTOP)
        assert not is_free(path)
        with (
            pytest.raises(BadInputError, match=r"another process has held .*run\.lock for 0\.1 s"),
            held(path, 0.1),
        ):
            pass
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert is_free(path)  # although its parent has not asked for it yet


def test_it_is_waited_for(path):
    def briefly(ready):
        with try_lock(path):
            ready()
            time.sleep(0.3)

    with another(briefly), held(path, 60):
        assert not is_free(path)


def test_many_processes_never_hold_it_together(path):
    """Each adds one to a number, twenty times, as if nobody else did."""
    number = path.with_name("number")
    number.write_text("0")
    children = []
    for _ in range(4):
        children.append(os.fork())
        if children[-1] == 0:
            locks.PAUSE_S = 0.001
            for _ in range(20):
                with held(path, 60):
                    value = int(number.read_text())
                    time.sleep(0.0005)
                    number.write_text(str(value + 1))
            os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert number.read_text() == "80"


def test_a_folder_that_is_not_there_and_errors_of_other_kinds_are_told(path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        is_free(path.parent / "none" / "run.lock")
    refuse(monkeypatch, locks.fcntl, "flock", errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        is_free(path)


def test_a_lock_of_a_folder_that_was_removed_while_we_came_is_not_held(tmp_path, monkeypatch):
    real = locks.fcntl.flock
    path = tmp_path / "run.lock"

    def slow(*args):
        path.unlink(missing_ok=True)
        return real(*args)

    monkeypatch.setattr(locks.fcntl, "flock", slow)
    assert not is_free(path)


class TestFiles:
    """Where there are no locks, a file tells who holds it."""

    @pytest.fixture(autouse=True)
    def without(self, tmp_path, monkeypatch):
        refuse(monkeypatch, locks.fcntl, "flock", errno.ENOLCK)
        self.path, self.file = tmp_path / "run.lock", tmp_path / "run.lock.held"

    def by(self, **changes):
        me = this_process()
        told = {"host": me.host, "pid": me.pid, "began": me.began, "token": "x", "machine": "node7"}
        self.file.write_text(json.dumps(told | changes))

    def test_one_of_a_process_that_ended_or_began_at_another_time_is_taken_over(self):
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        self.by(pid=ended.pid)
        assert is_free(self.path)
        self.by(began=this_process().began + 1)
        assert is_free(self.path)
        self.by()
        assert not is_free(self.path)

    def test_one_of_another_machine_counts_for_ten_minutes_after_its_last_sign_of_life(self):
        self.by(host="00000000", pid=1)
        assert not is_free(self.path)
        assert all_in(
            holder_message(self.path),
            "process 1 on node7",
            "run.lock.held",
            "10 minutes",
            "remove the file",
        )
        os.utime(self.file, (time.time() - 590,) * 2)
        assert not is_free(self.path)
        os.utime(self.file, (time.time() - 620,) * 2)
        assert is_free(self.path)
        assert not self.file.exists()

    def test_one_that_says_nothing_counts_as_long(self):
        self.file.write_text("{")
        assert not is_free(self.path)
        assert holder_message(self.path) == ""
        os.utime(self.file, (0, 0))
        assert is_free(self.path)

    def test_a_holder_gives_signs_of_life(self, monkeypatch):
        monkeypatch.setattr(softlock, "BEAT_S", 0.02)
        with held(self.path):
            os.utime(self.file, (0, 0))
            until = time.monotonic() + 30
            while self.file.stat().st_mtime < 1 and time.monotonic() < until:
                time.sleep(0.01)
            assert self.file.stat().st_mtime > 1

    def test_what_another_took_over_is_not_removed_at_the_end(self):
        with held(self.path):
            self.by(host="00000000", token="theirs")
        assert self.file.exists()

    def test_without_hard_links_the_file_is_made_at_once(self, monkeypatch):
        refuse(monkeypatch, os, "link", errno.EPERM)
        with try_lock(self.path) as first, try_lock(self.path) as second:
            assert (first, second) == (True, False)
        assert is_free(self.path)

    def test_one_that_was_renewed_while_it_was_looked_at_stays(self, monkeypatch):
        self.by(host="00000000", token="old")
        os.utime(self.file, (0, 0))
        real = Path.replace

        def late(file, target):
            if file == self.file:
                self.by(host="00000000", token="new")
            return real(file, target)

        monkeypatch.setattr(Path, "replace", late)
        assert not is_free(self.path)
        assert softlock.holder_of(self.file).token == "new"


def test_a_brief_hold_leaves_no_file(tmp_path):
    with held_briefly(tmp_path / ".out.held"):
        assert [file.name for file in tmp_path.iterdir()] == [".out.held"]
        with (
            pytest.raises(BadInputError, match="expected less"),
            held_briefly(tmp_path / ".out.held", 0.1),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


def all_in(text, *parts):
    return all(part in text for part in parts)
