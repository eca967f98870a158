"""Ctrl-C, SIGTERM and kill -9 in the middle of work: nothing half-written, and a run resumes."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from evenslice import open_volume
from evenslice.verbs import evaluate
from evenslice.volume.atomic import store_written_beside, written_beside
from robustness.commands import content, exit_code

CODES = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}
SLOW = """
import time
import torch

class Slow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, x):
        time.sleep(0.3)
        return self.conv(x)

def make():
    torch.manual_seed(0)
    return Slow()
"""
EXTERNAL = ["--slices", 3, "--mean", 128, "--std", 40, "--precision", "fp32", "--device", "cpu"]


@pytest.mark.parametrize("number", CODES)
def test_what_is_half_written_goes(place, capfd, monkeypatch, number):
    zarr.create_group(str(place / "old.zarr"))
    before = content(place)

    def interrupted(*_, **__):
        with (
            store_written_beside(Path("old.zarr"), force=True) as store,
            written_beside(Path("new.json")) as part,
        ):
            (store / "zarr.json").write_text("half")
            part.write_text("half")
            os.kill(os.getpid(), number)
            time.sleep(10)

    monkeypatch.setattr(evaluate, "evaluate", interrupted)
    assert exit_code(["evaluate", "labels.tif", "labels.tif"]) == CODES[number][0]
    assert capfd.readouterr().err == f"evenslice: error: {CODES[number][1]}; nothing was written\n"
    assert content(place) == before


@pytest.mark.parametrize("number", CODES)
def test_a_signal_while_an_object_is_finalised_is_not_lost(place, capfd, monkeypatch, number):
    def interrupted(*_, **__):
        def feed():
            try:
                yield
            finally:  # Python drops what is raised here when the generator is deleted
                os.kill(os.getpid(), number)
                time.sleep(0.01)

        generator = feed()
        next(generator)
        del generator
        time.sleep(10)

    monkeypatch.setattr(evaluate, "evaluate", interrupted)
    assert exit_code(["evaluate", "labels.tif", "labels.tif"]) == CODES[number][0]
    assert CODES[number][1] in capfd.readouterr().err


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in CODES]
    exit_code(["--version"])
    assert [signal.getsignal(number) for number in CODES] == before


def test_other_threads_leave_signals_alone(place):
    codes = []
    words = ["evaluate", "labels.tif", "labels.tif"]
    thread = threading.Thread(target=lambda: codes.append(exit_code(words)))
    thread.start()
    thread.join()
    assert codes == [0]


@pytest.mark.parametrize("number", [*CODES, signal.SIGKILL])
@pytest.mark.parametrize("out", ["out.zarr", "out.tif"])
@pytest.mark.slow
def test_segment_resumes(place, start, number, out):
    (place / "slow.py").write_text(SLOW)
    words = ["segment", "slow:make", "raw.tif", out, *EXTERNAL]
    command = start(*words)
    command.wait_for(f"{out}.run/done/**/*.json", place)
    command.process.send_signal(number)
    code, _, err = command.end()
    assert code == (CODES[number][0] if number in CODES else -9)
    assert "Traceback" not in err
    assert number not in CODES or f"blocks are kept in {out}.run; add --resume" in err
    assert not (place / out).exists()
    assert start(*words, "--resume").end()[0] == 0
    assert start(*words[:3], f"whole-{out}", *words[4:]).end()[0] == 0
    assert not list(place.glob("*.run"))
    assert not [path for path in place.rglob("*") if path.name.startswith(".")]
    read = [open_volume(place / name) for name in (out, f"whole-{out}")]
    one, two = (volume.read(tuple(slice(0, n) for n in volume.shape)) for volume in read)
    assert np.array_equal(one, two)


@pytest.mark.parametrize("number", [*CODES, signal.SIGKILL])
@pytest.mark.slow
def test_train_resumes(place, start, number):
    words = ["train", "raw.tif", "labels.tif", "m.safetensors", "--weights", "none"]
    words += ["--encoder", "test_resnet.r160_in1k", "--encoder-depth", 2, "--crop", 32]
    words += ["--batch", 1, "--steps", 120, "--device", "cpu"]
    command = start(*words)
    command.wait_for("m.safetensors.run/state.ckpt", place)
    command.process.send_signal(number)
    code, _, err = command.end()
    assert code == (CODES[number][0] if number in CODES else -9)
    assert number not in CODES or "of 120 steps are kept in m.safetensors.run; add --resume" in err
    assert not (place / "m.safetensors").exists()
    assert start(*words, "--resume").end()[0] == 0
    assert start(*words[:3], "whole.safetensors", *words[4:]).end()[0] == 0
    from safetensors.numpy import load_file

    one, two = (load_file(place / name) for name in ("m.safetensors", "whole.safetensors"))
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_study_resumes(place, start):
    text = "[train]\nweights = 'none'\nencoder = 'test_resnet.r160_in1k'\nencoder_depth = 2\n"
    text += "steps = 60\nbatch = 1\ncrop = 32\n[audit]\nwindows = 6\ntile = 32\n"
    text += "[datasets.d]\nraw = 'raw.tif'\nlabels = 'labels.tif'\n"
    (place / "s.toml").write_text(f"name = 's'\n{text}[[grid]]\ndataset = 'd'\nseed = [0, 1, 2]\n")
    command = start("study", "s.toml", "--out", "o")
    command.wait_for("o/cells/*/row.json", place)
    command.process.send_signal(signal.SIGINT)
    code, _, err = command.end()
    assert code == 130
    assert "1 of 3 rows are kept in o; the same command goes on" in err
    code, out, _ = start("study", "s.toml", "--out", "o").end()
    assert code == 0
    assert "Wrote o/report.html, o/study.json, o/rows.csv" in out
