"""Locks between processes, with and without those of the system: held by one, waited for, and told of."""

import errno
import fcntl
import os
import socket

import pytest

from evenslice.errors import BadInputError
from evenslice.volume import locks
from evenslice.volume.locks import held, held_briefly, held_if_free, waited_for

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the system's locks are told apart by flock")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.lock"


def names(path):
    return sorted(file.name for file in path.parent.iterdir())


def failing(monkeypatch, number):
    """Let the system's locks fail with an error."""

    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


def by_the_system(_):
    return ["run.lock"]


def by_a_file(monkeypatch):
    failing(monkeypatch, errno.ENOLCK)
    return ["run.lock"]


def as_on_windows(monkeypatch):
    pytest.importorskip("filelock")
    monkeypatch.setattr(locks, "fcntl", None)


@pytest.mark.parametrize("way", [by_the_system, by_a_file, as_on_windows])
def test_one_at_a_time_holds_a_lock(path, monkeypatch, way):
    left = way(monkeypatch)
    for _ in range(2):
        with held_if_free(path) as mine:
            assert mine
            with held_if_free(path) as again:
                assert not again
            with (
                pytest.raises(BadInputError, match=r"another process has held .*run\.lock for 0 s, expected less"),
                held(path, 0),
            ):
                pass
        with held(path):
            pass
    if left is not None:
        assert names(path) == left


def test_a_lock_by_a_file_tells_who_holds_it(path, monkeypatch):
    by_a_file(monkeypatch)
    with held(path):
        assert names(path) == ["run.lock", "run.lock.held"]
        with pytest.raises(BadInputError) as caught, held(path, 0.0):
            pass
    assert str(caught.value) == (
        f"another process has held {path} for 0 s, expected less (process {os.getpid()} on {socket.gethostname()} says so in {path}.held; "
        "a lock of another machine counts for 10 minutes after its last sign of life; if that process is gone, remove the file); "
        "wait for it, or end it"
    )


def test_a_lock_for_a_moment_leaves_no_file(path):
    file = path.with_suffix(".held")
    with held_briefly(file):
        assert names(path) == ["run.held"]
        with (
            pytest.raises(BadInputError, match=rf"process {os.getpid()} on .* says so in {file};"),
            held_briefly(file, 0),
        ):
            pass
    assert names(path) == []


def test_a_lock_ends_with_an_error_as_well(path):
    for lock in (held, held_if_free, held_briefly):
        with pytest.raises(ZeroDivisionError), lock(path):
            raise ZeroDivisionError
        with held_if_free(path) as mine:
            assert mine
        path.unlink(missing_ok=True)


def test_a_lock_is_waited_for(path, monkeypatch):
    monkeypatch.setattr(locks, "PAUSE_S", 0.0)
    answers = iter([None, None, len])
    assert waited_for(lambda: next(answers), path, 600.0) is len
    assert list(answers) == []


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), held_if_free(tmp_path / "none" / "run.lock"):
        pass


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_busy_is_what_the_system_calls_busy(path, monkeypatch, number):
    failing(monkeypatch, number)
    with held_if_free(path) as mine:
        assert not mine


def test_other_errors_are_told_with_the_name_of_the_lock(path, monkeypatch):
    failing(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match=r"run\.lock") as caught, held_if_free(path):
        pass
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(path, monkeypatch, comes_back):
    real = fcntl.flock

    def flock(descriptor, how):
        real(descriptor, how)
        path.unlink()
        if comes_back:
            path.touch()

    monkeypatch.setattr(fcntl, "flock", flock)
    with held_if_free(path) as mine:
        assert not mine
    monkeypatch.setattr(fcntl, "flock", real)
    with held_if_free(path) as mine:
        assert mine, "the attempt before holds nothing any more"
