"""What a user sees while a command runs, at its end, and when it is stopped."""

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer.main

from evenslice import progress, save_model, save_volume
from evenslice.cli.app import app_of
from evenslice.segmentation.blocks import Work
from evenslice.study import run as study_run
from evenslice.verbs import train as train_verb
from verbs.scenes import run

TINY = ["--weights", "none", "--encoder", "test_resnet.r160_in1k", "--encoder-depth", 2]
TINY += ["--batch", 1, "--crop", 32]
STUDY = """
name = "s"
[datasets.d]
raw = "raw.tif"
labels = "labels.tif"
[[grid]]
dataset = "d"
seed = [0, 1, 2]
"""


@pytest.fixture
def place(tmp_path, monkeypatch, grey, make_model):
    monkeypatch.chdir(tmp_path)
    save_volume("raw.tif", grey)
    save_volume("labels.tif", (grey > 128).astype(np.uint8))
    save_model("m.safetensors", make_model())
    Path("s.toml").write_text(STUDY)
    return tmp_path


def ends(text):
    """The files that a command says it wrote, and the verb of the next, whose words are parsed."""
    lines = dict(line.split(" ", 1) for line in text.splitlines() if re.match("Wrote|Next:", line))
    verb, *words = shlex.split(lines["Next:"].removeprefix("evenslice "))
    group = typer.main.get_command(app_of(verb))
    group.commands[verb].make_context(verb, words)
    return lines.get("Wrote", "").split(", "), verb


@pytest.mark.parametrize(
    ("words", "wrote", "following"),
    [
        ("inspect raw.tif", "", "train"),
        ("inspect m.safetensors --json i.json", "i.json", "audit"),
        ("evaluate labels.tif labels.tif --json -", "", "audit"),
        ("fix m.safetensors f.safetensors", "f.safetensors", "audit"),
        ("segment m.safetensors raw.tif s.tif", "s.tif, s.report.html", "evaluate"),
        (
            "audit m.safetensors raw.tif --out a --windows 4 --tile 32 --methods gradient",
            "a/report.html, a/audit.json",
            "audit",
        ),
        ("study s.toml --out o --dry-run", "", "study"),
        ("data list", "", "data"),
    ],
)
def test_a_verb_says_what_it_wrote_and_what_to_do_next(place, capfd, words, wrote, following):
    assert run(*words.split()) == 0
    out, err = capfd.readouterr()
    assert ends(err if words.endswith("--json -") else out) == (wrote.split(", "), following)
    assert all(Path(name).exists() for name in filter(None, wrote.split(", ")))


def stop_at(monkeypatch, owner, name, call, number=signal.SIGINT):
    """Send a signal to this process at a call of a function."""
    real, calls = getattr(owner, name), []

    def stopping(*given, **named):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return real(*given, **named)

    monkeypatch.setattr(owner, name, stopping)


def error(capfd):
    return capfd.readouterr().err.splitlines()[-1].removeprefix("evenslice: error: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_segmentation_says_what_is_kept(place, capfd, monkeypatch, number):
    words = ["segment", "m.safetensors", "raw.tif", "s.zarr", "--tile", 40, "--precision", "fp32"]
    with monkeypatch.context() as patch:
        stop_at(patch, Work, "_write", 3, number)
        assert run(*words) == (130 if number == signal.SIGINT else 143)
    done = len(list(Path("s.zarr.run/done/predict").rglob("*.json")))
    said = error(capfd)
    assert done
    assert re.search(rf"; {done} of \d+ blocks are kept in s\.zarr\.run; add --resume", said), said
    assert run(*words, "--threshold", 0.7, "--resume") == 2
    assert "another threshold (was 0.5, now 0.7), expected" in error(capfd)
    assert run(*words, "--resume") == 0


def test_a_stopped_training_says_what_is_kept(place, capfd, monkeypatch):
    monkeypatch.setattr(progress, "SHORTEST_S", 0.0)
    words = ["train", "raw.tif", "labels.tif", "t.safetensors", *TINY, "--steps", 60]
    with monkeypatch.context() as patch:
        stop_at(patch, train_verb, "validate", 1)
        assert run(*words) == 130
    assert "nothing is kept" in error(capfd)
    assert not list(place.glob("t.*"))
    with monkeypatch.context() as patch:
        stop_at(patch, train_verb, "validate", 2)
        assert run(*words) == 130
    *lines, said = capfd.readouterr().err.splitlines()
    assert "interrupted; 50 of 60 steps are kept in t.safetensors.run; add --resume" in said
    shown = [re.match(r"training: (\d+)/60 .*loss \d", line) for line in lines]
    assert [int(one[1]) for one in shown if one] == [6, 12, 18, 24, 30, 36, 42, 48, 54, 60]
    assert any(line.startswith("validating: ") for line in lines)
    assert run(*words, "--resume", "--lr", 0.5, "--clip", 2) == 2
    said = error(capfd)
    assert "another clip (was null, now 2.0), lr (was 0.001, now 0.5), expected the same" in said
    assert run(*words, "--resume") == 0
    wrote, following = ends(capfd.readouterr().out)
    assert set(wrote) == {str(file.name) for file in place.glob("t.*")}
    assert following == "audit"
    assert run(*words, "--resume", "--lr", 0.5) == 2
    assert "is complete, with another lr (was 0.001, now 0.5)" in error(capfd)


def test_a_stopped_study_says_what_is_kept(place, capfd, monkeypatch):
    row = dict.fromkeys(study_run.COMPARED, "x") | {"failure": "", "mirror_index": 0.1}
    monkeypatch.setattr(study_run, "run_cell", lambda *_: row)
    monkeypatch.setattr(study_run, "gathered", lambda *_: None)
    stop_at(monkeypatch, study_run, "run_cell", 2)
    assert run("study", "s.toml", "--out", "o") == 130
    assert error(capfd) == "interrupted; 1 of 3 rows are kept in o; the same command goes on"


def test_a_terminal_shows_loading_and_then_bars_within_its_width(place):
    master, slave = pty.openpty()
    words = ["segment", "m.safetensors", "raw.tif", "s.tif", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "evenslice", *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "80"},
    )
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 4096):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(master)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    phases = (
        "loading ...",
        "reading",
        "planning",
        "segmenting",
        "drawing",
        "Wrote s.tif",
        "Next: ",
    )
    places = [text.index(word) for word in phases]
    assert places == sorted(places)
    assert max(len(line) for line in re.split(r"[\r\n]+", text)) <= 80
