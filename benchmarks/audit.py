"""What a whole audit costs, method by method, beside another checkout of this project.

    python benchmarks/audit.py VOLUME MODEL [MODEL ...] [--beside CHECKOUT] [--rounds 1]
        [--methods-alone]

Every audit is a process of its own with default options, as on the command line; the seconds are
the processor's (user and system, start included). The two checkouts take turns on one machine.
``--methods-alone`` also runs each method by itself.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
METHODS = ("gradient", "ablation", "ablation-copy", "shapley", "integrated-gradients")


def audited(checkout, model, volume, *options):
    """Return processor seconds and the JSON of one audit by the sources of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "audit.json"
        command = [sys.executable, "-m", "evenslice", "audit", model, volume, "--json", found]
        environment = os.environ | {"PYTHONPATH": str(Path(checkout) / "src")}
        before = os.times()
        subprocess.run([*map(str, command), *options], env=environment, check=True, stdout=-3)
        after = os.times()
        spent = sum(after[2:4]) - sum(before[2:4])  # of children
        return spent, json.loads(found.read_text())


def windows_of(result):
    """Return the windows of each method."""
    return {
        name: method.get("windows", result["windows"]) for name, method in result["methods"].items()
    }


def compared(checkouts, model, volume, options, rounds):
    """Return per checkout the median of the seconds, and the last result."""
    seconds, results = {name: [] for name in checkouts}, {}
    for _ in range(rounds):
        for name, checkout in checkouts.items():
            spent, results[name] = audited(checkout, model, volume, *options)
            seconds[name].append(spent)
    return {name: statistics.median(spent) for name, spent in seconds.items()}, results


def row(title, seconds, results):
    ratio = seconds["now"] / seconds["beside"] if "beside" in seconds else float("nan")
    windows = ", ".join(f"{name} {count}" for name, count in windows_of(results["now"]).items())
    cells = [title, *(f"{spent:.1f}" for spent in seconds.values()), f"{ratio:.2f}", windows]
    print("| " + " | ".join([*cells, results["now"]["verdict"]]) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("volume", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--methods-alone", action="store_true")
    given = parser.parse_args()
    checkouts = {"now": HERE} | ({"beside": given.beside} if given.beside else {})
    heads = ["audit", *(f"{name}, s" for name in checkouts), "ratio", "windows now", "verdict now"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for model in given.models:
        sets = [("default", ())]
        if given.methods_alone:
            sets += [(method, ("--methods", method)) for method in METHODS]
        for title, options in sets:
            found = compared(checkouts, model, given.volume, options, given.rounds)
            row(f"{model.stem}, {title}", *found)


if __name__ == "__main__":
    main()
