"""Locks by a file, for file systems without any of their own: who holds one, who takes over, and what is left behind."""

import errno
import json
import os
import socket
import subprocess
import sys
import time

import pytest

from evenslice.volume import locks as softlock
from evenslice.volume.locks import Holder, holder_of, take_file
from evenslice.volume.temp_names import Process, began, host, this_process

ELSEWHERE = Process("0badc0de", 7, 1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.held"


def parent():
    """Return a process of this machine that goes on."""
    return Process(host(), os.getppid(), began(os.getppid()))


def ended():
    """Return a process of this machine that has ended."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        since = began(process.pid)
    return Process(host(), process.pid, since)


def hold(path, process, silent_s=0.0, token="theirs"):
    told = {
        "host": process.host,
        "pid": process.pid,
        "began": process.began,
        "token": token,
        "machine": "far",
    }
    path.write_text(json.dumps(told))
    since = time.time() - silent_s
    os.utime(path, (since, since))


def names(path):
    return sorted(file.name for file in path.parent.iterdir())


def no_links(*_):
    raise OSError(errno.EPERM, "no links here")


@pytest.mark.parametrize("links", [True, False])
def test_one_holds_it_and_tells_who_it_is(path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    release = take_file(path)
    holder = holder_of(path)
    assert (holder.process, holder.pid, holder.machine) == (
        this_process(),
        os.getpid(),
        socket.gethostname(),
    )
    assert take_file(path) is None and holder_of(path) == holder
    assert names(path) == ["run.held"], "nothing hidden is left beside it"
    release()
    assert names(path) == []
    take_file(path)()
    assert names(path) == []


def test_another_error_of_the_file_system_is_told(path, monkeypatch):
    def fails(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "link", fails)
    with pytest.raises(OSError, match="broken"):
        take_file(path)
    assert names(path) == []


@pytest.mark.parametrize(
    ("holder", "silent_s", "taken"),
    [
        (parent, 0.0, False),
        (parent, 1e6, False),  # it may be stopped, and go on
        (ended, 0.0, True),
        (lambda: ELSEWHERE, 0.0, False),
        (lambda: ELSEWHERE, softlock.SILENT_S - 60, False),
        (lambda: ELSEWHERE, softlock.SILENT_S + 60, True),
    ],
)
def test_who_has_ended_or_gone_silent_loses_it(path, holder, silent_s, taken):
    hold(path, holder(), silent_s)
    before = holder_of(path)
    release = take_file(path)
    assert (release is not None) == taken
    assert (holder_of(path) == before) != taken
    if release is not None:
        assert holder_of(path).process == this_process()
        release()
    assert names(path) == ([] if taken else ["run.held"])


@pytest.mark.parametrize(
    "told",
    ["", "{", "[]", "null", '{"host": "a", "pid": 3}', '{"host": "a", "pid": "x", "began": 1}'],
)
def test_a_file_that_does_not_say_who_made_it_counts_until_it_is_old(path, told):
    path.write_text(told)
    assert holder_of(path) is None and take_file(path) is None
    os.utime(path, (0, 0))
    take_file(path)()
    assert names(path) == []


def test_nobody_holds_what_is_not_there(path):
    assert holder_of(path) is None
    assert not softlock._is_stale(path, path), "one that has just gone is taken by the next attempt"


def test_who_lost_it_does_not_end_the_hold_of_the_next(path):
    release = take_file(path)
    hold(path, ELSEWHERE)
    release()
    assert holder_of(path) == Holder(ELSEWHERE, "theirs", "far")


def test_two_that_find_the_same_one_gone_do_not_both_take_it(path, monkeypatch):
    """Between the look at an old file and its removal another process has taken over."""
    hold(path, ended())
    looked, real = [], softlock.holder_of

    def look(file):
        holder = real(file)
        if file == path and len(looked) < 2:
            looked.append(file)
            if len(looked) == 2:  # once to see that it is stale, once before it is taken away
                hold(path, ELSEWHERE, token="faster")
        return holder

    monkeypatch.setattr(softlock, "holder_of", look)
    assert take_file(path) is None
    assert holder_of(path) == Holder(ELSEWHERE, "faster", "far")
    assert names(path) == ["run.held"]


def test_one_that_went_away_by_itself_is_taken(path, monkeypatch):
    hold(path, ended())
    real = softlock._is_stale
    monkeypatch.setattr(softlock, "_is_stale", lambda *places: (real(*places), path.unlink())[0])
    take_file(path)()
    assert names(path) == []


def test_signs_of_life_are_given(path, monkeypatch):
    monkeypatch.setattr(softlock, "BEAT_S", 0.01)
    release = take_file(path)
    os.utime(path, (0, 0))
    until = time.monotonic() + 60
    while path.stat().st_mtime == 0:
        assert time.monotonic() < until, "no sign of life"
        time.sleep(0.01)
    release()


def test_what_ended_processes_left_beside_it_is_removed(path):
    gone = ended()
    left = path.with_name(f".run.held.{gone.host}-{gone.pid}-{gone.began}-00000000.part")
    left.write_text("half")
    take_file(path)()
    assert names(path) == []
