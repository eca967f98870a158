"""The examples run, on a made volume in place of a real one."""

import subprocess
import sys
from pathlib import Path

import pytest

from evenslice import save_model, save_volume
from evenslice.data.phantom import phantom

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(name, *words):
    """Run an example in a process of its own and return what it prints."""
    return subprocess.check_output([sys.executable, EXAMPLES / name, *map(str, words)], text=True)


def test_an_example_is_short():
    for file in EXAMPLES.glob("*.py"):
        assert len(file.read_text().splitlines()) < 70, file.name


@pytest.mark.slow
def test_a_network_of_timm_is_patched():
    out = run("patch_timm.py", "--steps", 3)
    assert float(out.split("changes by ")[1].split()[0]) < 1e-5


@pytest.mark.slow
def test_a_model_is_audited_in_continuous_integration():
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0"]
    done = subprocess.check_output([sys.executable, *words, EXAMPLES / "audit_in_ci.py"], text=True)
    assert "2 passed" in done


@pytest.mark.slow
def test_train_and_segment(tmp_path):
    out = run("train_and_segment.py", tmp_path, "--steps", 3, "--crop", 32, "--size", 96)
    assert "another stack: Dice 0." in out
    assert "verdict: " in out
    assert (tmp_path / "audit.json").exists()


@pytest.mark.slow
def test_a_cluster(tmp_path, make_model):
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    save_volume(tmp_path / "raw.tif", phantom((9, 64, 64)).raw)
    save_model(tmp_path / "model.safetensors", make_model())
    out = run(
        "cluster.py", tmp_path / "model.safetensors", tmp_path / "raw.tif", tmp_path / "out.zarr"
    )
    assert out.startswith("2 workers, ")
    assert (tmp_path / "out.zarr" / "labels" / "segmentation").is_dir()


@pytest.mark.slow
def test_from_membranes_to_neurons(tmp_path):
    made = phantom((30, 96, 96))
    for name in ("raw", "membranes", "neurons"):
        save_volume(tmp_path / f"{name}.tif", getattr(made, name))
    words = "--weights none --encoder-depth 3 --steps 3"
    out = run("isbi_neurons.py", tmp_path, *words.split())
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["all", "held out, 24:30"]
    assert all(0 <= float(row.split("|")[2]) <= 1 for row in rows[2:])


@pytest.mark.slow
def test_the_maps_of_an_audit_become_layers(tmp_path, make_model):
    pytest.importorskip("napari.layers", reason="the extra napari is not installed")
    save_volume(tmp_path / "raw.tif", phantom((9, 96, 96)).raw)
    save_model(tmp_path / "model.safetensors", make_model())
    words = ["--tile", "48", "--windows", "4", "--headless"]
    out = run("napari_audit.py", tmp_path / "model.safetensors", tmp_path / "raw.tif", *words)
    for name in ("previous", "centre", "next"):
        assert f"importance of {name}" in out
