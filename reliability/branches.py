"""Which branches do the default tests reach? Branch coverage of four folders: reliability/figures/branches.json.

    python reliability/branches.py [--read FILE]

Runs the default tests that touch the folders volume, labels, model and evidence under ``coverage run --branch``, in one process (what
the tests start as processes of their own is not counted), and reports each folder and its files below 85 %. Code for a GPU counts as not
reached where there is none. Half an hour on one core. ``--read`` takes the data of an earlier run (a ``.coverage`` file).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FOLDERS = ("volume", "labels", "model", "evidence")
TESTS = [*FOLDERS, "verbs", "hostile", "strangers", "fuzz", "faults", "test_cli*.py"]
ENOUGH = 85.0


def run_tests(data: Path) -> dict[str, object]:
    """Run the tests with every branch noted in ``data``; return how it went."""
    tests = sorted(str(path.relative_to(ROOT)) for name in TESTS for path in (ROOT / "tests").glob(name))
    include = ",".join(f"*/evenslice/{name}/*" for name in FOLDERS)
    command = [sys.executable, "-m", "coverage", "run", "--branch", f"--include={include}", f"--data-file={data}"]
    command += ["-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "--timeout", "1800", *tests]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    started = time.perf_counter()
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    last = done.stdout.strip().splitlines()[-1:]
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-2000:], file=sys.stderr)
    summary = last[0].strip("= ") if last else ""
    return {
        "tests": tests,
        "passed": done.returncode == 0,
        "outcome": summary,
        "seconds": round(time.perf_counter() - started),
    }


def files_of(data: Path, folder: Path) -> dict[str, dict[str, int]]:
    """Return the counts of every file."""
    report = folder / "coverage.json"
    command = [sys.executable, "-m", "coverage", "json", "-q", f"--data-file={data}", "-o", str(report)]
    subprocess.run(command, check=True, cwd=ROOT)
    found = json.loads(report.read_text(encoding="utf-8"))["files"]
    return {name[name.index("evenslice/") + 10 :]: entry["summary"] for name, entry in sorted(found.items())}


def percent(part: int, whole: int) -> float:
    """Return a share in percent; 100 of nothing."""
    return round(100 * part / whole, 1) if whole else 100.0


def figures_of(files: dict[str, dict[str, int]]) -> dict[str, object]:
    """Sum the files of one folder."""
    lines, lines_run, branches, taken = (
        sum(entry[key] for entry in files.values())
        for key in ("num_statements", "covered_lines", "num_branches", "covered_branches")
    )
    rows = [
        {
            "file": name,
            "branch_percent": percent(entry["covered_branches"], entry["num_branches"]),
            "line_percent": percent(entry["covered_lines"], entry["num_statements"]),
            "missing_branches": entry["missing_branches"],
            "missing_lines": entry["missing_lines"],
        }
        for name, entry in files.items()
    ]
    return {
        "files": len(files),
        "lines": lines,
        "lines_covered": lines_run,
        "line_percent": percent(lines_run, lines),
        "branches": branches,
        "branches_covered": taken,
        "branch_percent": percent(taken, branches),
        "below": [row for row in rows if row["branch_percent"] < ENOUGH or row["line_percent"] < ENOUGH],
    }


def main() -> None:
    """Run the tests unless there are data, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--read", type=Path, help="data of an earlier run; figures are printed, not written")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data = given.read.resolve() if given.read else Path(temporary) / "branches.coverage"
        run = {} if given.read else run_tests(data)
        files = files_of(data, Path(temporary))
    folders = {
        name: figures_of({file: entry for file, entry in files.items() if file.startswith(f"{name}/")})
        for name in FOLDERS
    }
    print(f"{'folder':10} files  lines  covered        branches  covered")
    for name, row in folders.items():
        lines, branches = (
            f"{row['lines']:6} {row['line_percent']:7} %",
            f"{row['branches']:14} {row['branch_percent']:6} %",
        )
        print(f"{name:10} {row['files']:5} {lines} {branches}")
        for below in row["below"]:
            print(f"  {below['file']}: {below['branch_percent']} % of branches, {below['missing_branches']} missing")
    if given.read is None:
        about = {
            "command": "python reliability/branches.py",
            "coverage": version("coverage"),
            "python": platform.python_version(),
        }
        text = json.dumps({"schema": "evenslice.branches/1", **about, **run, "folders": folders}, indent=2)
        (HERE / "figures").mkdir(exist_ok=True)
        (HERE / "figures" / "branches.json").write_text(text + "\n", encoding="utf-8")
        sys.exit(not run["passed"])


if __name__ == "__main__":
    main()
