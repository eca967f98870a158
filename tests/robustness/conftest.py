"""A folder of good files, and a command line run in it that must leave nothing half-written."""

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from evenslice import save_model, save_volume
from robustness.commands import content, exit_code, the_error


@pytest.fixture(scope="session")
def volume():
    """Smooth noise (9, 48, 64), uint8."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(0).normal(size=(9, 48, 64)), (1, 2, 2))
    return np.uint8(np.clip(128 + 300 * noise, 0, 255))


@pytest.fixture(scope="session")
def good(tmp_path_factory, volume, make_model):
    """``raw.tif``, ``labels.tif`` and ``model.safetensors``, made once."""
    folder = tmp_path_factory.mktemp("good")
    save_volume(folder / "raw.tif", volume, (30.0, 4.0, 4.0))
    save_volume(folder / "labels.tif", (volume > 128).astype(np.uint8), (30.0, 4.0, 4.0))
    save_model(folder / "model.safetensors", make_model())
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch, good):
    """A folder with copies of the good files, which is the working directory."""
    for file in good.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(place, capfd):
    """Run a command that must be refused in one line with these facts, and change nothing."""

    def run(words: str, *facts: str) -> None:
        before = content(place)
        assert exit_code(words.split()) == 2
        out, err = capfd.readouterr()
        line = the_error(err)
        assert "unexpected " not in line, line
        assert "expected " in line or "See evenslice --help." in line, line
        for fact in facts:
            assert fact in line, line
        assert out == ""
        assert content(place) == before

    return run


@dataclass
class Running:
    """A command in a process of its own."""

    process: subprocess.Popen[str]

    def wait_for(self, pattern: str, folder: Path, seconds: float = 60) -> None:
        """Wait until a file that matches the pattern is there."""
        until = time.monotonic() + seconds
        while not list(folder.glob(pattern)):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until, f"no {pattern}"
            time.sleep(0.01)

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; return exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err


@pytest.fixture
def start(place):
    """Start commands in processes of their own, ended with the test."""
    running = []

    def run(*words: object, **options: object) -> Running:
        command = [sys.executable, "-m", "evenslice", *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        running.append(subprocess.Popen(command, cwd=place, text=True, **pipes))
        return Running(running[-1])

    yield run
    for process in running:
        process.kill()
        process.communicate()
