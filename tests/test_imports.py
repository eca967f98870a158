"""Imports go one way, importing does nothing, and the front page is complete."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import evenslice
from evenslice import save_volume

ROOMS = "volume labels data model evidence learn segmentation verbs study report cli napari"
ORDER = ROOMS.split()
GROUND = {"errors", "options", "progress", "__version__"}  # below everything
SHOWN = {"evidence/result.py", "labels/metrics.py"}  # they import what a notebook shows, then
TORCH_FREE = [
    "evidence/label_asymmetry.py",
    "volume",
    "labels",
    "evidence/stats.py",
    "evidence/shares.py",
    "evidence/sampling.py",
    "evidence/summary.py",
    "evidence/paired.py",
    "data",
]
SOURCE = Path(evenslice.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.update({node.module} | {f"{node.module}.{alias.name}" for alias in node.names})
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


def floor(file: Path) -> int | None:
    part = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    part = "cli" if part.startswith(("cli", "__main__")) else part
    return ORDER.index(part) if part in ORDER else None


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_a_file_imports_only_what_comes_before_it(file):
    here = floor(file)
    if file.name == "__init__.py" and file.parent == SOURCE:
        return
    for name in imported(file):
        if not name.startswith("evenslice."):
            continue
        part = name.split(".")[1]
        if part in GROUND:
            continue
        assert here is not None, f"{file.name} is ground and imports {name}"
        part = "cli" if part.startswith("cli") else part
        if str(file.relative_to(SOURCE)) in SHOWN and name.startswith("evenslice.report.notebook"):
            continue
        assert ORDER.index(part) <= here, f"{file.name} imports {name}"


@pytest.mark.parametrize("place", TORCH_FREE)
def test_numpy_parts_do_not_import_torch(place):
    target = SOURCE / place
    for file in [target] if target.is_file() else sorted(target.rglob("*.py")):
        heavy = {"torch", "pytorch_lightning"}
        assert not heavy & {name.split(".")[0] for name in imported(file)}, file


def test_importing_loads_no_torch():
    code = (
        "import sys, evenslice; assert not {'torch', 'numpy'} & set(sys.modules); "
        "print(evenslice.__version__)"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.strip() == evenslice.__version__


def test_volumes_and_refusals_load_no_torch(tmp_path):
    """In one process: whatever one command imports, the next ones would find."""
    save_volume(tmp_path / "raw.tif", np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8))
    (tmp_path / "bad.tif").write_text("no image")
    (tmp_path / "m.onnx").write_text("")
    code = (
        "import sys\nfrom evenslice.cli.app import main\n"
        "for line in sys.argv[1:]:\n"
        "    try: main(line.split())\n"
        "    except SystemExit as end: print(end.code)\n"
        "    heavy = {'torch', 'timm', 'matplotlib'}\n"
        "    if line == '--help': heavy |= {'numpy', 'pydantic', 'evenslice.cli.audit'}\n"
        "    assert not heavy & set(sys.modules), line\n"
    )
    lines = {
        "--help": 0,
        "--version": 0,
        "inspect none.safetensors": 2,
        "inspect raw.tif --labels raw.tif --target classes --json inspected.json": 0,
        "evaluate raw.tif raw.tif --as instances --json scores.json": 0,
        "data list": 0,
        "inspect none.tif": 2,
        "audit none.safetensors raw.tif": 2,
        "audit m.onnx bad.tif": 2,
        "audit m.onnx raw.tif --windows many": 2,
        "segment none.onnx raw.tif out.zarr": 2,
        "train raw.tif none.tif out.safetensors": 2,
        "fix none.safetensors out.safetensors": 2,
        "export m.pth out.onnx --format onnx": 2,
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *lines],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    codes = [int(line) for line in done.stdout.splitlines() if line in ("0", "2")]
    assert codes == list(lines.values())


def test_importing_is_quick():
    code = "import time; t = time.perf_counter(); import evenslice; print(time.perf_counter() - t)"
    words = [sys.executable, "-c", code]
    assert min(float(subprocess.check_output(words, text=True)) for _ in range(3)) < 0.3


def test_the_front_page_is_complete():
    for name in evenslice.__all__:
        assert callable(getattr(evenslice, name)), name
    assert set(evenslice.__all__) <= set(dir(evenslice))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        evenslice.nothing  # noqa: B018


def test_no_file_is_long_or_named_for_nothing():
    for file in FILES:
        assert len(file.read_text().splitlines()) <= 600, file
        assert file.stem not in ("utils", "helpers", "common", "core", "base"), file
