"""The default tests with the lowest and with the newest versions of all dependencies.

    python reliability/versions.py lowest|newest [--python 3.11]

The lowest versions are those of ``pyproject.toml`` for everything that it names, with the optional
groups and what the tests need. Warnings are not errors there: old versions warn of each other.
Needs uv, 8 GB of disk and half an hour each.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from keeping import keep

ROOT = Path(__file__).resolve().parent.parent
GROUPS = ".[dask,onnx,bioimageio]"
SHOWN = (
    "torch",
    "timm",
    "segmentation-models-pytorch",
    "pytorch-lightning",
    "numpy",
    "scipy",
    "scikit-image",
    "tifffile",
    "imagecodecs",
)
SHOWN += (
    "h5py",
    "mrcfile",
    "zarr",
    "yaozarrs",
    "safetensors",
    "huggingface-hub",
    "pydantic",
    "typer",
    "rich",
    "jinja2",
    "matplotlib",
    "filelock",
)
SHOWN += ("connected-components-3d", "dask", "onnx", "onnxruntime", "bioimageio-core")


def installed(uv: str, folder: Path, which: str, python: str) -> tuple[Path, dict[str, str]]:
    """Make an environment; return its interpreter and the versions in it."""
    subprocess.run([uv, "venv", "--seed", "--clear", "-p", python, str(folder)], check=True)
    interpreter = folder / "bin" / "python"
    resolution = "lowest-direct" if which == "lowest" else "highest"
    command = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--compile-bytecode",
        "--python",
        str(interpreter),
        "--resolution",
        resolution,
    ]
    subprocess.run([*command, "-e", GROUPS, "--group", "dev"], check=True, cwd=ROOT)
    listed = subprocess.run(
        [uv, "pip", "freeze", "--python", str(interpreter)],
        check=True,
        capture_output=True,
        text=True,
    )
    found = dict(line.split("==") for line in listed.stdout.split() if "==" in line)
    return interpreter, {name: found[name] for name in SHOWN if name in found}


def tested(interpreter: Path, folder: Path) -> dict[str, object]:
    """Run the default tests, except those of the docs (newest versions) and napari (a screen)."""
    report = folder / "report.xml"
    command = [
        str(interpreter),
        "-m",
        "pytest",
        "-q",
        "-W",
        "default",
        "-p",
        "no:cacheprovider",
        "--timeout",
        "1800",
    ]
    command += ["--ignore=tests/napari", "--ignore=tests/docs", f"--junitxml={report}"]
    subprocess.run(command, check=False, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    suite = next(ElementTree.parse(report).iter("testsuite"))
    counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    bad = [
        f"{case.get('classname')}.{case.get('name')}"
        for case in suite.iter("testcase")
        if {"failure", "error"} & {child.tag for child in case}
    ]
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    return {
        "passed": passed,
        "failed": counts["failures"] + counts["errors"],
        "skipped": counts["skipped"],
        "failures": bad,
    }


def main() -> None:
    """Install, test, keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", choices=("lowest", "newest"))
    parser.add_argument("--python", default="3.11")
    options = parser.parse_args()
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    with tempfile.TemporaryDirectory() as name:
        interpreter, versions = installed(uv, Path(name) / "env", options.which, options.python)
        found = tested(interpreter, Path(name))
        command = [str(interpreter), "-c", "import platform; print(platform.python_version())"]
        found["python"] = subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout.strip()
    print({key: value for key, value in found.items() if key != "failures"})
    keep(f"versions-{options.which}", {"installed": versions} | found)


if __name__ == "__main__":
    main()
