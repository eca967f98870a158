"""Write docs/reliability.md from the figures in reliability/figures: one short table per section.

python reliability/page.py
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "reliability.md"
Figures = dict[str, Any]
HEAD = """# Reliability

What was done to break evenslice, and the result. Each section names its command, which anyone can
run again from a clone (`make reliability` runs all of them and takes hours), with the day it was
run; `python reliability/page.py` writes this page."""
CASES = {
    "bad_files": "files that are cut off, empty, mislabelled or contradict themselves",
    "bad_values": "voxels, labels and options that cannot be used",
    "interruption": "Ctrl-C, SIGTERM and kill -9 in the middle of work, and resuming",
    "streams_and_disks": "closed pipes, full streams, full disks",
}
WORK = {
    "shards": "four shards of one output",
    "same_output": "four runs of one output: one writes it, three are refused",
    "studies": "four processes on one study",
    "audits": "four audits at once",
}
SOAK = {
    "tiles": "tiles",
    "voxels": "voxels",
    "voxels_written_once": "voxels written once",
    "cells": "cells",
    "failures": "failures",
    "memory_mb_early": "memory early, MB",
    "memory_mb_late": "memory late, MB",
    "handles_early": "open files early",
    "handles_late": "open files late",
}


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay out a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def section(title: str, text: str, found: Figures, shown: str) -> str:
    """Lay out a section: title, what it means, command and day, table."""
    run = ", ".join([f"`{found['command']}`", *(found[k] for k in ("date",) if k in found)])
    return f"## {title}\n\n{text}\n\n{run}.\n\n{shown}"


def cases(found: Figures) -> str:
    """Describe bad input and interruptions."""
    text = (
        "Every bad input must end with exit code 2 (130 for Ctrl-C, 143 for SIGTERM), one line "
        "that names the file and what to do, and nothing half-written. A resumed run must equal "
        "an uninterrupted one."
    )
    rows = [(CASES.get(n, n), one["tried"], one["passed"]) for n, one in found["files"].items()]
    return section("Bad input and interruptions", text, found, table(("", "tests", "passed"), rows))


def soak(verb: str) -> Callable[[Figures], str]:
    """Return what describes a long run of a verb."""

    def describe(found: Figures) -> str:
        rows = [(words, found[key]) for key, words in SOAK.items() if key in found]
        text = "One long process: memory and open files must not grow."
        return section(f"Long run of `{verb}`", text, found, table(("", ""), rows))

    return describe


def load(found: Figures) -> str:
    """Describe four processes at once."""
    rows = [
        (WORK[name], ", ".join(map(str, one["codes"])), "yes" if one["equal"] else "**no**")
        for name, one in found["work"].items()
    ]
    text = "The result must equal that of one process."
    shown = table(("", "exit codes", "equal"), rows)
    return section("Four processes at once", text, found, shown)


def rounding(found: Figures) -> str:
    """Describe the largest differences from float64."""
    worst = found["largest_difference_from_float64"]
    keys = list(next(iter(worst.values())))
    rows = [(name, *(f"{one[key]:.1e}" for key in keys)) for name, one in worst.items()]
    text = (
        "Largest differences from float64, computed independently in plain torch: of the shares "
        "of an audit, of shares in float32 and bfloat16, and of probabilities (0 to 1)."
    )
    return section("Rounding", text, found, table(("weights, init", *keys), rows))


def versions(name: str) -> Callable[[Figures], str]:
    """Return what describes the tests with the lowest or the newest versions."""

    def describe(found: Figures) -> str:
        rows = [(found["python"], found["passed"], found["failed"], found["skipped"])]
        text = f"The default tests with the {name} versions that `pyproject.toml` allows."
        shown = table(("Python", "passed", "failed", "skipped"), rows)
        return section(f"{name.capitalize()} versions", text, found, shown)

    return describe


def mutants(found: Figures) -> str:
    """Describe small errors that the tests notice."""
    rows = [
        (f"`{name}`", one["mutants"], one["killed"] + one["timed_out"], one["score_percent"])
        for name, one in found["files"].items()
    ]
    text = "Small errors are put into the code one at a time; the tests must fail."
    shown = table(("file", "errors", "noticed", "%"), rows)
    return section("Errors that the tests notice", text, found, shown)


SECTIONS: dict[str, Callable[[Figures], str]] = {
    "cases": cases,
    "soak-segment": soak("segment"),
    "soak-study": soak("study"),
    "load": load,
    "rounding": rounding,
    "versions-lowest": versions("lowest"),
    "versions-newest": versions("newest"),
    "mutants": mutants,
}


def page(figures: dict[str, Figures]) -> str:
    """Write the page of the figures that there are."""
    parts = [write(figures[name]) for name, write in SECTIONS.items() if name in figures]
    return "\n\n".join([HEAD, *parts]) + "\n"


def main() -> None:
    """Read the figures, write the page."""
    files = sorted((HERE / "figures").glob("*.json"))
    PAGE.write_text(page({file.stem: json.loads(file.read_text()) for file in files}))
    print(PAGE)


if __name__ == "__main__":
    main()
