"""Hostile input, faults at writes and fuzzing: run these tests, and keep how many were tried and passed, by class.

    python reliability/cases.py hostile faults fuzz [--fuzz 2000] [--seed 1]

A name in brackets such as ``[truncated: tiff]`` gives the class of a case; slow cases run too. ``--fuzz`` is the number of examples
of each fuzz test, drawn by ``--seed``. ``--only EXPRESSION`` (as of ``pytest -k``) runs some tests again, and puts their classes into
what is kept. ``EVENSLICE_FAULTS_EVERY=4`` tries one write operation in four (all of the faults take an hour).
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from keeping import keep, kept

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("hostile", "faults", "fuzz")
REPEATED = "tests/faults/test_faults.py::test_a_fault_at_some_write"  # picks from what another test tries in full
SUMMED = ("writes", "faults", "survived", "executions", "valid")
NAMED = re.compile(r"\[([^:\]]+): ")
OUTCOMES = {"failure": "failed", "error": "failed", "skipped": "skipped"}


def class_of(case: ElementTree.Element) -> str:
    """Return the class that a test names, else the words of the test."""
    name = case.get("name", "")
    found = NAMED.search(name)
    return found[1] if found else name.partition("[")[0].removeprefix("test_").replace("_", " ")


def counted(report: Path) -> dict[str, dict[str, int]]:
    """Count the tests of a report by class, and sum the numbers that they noted."""
    classes: dict[str, dict[str, int]] = defaultdict(
        lambda: {"tried": 0, "passed": 0, "failed": 0, "skipped": 0}
    )
    for case in ElementTree.parse(report).iter("testcase"):
        found = classes[class_of(case)]
        found["tried"] += 1
        outcome = next((OUTCOMES[child.tag] for child in case if child.tag in OUTCOMES), "passed")
        found[outcome] += 1
        for noted in case.iter("property"):
            if noted.get("name") in SUMMED:
                name = str(noted.get("name"))
                found[name] = found.get(name, 0) + int(str(noted.get("value")))
    return dict(sorted(classes.items()))


def run(folder: str, fuzz: int, seed: int, only: str) -> dict[str, Any]:
    """Run the tests of a folder, slow ones too; of those that are meant if ``only`` is given."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if folder == "fuzz":
        environment |= {"EVENSLICE_FUZZ": str(fuzz), "EVENSLICE_FUZZ_SEED": str(seed)}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "slow or not slow",
            "--timeout",
            "7200",
            "-p",
            "no:cacheprovider",
        ]
        command += [f"--deselect={REPEATED}"] if folder == "faults" else []
        command += ["-k", only] if only else []
        done = subprocess.run(
            [*command, f"--junitxml={report}", f"tests/{folder}"],
            check=False,
            cwd=ROOT,
            env=environment,
        )
        classes = counted(report)
    seconds = round(time.perf_counter() - began)
    found = {
        "code": done.returncode,
        "seconds": seconds,
        "total": total_of(classes),
        "classes": classes,
    }
    every = os.environ.get("EVENSLICE_FAULTS_EVERY", "1")
    if folder == "faults" and every != "1":
        found["note"] = (
            f"In this run one operation in {every} was tried (`EVENSLICE_FAULTS_EVERY={every}`)."
        )
    return found


def total_of(classes: dict[str, dict[str, int]]) -> dict[str, int]:
    """Sum the numbers of all classes."""
    total = {
        key: sum(found.get(key, 0) for found in classes.values())
        for key in ("tried", "passed", "failed", "skipped", *SUMMED)
    }
    return {key: value for key, value in total.items() if value or key in ("tried", "passed")}


def passed_of(counts: dict[str, int]) -> str:
    """Say how many passed, of faults where they were counted, else of tests."""
    passed, tried = ("survived", "faults") if "faults" in counts else ("passed", "tried")
    return f"{counts.get(passed, 0)} of {counts.get(tried, 0)}"


def put_into_kept(name: str, found: dict[str, Any], only: str) -> dict[str, Any]:
    """Put the classes of some tests into the figures of an earlier run of all, and say so."""
    earlier = kept(name)
    classes = dict(sorted((earlier["classes"] | found["classes"]).items()))
    code = int(any(one["failed"] for one in classes.values()))
    before = [
        f"{one} ({passed_of(earlier['classes'].get(one, {}))} before)" for one in found["classes"]
    ]
    again = f"Changed and run again later, with `--only {only!r}`: {', '.join(before)}."
    note = " ".join(filter(None, (earlier.get("note"), again)))
    return earlier | {"code": code, "total": total_of(classes), "classes": classes, "note": note}


def main() -> None:
    """Run what is asked for, and keep it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", choices=FOLDERS)
    parser.add_argument("--fuzz", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    for folder in options.folders:
        found = run(folder, options.fuzz, options.seed, options.only)
        for name, counts in found["classes"].items():
            print(f"{name:60} {counts}")
        print(folder, found["total"])
        keep(
            f"cases-{folder}",
            put_into_kept(f"cases-{folder}", found, options.only) if options.only else found,
        )


if __name__ == "__main__":
    main()
