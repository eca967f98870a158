"""The command study: what it says before, after and instead of running."""

import json
from pathlib import Path

import pytest

from verbs.scenes import run

STUDIES = Path(__file__).resolve().parent.parent / "studies"


def test_a_wrong_key_is_one_line_and_nothing_is_written(tmp_path, capfd):
    (tmp_path / "s.toml").write_text('name = "x"\n[[grid]]\ndataset = "phantom"\nstesp = 3\n')
    assert run("study", tmp_path / "s.toml", "--out", tmp_path / "out") == 2
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert "s.toml: grid.0: stesp is unknown" in said[0]
    assert "did you mean steps?" in said[0]
    assert not (tmp_path / "out").exists()


def test_a_dry_run_resolves_every_cell_and_runs_none(tmp_path, capfd):
    target = tmp_path / "found.json"
    assert (
        run(
            "study",
            STUDIES / "smoke.toml",
            "--out",
            tmp_path / "out",
            "--dry-run",
            "--json",
            target,
        )
        == 0
    )
    said = capfd.readouterr().out
    assert "study smoke: 8 cells" in said
    assert "minutes in one process on this machine (cpu)" in said
    found = json.loads(target.read_text())
    assert found["seconds"] > 0
    [network] = found["networks"]
    assert (network["cells"], network["problem"], network["weights"]) == (8, "", "imagenet, none")
    assert 5e5 < network["parameters"] < 1e8
    assert not (tmp_path / "out").exists()


def test_a_network_that_does_not_resolve_is_an_error(tmp_path, capfd):
    (tmp_path / "s.toml").write_text(
        'name = "x"\n[[grid]]\ndataset = "phantom"\nweights = "none"\nencoder = "resnet19"\n'
    )
    assert run("study", tmp_path / "s.toml", "--out", tmp_path / "out", "--dry-run") == 2
    assert "unet resnet19 of" in capfd.readouterr().err


@pytest.mark.slow
def test_the_grid_of_the_paper_resolves_and_says_what_is_missing(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("EVENSLICE_DATA", str(tmp_path / "data"))
    assert run("study", STUDIES / "paper.toml", "--out", tmp_path / "out", "--dry-run") == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "study paper: 369 cells" in said
    for name in ("SNEMI3D", "Lucchi++", "GF-PA66"):
        assert f"evenslice data fetch '{name}'" in said


@pytest.mark.slow
def test_the_smoke_study_makes_its_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("study", STUDIES / "smoke.toml", "--out", "smoke", "--json", "found.json") == 0
    assert sorted(p.name for p in Path("smoke").iterdir() if p.suffix != ".lock") == [
        "cells",
        "name.txt",
        "phantom",
        "report.html",
        "rows.csv",
        "study.json",
    ]
    assert json.loads(Path("found.json").read_text())["failed"] == 0
