"""Mutation score of three files: how many small errors the tests notice.

    python reliability/mutants.py [--only stem] [--keep FOLDER]

mutmut (dependency group ``reliability``) makes one small change at a time in a copy of the tree (an
operator, a number, an argument left out, a word of a message) and runs the tests that call the
changed function. A mutant is killed when a test fails or takes many times as long. One that no test
calls counts as not killed. Survivors are listed with the reason given in survivors.toml, or as
unexplained. About fifteen minutes on one core. Deterministic apart from ``seconds``.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
COPIED = ("src", "tests", "pyproject.toml", "README.md")
SOURCE = "src/evenslice"
# The tests of each file: they call every function of it and take under two seconds each.
STEM = [
    f"test_stem.py::test_{name}"
    for name in (
        "a_uniform_stem_does_not_see_the_order_of_slices",
        "the_mirror_average_by_hand",
        "a_tie_holds_through_training_and_is_baked",
        "a_uniform_tie_starts_at_the_mean_of_the_slots",
    )
]
STEM += [
    "test_stem_refused.py",
    "test_stem_find.py::test_a_probe_serves_networks_of_a_fixed_size",
    "test_stem_find.py::test_a_weight_that_two_layers_share_stays_shared",
]
SHOWN = ("a_notebook_shows_all_text_as_text", "figures_are_shown_without_a_screen_or_pyplot")
TESTS = {
    f"{SOURCE}/model/stem/adapt.py": [f"tests/model/{name}" for name in STEM],
    f"{SOURCE}/evidence/shares.py": ["tests/evidence/test_shares.py"],
    f"{SOURCE}/labels/metrics.py": [
        "tests/labels/test_metrics.py",
        *(f"tests/report/test_notebook.py::test_{n}" for n in SHOWN),
    ],
}


def copy_tree(folder: Path) -> None:
    """Copy what the tests need, without what earlier runs left."""
    folder.mkdir(parents=True)
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info", ".hypothesis")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=leave)
        else:
            shutil.copy(source, folder / name)


def write_settings(folder: Path, file: str, tests: list[str]) -> None:
    """Add the settings of mutmut to the copy of pyproject.toml, without xdist."""
    path = folder / "pyproject.toml"
    arguments = ["-p", "no:cacheprovider", "-p", "no:xdist"]
    settings = {
        "source_paths": ["src/"],
        "only_mutate": [file],
        "pytest_add_cli_args_test_selection": tests,
        "pytest_add_cli_args": arguments,
        "also_copy": list(COPIED),
        "use_git_change_detection": False,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    text = path.read_text(encoding="utf-8").replace(" -n 2", "")
    path.write_text(text + "\n[tool.mutmut]\n" + "\n".join(lines) + "\n", encoding="utf-8")


def mutmut(folder: Path, *arguments: str) -> str:
    """Run mutmut in a folder, return what it printed, and stop when it fails."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "EVENSLICE_SHARED": str(folder / "none"),
    }
    command = [sys.executable, "-m", "mutmut", *arguments]
    done = subprocess.run(
        command,
        check=False,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if done.returncode:
        sys.exit(
            f"mutmut {arguments[0]} failed in {folder}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
    return done.stdout


def outcomes(folder: Path) -> dict[str, str]:
    """Return the status of every mutant by its name."""
    pairs = (
        line.strip().rsplit(": ", 1)
        for line in mutmut(folder, "results", "--all", "true").splitlines()
    )
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and "__mutmut_" in pair[0]}


def change_of(folder: Path, mutant: str) -> str:
    """Return what a mutant changes: the lines taken out and put in, without their indentation."""
    lines = mutmut(folder, "show", mutant).splitlines()
    changed = [line for line in lines if line[:1] in ("-", "+") and line[:3] not in ("---", "+++")]
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in changed)


def function_of(mutant: str) -> str:
    """Turn mutmut's name of a mutant into that of its function or method."""
    name = mutant.rpartition(".")[2].partition("__mutmut_")[0]
    return (
        name.removeprefix("x_")
        if name.startswith("x_")
        else name.removeprefix("xǁ").replace("ǁ", ".")
    )


def examine(folder: Path, file: str, reasons: dict[tuple[str, str, str], str]) -> dict[str, object]:
    """Make and test the mutants of one file; return its figures."""
    tests = TESTS[file]
    copy_tree(folder)
    write_settings(folder, file, tests)
    started = time.perf_counter()
    mutmut(folder, "run", "--max-children", "1")
    seconds = time.perf_counter() - started
    status = outcomes(folder)
    count = Counter(status.values())
    survivors = []
    for mutant in (name for name, found in status.items() if found not in ("killed", "timeout")):
        function, change = function_of(mutant), change_of(folder, mutant)
        why = reasons.pop((file, function, change), None)
        survivors.append(
            {"function": function, "change": change, "status": status[mutant], "why": why}
        )
    caught = count["killed"] + count["timeout"]
    return {
        "tests": tests,
        "mutants": len(status),
        "killed": count["killed"],
        "timed_out": count["timeout"],
        "survived": count["survived"],
        "no_tests": count["no tests"],
        "other": len(status) - caught - count["survived"] - count["no tests"],
        "score_percent": round(100 * caught / len(status), 1),
        "survivors_unexplained": sum(survivor["why"] is None for survivor in survivors),
        "survivors": survivors,
        "seconds": round(seconds),
    }


def main() -> None:
    """Examine the files and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        choices=[Path(file).stem for file in TESTS],
        help="one file; figures are not written",
    )
    parser.add_argument(
        "--keep", type=Path, help="a new folder to work in, kept to inspect the mutants"
    )
    given = parser.parse_args()
    table = tomllib.loads((HERE / "survivors.toml").read_text(encoding="utf-8"))["survivor"]
    reasons = {
        (entry["file"], entry["function"], entry["change"].strip()): entry["why"] for entry in table
    }
    files = [file for file in TESTS if given.only in (None, Path(file).stem)]
    figures: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for file in files:
            figures[file] = examine(
                (given.keep or Path(temporary)) / Path(file).stem, file, reasons
            )
    print(f"{'file':40} mutants killed timed out survived no tests score")
    for file, row in figures.items():
        numbers = [row[key] for key in ("mutants", "killed", "timed_out", "survived", "no_tests")]
        print(
            f"{file:40} {numbers[0]:7} {numbers[1]:6} {numbers[2]:9} {numbers[3]:8} {numbers[4]:8} "
            f"{row['score_percent']:4} %"
        )
        for survivor in row["survivors"]:
            print(
                f"  {survivor['status']} in {survivor['function']}: "
                f"{survivor['why'] or 'UNEXPLAINED'}"
            )
            print("    " + str(survivor["change"]).replace("\n", "\n    "))
    for file, function, change in reasons:
        if file in files:
            print(
                f"no longer a survivor, take it out of survivors.toml: {file} {function}\n{change}"
            )
    if given.only is None:
        about = {
            "command": "python reliability/mutants.py",
            "mutmut": version("mutmut"),
            "python": platform.python_version(),
        }
        text = json.dumps(
            {"schema": "evenslice.mutants/1", **about, "files": figures},
            indent=2,
            ensure_ascii=False,
        )
        (HERE / "figures").mkdir(exist_ok=True)
        (HERE / "figures" / "mutants.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
