"""The page on reliability is what its script writes from the figures that are kept."""

import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent.parent / "reliability"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import page

    yield page
    del sys.modules["page"]


@pytest.fixture
def figures():
    return {
        file.stem: json.loads(file.read_text())
        for file in sorted((FOLDER / "figures").glob("*.json"))
    }


def test_the_page_says_what_was_measured(script, figures):
    assert script.PAGE.read_text() == script.page(figures)


def test_a_failure_is_not_hidden(script):
    found = {"command": "x", "files": {"bad_files": {"tried": 3, "passed": 2}}}
    assert "| 3 | 2 |" in script.page({"cases": found})


def test_what_no_longer_survives_is_kept_nowhere(figures):
    for file in figures["mutants"]["files"].values():
        assert file["score_percent"] >= 80
