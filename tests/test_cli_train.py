"""The command train: options and settings file, several volumes, the example of the docs."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from evenslice import load_model, save_volume
from evenslice.cli import app as cli
from evenslice.cli.train import paired
from evenslice.errors import BadInputError
from evenslice.labels.metrics import scores_of
from evenslice.options import TrainOptions
from evenslice.report import run_pages
from evenslice.verbs import train as verb

DOC = Path(__file__).resolve().parent.parent / "docs" / "training.md"
TINY = "--weights none --encoder-depth 3 --steps 2 --batch 2 --crop 32"


def run(*words):
    with pytest.raises(SystemExit) as stop:
        cli.main(" ".join(map(str, words)).split())
    return stop.value.code


@pytest.fixture
def place(tmp_path, monkeypatch, grey):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "em").mkdir()
    for name in ("raw", "em/second"):
        save_volume(f"{name}.tif", grey)
        save_volume(f"{name}_labels.tif", (grey > 128).astype(np.uint8))
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """The calls of the verb; nothing is trained."""
    calls = []

    def stop(volumes, labels, out, options, **others):
        calls.append((volumes, labels, options, others))
        raise BadInputError("stopped")

    monkeypatch.setattr(verb, "train", stop)
    return calls


def test_without_options_all_are_defaults(place, calls):
    assert run("train raw.tif raw_labels.tif m.safetensors") == 2
    assert calls == [(["raw.tif"], ["raw_labels.tif"], TrainOptions(), calls[0][3])]


def test_options_win_over_the_file_and_the_file_over_the_defaults(place, calls):
    Path("em/a.toml").write_text(
        "steps = 7\nlr = 1\ninit = 'mean'\nreverse_z = true\naugment = 'em'\n"
        "weights = 'w.safetensors'\n"
        "em.noise = {size = 1}\n[[more]]\nvolume = 'second.tif'\nlabels = 'second_labels.tif'\n"
    )
    words = "--steps 1000 --init green --loss ce --class-weights 1,2.5 --clip 1 --patience 3"
    more = "--more em/second.tif raw_labels.tif --more raw.tif em/second_labels.tif"
    run("train raw.tif raw_labels.tif m.safetensors --config em/a.toml", words, more)
    volumes, labels, options, _ = calls[0]
    assert volumes == ["raw.tif", "em/second.tif", "em/second.tif", "raw.tif"]
    names = ("raw_labels", "em/second_labels", "raw_labels", "em/second_labels")
    assert labels == [f"{name}.tif" for name in names]
    file = {"lr": 1, "reverse_z": True, "weights": "em/w.safetensors"}
    file |= {"augment": "em", "em": {"noise": {"size": 1}}}
    assert options == TrainOptions(**file, loss="ce", class_weights=[1, 2.5], clip=1, patience=3)


BAD = [
    ("--config none.toml", "none.toml does not exist, expected a TOML file of settings"),
    ("--config bad.toml", "bad.toml: stesp is unknown, expected one of"),
    ("--more raw.tif", "--more needs two paths, expected VOLUME LABELS after it"),
    ("--more raw.tif --steps 2", "--more needs two paths"),
    ("--more raw.tif none.tif", "none.tif does not exist"),
    ("--batch 3 --devices 2", "--batch is 3 for 2 devices, expected a multiple of 2"),
    ("--device auto --batch 64 --devices 64", "--devices is 64 and "),
    ("--balance 2", "--balance is 2.0, expected 1.0 or less"),
    ("--class-weights 1,x", "--class-weights is '1,x', expected numbers"),
    ("--schedule linear", "Invalid value for '--schedule'"),
    ("--loss bce+dice --class-weights 1,2,3", "--class-weights holds 3 numbers, expected 2"),
    ("--json raw.tif --force", "which this command reads or writes already"),
    ("--json bad.toml --config bad.toml --force", "bad.toml"),
    ("--validation 0:99", "--validation is '0:99', expected a part of 0:9"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_what_is_wrong_is_one_line_and_nothing_is_left(place, capfd, line, message):
    Path("bad.toml").write_text("stesp = 3")
    before = sorted(place.rglob("*"))
    assert run("train raw.tif raw_labels.tif m.safetensors", *line.split()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("evenslice: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(place.rglob("*")) == before


def test_two_paths_become_one_word():
    assert paired(["a", "--more", "b", "c", "d"]) == ["a", "--more", "b\0c", "d"]
    assert paired([]) == []


@pytest.mark.parametrize("words", [["--looks", "7"], ["--looks=7"], ["--validation-runs", "7"]])
def test_scripts_may_use_the_old_name_of_the_validation_runs(words, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "none.tif", "none.tif", "m.safetensors", *words])
    assert "none.tif does not exist" in capsys.readouterr().err


def test_the_example_of_the_docs_trains(place, capfd):
    (example,) = re.findall(r"```toml\n(.*?)```", DOC.read_text(), re.DOTALL)
    Path("em/train.toml").write_text(example)
    words = f"--config em/train.toml {TINY} --device cpu --json scores.json"
    assert run("train raw.tif raw_labels.tif m.safetensors", words) == 0
    assert capfd.readouterr().out.count("Labels (") == 2  # one line per volume
    recipe = load_model("m.safetensors").training["recipe"]
    assert (recipe["steps"], recipe["augment"], recipe["schedule"]) == (2, "em", "cosine")
    assert len(load_model("m.safetensors").training["volumes"]) == 2
    assert json.loads(Path("scores.json").read_text())["dice"] is not None
    assert Path("m.log.csv").read_text().startswith("steps,loss,lr,dice\n1,")
    page, scores = Path("m.report.html"), Path("scores.json").read_text()
    shown = page.read_text()
    page.unlink()  # as if killed before it was written
    assert run("train raw.tif raw_labels.tif m.safetensors", words, "--resume") == 0
    assert Path("scores.json").read_text() == scores
    assert page.read_text() == shown


def test_the_docs_name_every_option_and_every_key():
    text = DOC.read_text()
    for name in TrainOptions.model_fields:
        assert f"`{name}`" in text, name
    for name, table in TrainOptions().em:
        assert f"`{name}`" in text, name
        assert all(f"{key}`" in text for key in type(table).model_fields)


def test_an_early_end_is_reported(place, capfd, monkeypatch):
    def ended(*_, **__):
        scores = scores_of(np.eye(2, dtype=np.int64))
        return SimpleNamespace(scores=scores, steps=2, last=None, log=None, label_asymmetry=())

    monkeypatch.setattr(verb, "train", ended)
    monkeypatch.setattr(run_pages, "write_training_page", lambda *_: None)
    assert run("train raw.tif raw_labels.tif m.safetensors --steps 5 --patience 1") == 0
    assert (
        "stopped after 2 of 5 steps: no better Dice in 1 validation runs" in capfd.readouterr().out
    )
    assert run("train raw.tif raw_labels.tif m.safetensors --steps 2") == 0
    assert "stopped" not in capfd.readouterr().out
