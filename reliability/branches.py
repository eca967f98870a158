"""Which branches do the default tests reach? Branch coverage of four folders: reliability/figures/branches.json.

    python reliability/branches.py [--keep FOLDER] [--tests volume,labels,model,evidence]

Runs the default tests that touch the folders volume, labels, model and evidence under ``coverage run --branch``, one folder of tests
after the other, each in one process (what tests start as processes of their own is not counted), and reports each folder and its files
below 85 %. Code for a GPU counts as not reached where there is none. Half an hour on one core. With ``--keep`` the data stay in FOLDER, and
what is there already is not run again: for a run in pieces, as long as the code stays the same. Fewer ``--tests`` give a lower bound.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FOLDERS = ("volume", "labels", "model", "evidence")
TESTS = [*FOLDERS, "verbs", "hostile", "fuzz", "faults", "test_cli*.py"]
ENOUGH = 85.0


def run_tests(names: list[str], folder: Path) -> list[dict[str, object]]:
    """Run each folder of tests with every branch noted in a file of its own; return how they went."""
    source = ",".join(str(ROOT / "src" / "evenslice" / name) for name in FOLDERS)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    runs = []
    for test in [
        str(path.relative_to(ROOT))
        for name in names
        for path in sorted((ROOT / "tests").glob(name))
    ]:
        data = folder / f"{test.replace('/', '_')}.coverage"
        record = data.with_suffix(".json")
        if not record.exists():
            command = [
                sys.executable,
                "-m",
                "coverage",
                "run",
                "--branch",
                f"--source={source}",
                f"--data-file={data}",
            ]
            command += [
                "-m",
                "pytest",
                "-n",
                "0",
                "-q",
                "-p",
                "no:cacheprovider",
                "--timeout",
                "1800",
                test,
            ]
            done = subprocess.run(
                command,
                check=False,
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                encoding="utf-8",
            )
            last = done.stdout.strip().splitlines()[-1:]
            found = {
                "tests": test,
                "passed": done.returncode == 0,
                "outcome": last[0].partition(" in ")[0] if last else "",
            }
            if done.returncode:
                print(done.stdout[-6000:], done.stderr[-2000:], file=sys.stderr)
            record.write_text(json.dumps(found), encoding="utf-8")
        runs.append(json.loads(record.read_text(encoding="utf-8")))
        print(f"{test}: {runs[-1]['outcome']}", flush=True)
    return runs


def files_of(folder: Path) -> dict[str, dict[str, int]]:
    """Return the counts of every file over all runs."""
    data, report = folder / "all", folder / "all.report"
    pieces = sorted(str(path) for path in folder.glob("*.coverage"))
    command = [
        sys.executable,
        "-m",
        "coverage",
        "combine",
        "-q",
        "--keep",
        f"--data-file={data}",
        *pieces,
    ]
    subprocess.run(command, check=True, cwd=ROOT)
    command = [
        sys.executable,
        "-m",
        "coverage",
        "json",
        "-q",
        f"--data-file={data}",
        "-o",
        str(report),
    ]
    subprocess.run(command, check=True, cwd=ROOT)
    found = json.loads(report.read_text(encoding="utf-8"))["files"]
    return {
        name[name.index("evenslice/") + 10 :]: entry["summary"]
        for name, entry in sorted(found.items())
    }


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
        "below": [
            row for row in rows if row["branch_percent"] < ENOUGH or row["line_percent"] < ENOUGH
        ],
    }


def main() -> None:
    """Run the tests unless there are data, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, help="folder for the data of each run")
    parser.add_argument(
        "--tests",
        default=",".join(TESTS),
        help="folders and files of tests, with commas between them",
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep.resolve() if given.keep else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        runs = run_tests(given.tests.split(","), folder)
        files = files_of(folder)
    folders = {
        name: figures_of(
            {file: entry for file, entry in files.items() if file.startswith(f"{name}/")}
        )
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
            print(
                f"  {below['file']}: {below['branch_percent']} % of branches, {below['missing_branches']} missing"
            )
    about = {
        "command": "python reliability/branches.py",
        "coverage": version("coverage"),
        "python": platform.python_version(),
    }
    found = {"schema": "evenslice.branches/1", **about, "runs": runs, "folders": folders}
    (HERE / "figures").mkdir(exist_ok=True)
    (HERE / "figures" / "branches.json").write_text(
        json.dumps(found, indent=2) + "\n", encoding="utf-8"
    )
    sys.exit(not all(run["passed"] for run in runs))


if __name__ == "__main__":
    main()
