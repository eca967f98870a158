"""Segmenting on a Dask cluster: a real scheduler and real workers in processes of their own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from evenslice import save_model, save_volume
from verbs.scenes import assert_same, run, started

pytest.importorskip("distributed", reason="the extra dask is not installed")

WORDS = ["--instances", "components", "--precision", "fp32"]
TILES = ["--tile", 96, *WORDS]
IMPATIENT = """
import sys
from evenslice.cli import app as cli
from evenslice.segmentation import cluster
cluster.TIMEOUT_S = 1
cli.main(sys.argv[1:])
"""


def python(*words):
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a worker can be killed with its nanny
    )


def worker(file):
    words = "-m distributed.cli.dask_worker --nthreads 1 --no-dashboard --scheduler-file"
    return python(*words.split(), file)


@pytest.fixture
def place(tmp_path, monkeypatch, make_model):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    save_volume("raw.tif", np.uint8(np.clip(rng.normal(128, 60, (12, 48, 97)), 0, 255)))
    save_model("m.safetensors", make_model())
    return ["segment", "m.safetensors", "raw.tif"]


@pytest.fixture
def cluster(place):
    """The address of a scheduler, and its two workers."""
    file = Path("scheduler.json").resolve()
    words = [
        "--host",
        "127.0.0.1",
        "--port",
        0,
        "--scheduler-file",
        file,
        "--dashboard-address",
        ":0",
    ]
    processes = [python("-m", "distributed.cli.dask_scheduler", *words), worker(file), worker(file)]
    try:
        while not file.exists():
            assert processes[0].poll() is None, processes[0].communicate()
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"], processes[1:]
    finally:
        for process in processes:
            kill(process)
            process.communicate()


def kill(process):
    """Kill a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def refused(*words):
    """The error of a client that does not wait long."""
    done = subprocess.run(
        [sys.executable, "-c", IMPATIENT, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    return done.stderr


@pytest.mark.slow
def test_a_cluster_gives_what_one_process_gives(place, cluster):
    address, _ = cluster
    with started(
        *place, "s.zarr", *WORDS, "--scheduler", address, "--json", "result.json"
    ) as client:
        assert run(*place, "whole.zarr", *WORDS) == 0  # meanwhile
        _, err = client.communicate(timeout=280)
    assert (client.returncode, err) == (0, "")
    assert_same("s.zarr", "whole.zarr")
    assert json.loads(Path("result.json").read_text())["complete"]
    assert not Path("s.zarr.run").exists()


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(place, cluster):
    address, workers = cluster
    assert run(*place, "whole.zarr", *TILES) == 0
    with started(*place, "s.zarr", *TILES, "--scheduler", address) as client:
        while len(list(Path("s.zarr.run").glob("done/predict/*/*.json"))) < 3:
            assert client.poll() is None, client.communicate()
            time.sleep(0.005)
        kill(workers[0])
        _, err = client.communicate(timeout=200)
    assert client.returncode == 0, err
    assert "error" not in err
    assert_same("s.zarr", "whole.zarr")


@pytest.mark.slow
def test_no_scheduler_is_said(place):
    err = refused(*place, "s.zarr", "--scheduler", "tcp://127.0.0.1:9")
    assert err.startswith("evenslice: error: no Dask scheduler answers at tcp://127.0.0.1:9 (")
    assert err.count("\n") == 1
    assert sorted(file.name for file in Path().iterdir()) == ["m.safetensors", "raw.tif"]
