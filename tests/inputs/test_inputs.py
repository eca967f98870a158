"""What is read from files that people have, case by case; docs/inputs.md says the same."""

from pathlib import Path

import pytest

from inputs.page import CASES, WRITTEN, page

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.format}: {case.found}")
def test_a_file_is_read_refused_or_warned_of(case, tmp_path):
    case.check(tmp_path)


def test_the_page_is_that_of_the_cases():
    assert (DOCS / "inputs.md").read_text(encoding="utf-8") == page(CASES)


@pytest.mark.parametrize("test", [test for test, *_ in WRITTEN])
def test_what_is_written_is_tested(test):
    file, name = test.split("::")
    assert f"def {name}(" in (Path(__file__).parent.parent / file).read_text(encoding="utf-8")


def test_each_case_has_a_row_of_its_own():
    rows = [(case.format, case.found) for case in CASES]
    assert len(set(rows)) == len(rows)
