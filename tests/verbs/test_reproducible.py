"""The same seed gives the same result in another process, and within rounding with threads."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from evenslice import audit, open_volume, save_model, save_volume, segment

SHARES, PROBABILITIES, WEIGHTS = 1e-6, 1e-5, 1e-3  # largest difference between 1 and 2 threads


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def place(tmp_path, monkeypatch, grey, make_model):
    monkeypatch.chdir(tmp_path)
    save_volume("raw.tif", grey)
    save_volume("labels.tif", (grey > 128).astype(np.uint8))
    save_model("model.safetensors", make_model())
    return tmp_path


def differ(one, other):
    """The largest difference between numbers of two JSON values; all else must be equal."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return max(
            (differ(one[key], other[key]) for key in one if key != "provenance"), default=0.0
        )
    if isinstance(one, list):
        assert len(one) == len(other)
        return max((differ(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other)
    assert one == other
    return 0.0


@pytest.mark.slow
def test_an_audit_is_the_same_on_another_number_of_threads(place, threads):
    found = []
    for count in (1, 2, 1):
        threads(count)
        options = {"windows": 4, "tile": 32, "methods": ("gradient", "ablation"), "seed": 1}
        result = audit("model.safetensors", "raw.tif", **options)
        found.append({name: method.to_dict() for name, method in result.methods.items()})
    assert found[0] == found[2]
    assert differ(found[0], found[1]) < SHARES


def test_a_segmentation_is_the_same_on_another_number_of_threads(place, threads):
    found = []
    for count in (1, 2, 1):
        threads(count)
        options = {"roi": "0:3,:,:", "precision": "fp32"}
        segment("model.safetensors", "raw.tif", "out.zarr", force=True, **options)
        found.append(open_volume("out.zarr").read((slice(None),) * 3))
    assert np.array_equal(found[0], found[2])
    assert np.abs(found[0].astype(float) - found[1]).max() < PROBABILITIES


def run(place, count, *words):
    environment = os.environ | {"OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}
    command = [sys.executable, "-m", "evenslice", *words]
    return subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.slow
def test_every_process_audits_alike(place):
    words = "audit model.safetensors raw.tif --windows 8 --tile 32 --json -"
    one, again, two = (json.loads(run(place, count, *words.split())) for count in (1, 1, 2))
    assert one == again
    assert differ(one["methods"], two["methods"]) < SHARES


@pytest.mark.slow
def test_every_process_trains_alike(place):
    words = ["--encoder-depth", "3", "--steps", "6", "--batch", "2", "--crop", "32", "--seed", "3"]
    for name, count in (("one", 1), ("again", 1), ("two", 2)):
        run(place, count, "train", "raw.tif", "labels.tif", f"{name}.safetensors", *words)
    one, again, two = (load_file(f"{name}.safetensors") for name in ("one", "again", "two"))
    assert all(torch.equal(one[key], again[key]) for key in one)
    floating = [key for key in one if one[key].is_floating_point()]
    assert max(float((one[key] - two[key]).abs().max()) for key in floating) < WEIGHTS
