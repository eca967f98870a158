"""Write docs/reliability.md from the figures in reliability/figures.

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

What was tried to break evenslice, and what came of it. Every section names the command that made its figures and can be run again from a
clone (`make reliability` runs all of them, which takes hours); `python reliability/page.py` writes this page from them. What files from
strangers can and cannot do is told under [Security](threats.md)."""


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay out a table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def made(found: Figures) -> str:
    """Say how figures were made."""
    return (
        ", ".join(
            [f"`{found['command']}`", *(found[key] for key in ("date", "machine") if key in found)]
        )
        + "."
    )


def by_class(found: Figures) -> str:
    """Count cases by class."""
    total = found["total"]
    classes = found["classes"]
    rows = [
        (name, one["tried"], one["passed"]) for name, one in classes.items() if one["tried"] > 1
    ]
    alone = [one for one in classes.values() if one["tried"] == 1]
    rows += (
        [("of a class of their own", len(alone), sum(one["passed"] for one in alone))]
        if alone
        else []
    )
    skipped = (
        f" {total['skipped']} were skipped, because the machine could not do them."
        if total.get("skipped")
        else ""
    )
    return f"{total['passed']} of {total['tried']} passed.{skipped}\n\n" + table(
        ("class", "tried", "passed"), rows
    )


def hostile(found: Figures) -> str:
    """Tell of broken input."""
    return (
        "## Broken and hostile input\n\nEach case is one command on one bad input. It must end with exit code 2 (130 for Ctrl-C, 143 for SIGTERM), "
        "one line that names the file and what to do, no traceback, nothing half-written, inputs unchanged, within bounds of time and memory; "
        f"what is unusual but legal must work.\n\n{made(found)} {by_class(found)}"
    )


def strangers(found: Figures) -> str:
    """Tell of models, archives and texts."""
    return (
        "## Files from strangers\n\nModels, archives and texts made to run code, to leave their folder, to fill the memory or to reach a terminal "
        f"or a page.\n\n{made(found)} {by_class(found)}"
    )


def fuzz(found: Figures) -> str:
    """Tell of generated input."""
    rows = [
        (
            name,
            counts.get("executions", 0),
            counts.get("valid", 0),
            "yes" if counts["passed"] == counts["tried"] else "**no**",
        )
        for name, counts in found["classes"].items()
    ]
    return (
        "## Fuzzing\n\nHypothesis changes bytes, headers, metadata, settings and JSON, or makes them anew. The law: a valid result, or one line that "
        f"says why not. What crashed once stays as a named test.\n\n{made(found)} {found['total'].get('executions', 0)} executions.\n\n"
        + table(("what", "executions", "of these valid", "passed"), rows)
    )


def faults(found: Figures) -> str:
    """Tell of failing writes."""
    rows = [
        (
            name,
            counts.get("writes", "-"),
            counts.get("faults", "-"),
            counts.get("survived", "-"),
            f"{counts['passed']} of {counts['tried']}",
        )
        for name, counts in found["classes"].items()
    ]
    total = found["total"]
    return (
        "## Faults at writes, and two processes\n\nEvery write operation of a command (opening, writing, flushing, renaming, making and removing) is made to "
        "fail in turn: with no space left once or for good, with an I/O error, or with a crash before it and in the middle of it. The rerun must "
        "succeed and equal the undisturbed run byte for byte, but for times; what was there before must be whole, old or new (of a folder of several files "
        "each file; the next run that writes there completes it). Nothing hidden may be left where it can be removed. Two processes on one output "
        f"must refuse or cooperate. A full disk does not make removing fail, and to be killed before a flush is to be killed before what follows it, so there "
        f"are fewer faults than writes. {found.get('note', '')}\n\n{made(found)} {total.get('faults', 0)} faults, {total.get('survived', 0)} survived.\n\n"
        + table(
            (
                "what",
                "writes, summed over the kinds of fault",
                "faults",
                "survived",
                "tests passed",
            ),
            rows,
        )
    )


def soak(found: Figures) -> str:
    """Tell of one long run."""
    left_out = {"command", "date", "machine", "versions"}
    rows = [
        (name.replace("_", " ").replace(" mb", ", MB"), value)
        for name, value in found.items()
        if name not in left_out
    ]
    return f"{made(found)}\n\n" + table(("", ""), rows)


def load(found: Figures) -> str:
    """Tell of four processes at once."""
    words = {
        "shards": "four shards of one output",
        "same_output": "four runs that want one output: one has it, three refuse",
        "studies": "four processes on one study",
        "audits": "four audits beside each other",
    }
    rows = [
        (words[name], ", ".join(map(str, one["codes"])), "yes" if one["equal"] else "**no**")
        for name, one in found["work"].items()
    ]
    return f"## Four processes at once\n\n{made(found)}\n\n" + table(
        ("what", "exit codes", "result equals that of one process"), rows
    )


