"""Counts the executions of every fuzz test into the report, and tells the seed."""

import socket
import sys

import fuzzing
import pytest


def pytest_report_header():
    if not fuzzing.EXAMPLES:
        return "fuzz: the same few examples each time"
    return f"fuzz: EVENSLICE_FUZZ={fuzzing.EXAMPLES} EVENSLICE_FUZZ_SEED={fuzzing.SEED}"


@pytest.fixture
def executions(request):
    counter = fuzzing.Executions()
    yield counter
    noted = [("executions", counter.count), ("valid", counter.valid)]
    request.node.user_properties.extend(
        noted
    )  # as record_property does, which warns where reports are of the family xunit2
    assert counter.count
    counter.close()


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No network, no code from the current folder."""

    def refuse(*given, **named):
        raise AssertionError(f"reached {given}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    assert not {"evil"} & (set(sys.modules) - before)
