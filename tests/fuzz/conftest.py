"""Counts the executions of every fuzz test into the report, and tells the seed."""

import fuzzing
import pytest


def pytest_report_header():
    if not fuzzing.EXAMPLES:
        return "fuzz: the same few examples each time"
    return f"fuzz: EVENSLICE_FUZZ={fuzzing.EXAMPLES} EVENSLICE_FUZZ_SEED={fuzzing.SEED}"


@pytest.fixture
def executions(record_property):
    counter = fuzzing.Executions()
    yield counter
    record_property("executions", counter.count)
    record_property("valid", counter.valid)
    assert counter.count
    counter.close()