def rounding(found: Figures) -> str:
    """Tell of precisions, threads and processes."""
    worst = found["largest_difference_from_float64"]
    keys = list(next(iter(worst.values())))
    limits = found["limits"]
    rows = [(name, *(f"{one[key]:.1e}" for key in keys)) for name, one in worst.items()]
    rows.append(
        ("tolerance", *(f"{limits.get(key, limits[key.split(',')[0]]):.0e}" for key in keys))
    )
    return (
        "## Numbers\n\nLargest differences from float64, computed again with plain torch apart from our code: of the shares an audit gives (it runs in "
        "float32), of shares in float32 and bfloat16, and of probabilities (0..1). The tests hold the tolerances (`tests/evidence/test_precision.py`).\n\n"
        f"{made(found)}\n\n" + table(("weights, init", *keys), rows) + "\n\n"
        "The same seed gives the same bytes in another process with as many threads; with another number of threads shares stay within 1e-6, probabilities "
        "within 1e-5 and weights after six training steps within 1e-3 (`tests/verbs/test_reproducible.py`). Every output holds the command, the seed, the "
        "versions and hashes of what was read, under `provenance`."
    )


def versions(lowest: Figures | None, newest: Figures | None) -> str:
    """Tell of the ends of the ranges."""
    told = [("lowest", lowest), ("newest", newest)]
    known = [(name, found) for name, found in told if found]
    rows = [
        (
            f"**{name}**, Python {found['python']}",
            found["passed"],
            found["failed"],
            found["skipped"],
        )
        for name, found in known
    ]
    names = sorted({package for _, found in known for package in found["installed"]})
    packages = [
        (package, *(found["installed"].get(package, "-") for _, found in known))
        for package in names
    ]
    failures = [f"- {name}: `{test}`" for name, found in known for test in found["failures"]]
    return (
        "## Versions\n\nThe default tests with the lowest and the newest versions that `pyproject.toml` allows (documents and the napari plug-in left out).\n\n"
        + "\n".join(made(found) for _, found in known)
        + "\n\n"
        + table(("versions", "passed", "failed", "skipped"), rows)
        + "\n\n"
        + ("\n".join(failures) + "\n\n" if failures else "")
        + table(("package", *(name for name, _ in known)), packages)
    )


def branches(found: Figures) -> str:
    """Tell of branch coverage."""
    rows = [
        (f"`{name}`", one["branches"], one["branches_covered"], f"{one['branch_percent']:.1f} %")
        for name, one in found["folders"].items()
    ]
    return f"## Branches reached\n\n{made(found)}\n\n" + table(
        ("folder", "branches", "reached", ""), rows
    )


def mutants(found: Figures) -> str:
    """Tell of small errors that the tests would notice."""
    rows = [
        (
            f"`{name}`",
            one["mutants"],
            one["killed"] + one["timed_out"],
            one["survived"] + one["no_tests"],
            f"{one['score_percent']} %",
        )
        for name, one in found["files"].items()
    ]
    left = [
        f"- `{Path(name).name}`, `{one['function']}`: {' '.join(('`' + line + '`') for line in one['change'].splitlines())}. {one['why'] or '**Not explained.**'}"
        for name, file in found["files"].items()
        for one in file["survivors"]
    ]
    return (
        "## Errors that the tests notice\n\nSmall errors are put into three files, one at a time; the tests must turn red.\n\n"
        f"{made(found)}\n\n"
        + table(("file", "errors made", "noticed", "not", ""), rows)
        + "\n\nNot noticed, and why:\n\n"
        + "\n".join(left)
    )


SECTIONS: dict[str, Callable[[Figures], str]] = {
    "cases-hostile": hostile,
    "cases-strangers": strangers,
    "cases-fuzz": fuzz,
    "cases-faults": faults,
    "load": load,
    "rounding": rounding,
    "branches": branches,
    "mutants": mutants,
}


def page(figures: dict[str, Figures]) -> str:
    """Write the page of the figures that there are."""
    parts = {name: write(figures[name]) for name, write in SECTIONS.items() if name in figures}
    long = [
        f"### `{verb}`\n\n{soak(figures[f'soak-{verb}'])}"
        for verb in ("segment", "study")
        if f"soak-{verb}" in figures
    ]
    runs = (
        "## Long runs\n\nOne process each. Memory (resident), handles and threads are read twice a second. A reader keeps up to 64 MiB of what it has "
        "decoded, so the first half of the samples is left out as warming up; the tenths are of all. Early and late are medians of the first and the last "
        "third of the rest.\n\n" + "\n\n".join(long)
    )
    order = ["cases-hostile", "cases-strangers", "cases-fuzz", "cases-faults"]
    told = [parts[name] for name in order if name in parts] + ([runs] if long else [])
    told += [parts[name] for name in ("load", "rounding") if name in parts]
    if "versions-lowest" in figures or "versions-newest" in figures:
        told.append(versions(figures.get("versions-lowest"), figures.get("versions-newest")))
    told += [parts[name] for name in ("branches", "mutants") if name in parts]
    return "\n\n".join([HEAD, *told]) + "\n"


def main() -> None:
    """Read the figures, write the page."""
    figures = {
        file.stem: json.loads(file.read_text())
        for file in sorted((HERE / "figures").glob("*.json"))
    }
    PAGE.write_text(page(figures))
    print(PAGE)


if __name__ == "__main__":
    main()
