"""What holds for every file of a stranger: no code of it runs, nothing is fetched, nothing is written, no memory is lost to it."""

import platform
import resource
import socket
import subprocess
import sys

import pytest

MOST_MB = 400


@pytest.fixture
def guarded(tmp_path, monkeypatch):
    """Fail if anything is fetched, started, written or run between the call that this gives and the end of the test."""
    platform.processor()  # asks once, by another program
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    reached = []

    def refuse(what):
        def refused(*given, **named):
            reached.append((what, given[-1:]))
            raise OSError(f"{what} is not to be reached")

        return refused

    monkeypatch.setattr(socket.socket, "connect", refuse("a socket"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse("an address"))
    monkeypatch.setattr(subprocess, "Popen", refuse("a process"))
    seen = {}

    def begin():
        seen["files"] = listing(tmp_path)
        seen["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    yield begin
    assert reached == []
    assert not (tmp_path / "RAN").exists()
    if seen:
        assert listing(tmp_path) == seen["files"]
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - seen["peak"]) / 1024
        assert grown < MOST_MB, f"the peak of memory grew by {grown:.0f} MB"


def listing(folder):
    return sorted(
        (str(path.relative_to(folder)), path.stat().st_size) for path in folder.rglob("*")
    )
