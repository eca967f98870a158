"""Results of measurements in `reliability/figures`, one JSON file each."""

import datetime
import json
import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parent / "figures"
PACKAGES = ("evenslice", "torch", "numpy", "scipy", "zarr")


def kept(name: str) -> dict[str, Any]:
    """Return an earlier result."""
    found: dict[str, Any] = json.loads((FIGURES / f"{name}.json").read_text())
    return found


def keep(name: str, found: dict[str, Any]) -> None:
    """Write `figures/NAME.json`: the result, the command, the day and the versions."""
    made = {
        "command": shlex.join(["python", f"reliability/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
        "versions": {package: version(package) for package in PACKAGES},
    }
    FIGURES.mkdir(exist_ok=True)
    part = FIGURES / f".{name}.part"
    part.write_text(json.dumps(made | found, indent=1) + "\n")
    part.replace(FIGURES / f"{name}.json")
    print(f"kept in {FIGURES / name}.json")
