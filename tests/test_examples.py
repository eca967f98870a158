"""The examples run, on a made volume in place of a real one."""

import subprocess
import sys
from pathlib import Path

import pytest

from evenslice import save_volume
from evenslice.data.phantom import phantom

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.mark.slow
def test_from_membranes_to_neurons(tmp_path):
    made = phantom((30, 96, 96))
    for name in ("raw", "membranes", "neurons"):
        save_volume(tmp_path / f"{name}.tif", getattr(made, name))
    words = [sys.executable, EXAMPLES / "isbi_neurons.py", tmp_path, "--weights", "none", "--encoder-depth", "3"]
    done = subprocess.run([*words, "--steps", "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["all", "held out, 24:30"]
    assert all(0 <= float(row.split("|")[2]) <= 1 for row in rows[2:])
