"""Training: what is kept, what a kill leaves, and that going on equals never having stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from evenslice import load_model, save_volume, train
from evenslice.errors import BadInputError
from evenslice.model.stem.find import find_stems
from evenslice.model.stem.slots import norms_per_slot
from evenslice.options import TrainOptions

QUICK = {"weights": "none", "encoder_depth": 3, "steps": 4, "batch": 2, "crop": 32}


@pytest.fixture
def labels(grey):
    return (grey > 128).astype(np.uint8)


def weights_of(path):
    return load_model(path).module.state_dict()


def test_best_and_last_are_kept_and_nothing_else(tmp_path, grey, labels):
    result = train(grey, labels, tmp_path / "m.safetensors", TrainOptions(**QUICK))
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "m.last.safetensors",
        "m.log.csv",
        "m.safetensors",
    ]
    assert result.last == tmp_path / "m.last.safetensors"
    model = load_model(result.path)
    assert model.training["slices"] == [[0, 5]]  # centres 0 to 3 and the neighbour of the last
    assert model.training["validation"] == [[7, 9]]
    assert model.training["recipe"]["steps"] == 4
    assert model.normalisation.mean[0] == pytest.approx(grey[:4].mean(), rel=1e-6)
    assert 0 <= result.scores.dice <= 1
    assert model.scores["validation"]["dice"] == result.scores.dice


def test_it_learns(tmp_path, grey, labels):
    result = train(
        grey,
        labels,
        tmp_path / "m.safetensors",
        TrainOptions(**QUICK | {"steps": 30, "lr": 3e-3}),
        shown=9,
    )
    assert result.scores.dice > 0.85
    (start, stop) = result.model.training["validation"][0]
    assert [look.origin[0] for look in result.shown] == list(range(start, stop))
    right = [np.mean(look.wrong() == 0) for look in result.shown]
    assert min(right) > 0.8
    for look in result.shown:
        z, y, x = look.origin
        height, width = look.prediction.shape
        np.testing.assert_array_equal(look.slices[1], grey[z, y : y + height, x : x + width])
        np.testing.assert_array_equal(look.truth, labels[z, y : y + height, x : x + width])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model(tmp_path, grey, labels):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(grey, labels, tmp_path / f"{name}.safetensors", TrainOptions(**QUICK, seed=seed))
    a, b, c = (weights_of(tmp_path / f"{name}.safetensors") for name in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_classes_ties_and_reversal_train_too(tmp_path, grey):
    classes = np.digitize(grey, [100, 150]).astype(np.uint8)
    recipe = TrainOptions(**QUICK, slices=5, tie="mirror", reverse_z=True, init="random")
    model = train(grey, classes, tmp_path / "m.safetensors", recipe).model
    assert (model.spec.classes, model.spec.tie, model.slices) == (3, "mirror", 5)
    norms = norms_per_slot(find_stems(model.module, 5)[0])
    np.testing.assert_allclose(norms, norms[::-1], rtol=1e-6)


KILLED = """
import os, signal, sys, numpy as np, torch
torch.set_num_threads(1)
from evenslice import train
from evenslice.learn import fit
from evenslice.learn.module import Training
from evenslice.learn.recipe import TrainOptions
fit.FEWEST_CHUNK = 2
step = Training.training_step
def dying(self, batch, number):
    if self.done == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, number)
Training.training_step = dying
raw = np.load(sys.argv[1])
train(raw, (raw > 128).astype(np.uint8), sys.argv[2], TrainOptions(**eval(sys.argv[3])))
"""
MUCH = {
    "schedule": "cosine",
    "clip": 1.0,
    "augment": "em",
    "balance": 0.5,
    "patience": 3,
    "loss": "bce+dice",
}


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(tmp_path, grey, labels, monkeypatch):
    from evenslice.learn import fit

    monkeypatch.setattr(fit, "FEWEST_CHUNK", 2)
    np.save(tmp_path / "raw.npy", grey)
    killed, whole = tmp_path / "killed.safetensors", tmp_path / "whole.safetensors"
    settings = QUICK | MUCH | {"steps": 8, "seed": 3}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "raw.npy"), str(killed), repr(settings)]
    died = subprocess.run(command, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert died.returncode == -signal.SIGKILL
    assert not killed.exists()
    assert (tmp_path / "killed.safetensors.run" / "state.ckpt").exists()
    recipe = TrainOptions(**settings)
    with pytest.raises(BadInputError, match="holds an unfinished run"):
        train(grey, labels, killed, recipe)
    parts = train(grey, labels, killed, recipe, resume=True)
    once = train(grey, labels, whole, recipe)
    assert parts.looks == once.looks
    assert parts.log.read_bytes() == once.log.read_bytes()
    assert parts.scores == once.scores
    for end in (".safetensors", ".last.safetensors"):
        one, other = (weights_of(path.with_suffix(end)) for path in (killed, whole))
        assert all(torch.equal(one[k], other[k]) for k in one)
    assert sorted(f.name for f in tmp_path.iterdir() if f.name.startswith("killed")) == [
        "killed.last.safetensors",
        "killed.log.csv",
        "killed.safetensors",
    ]


def test_resuming_asks_for_the_same_settings(tmp_path, grey, labels):
    out = tmp_path / "m.safetensors"
    with pytest.raises(BadInputError, match="holds no run to go on with"):
        train(grey, labels, out, TrainOptions(**QUICK), resume=True)
    folder = tmp_path / "m.safetensors.run"
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps({"steps": 5}))
    with pytest.raises(BadInputError, match="other settings or data"):
        train(grey, labels, out, TrainOptions(**QUICK), resume=True)
    train(grey, labels, out, TrainOptions(**QUICK), force=True)
    assert not folder.exists()


def test_resuming_asks_for_the_same_labels(tmp_path, grey, labels, monkeypatch):
    from evenslice.verbs import train as verb

    def stop(*_, **__):
        (tmp_path / "m.safetensors.run" / "state.ckpt").write_bytes(b"state")
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, "_fit", stop)
    with pytest.raises(KeyboardInterrupt):
        train(grey, labels, tmp_path / "m.safetensors", TrainOptions(**QUICK))
    with pytest.raises(BadInputError, match="other settings or data"):
        train(grey, 1 - labels, tmp_path / "m.safetensors", TrainOptions(**QUICK), resume=True)


@pytest.mark.slow
def test_ctrl_c_stops_at_once_and_leaves_nothing_of_a_run_without_state(tmp_path, grey):
    save_volume(tmp_path / "raw.tif", grey)
    save_volume(tmp_path / "labels.tif", (grey > 128).astype(np.uint8))
    command = [
        sys.executable,
        "-c",
        # what is started in the background ignores Ctrl-C, so it is asked for
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from evenslice.cli.app import main; main()",
        "train",
        "raw.tif",
        "labels.tif",
        "m.safetensors",
    ]
    options = ["--weights", "none", "--encoder-depth", "3", "--crop", "32", "--steps", "100000"]
    process = subprocess.Popen(
        [*command, *options],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "m.safetensors.run").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "evenslice: error: interrupted\n"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["labels.tif", "raw.tif"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "--steps is 0, expected 1 or more"),
        ({"crop": 16}, "--crop is 16, expected 32 or more"),
        ({"lr": -1.0}, "--lr is -1.0"),
        ({"slices": 4}, "expected an odd number"),
        ({"validation": "5:99"}, r"--validation is '5:99', expected a part of 0:9"),
        ({"validation": "0:9"}, "leaves none to train on"),
        ({"target": "magic"}, r"--target is .magic., expected .auto., "),
        ({"encoder": "resnet19"}, "did you mean"),
    ],
)
def test_what_cannot_be_trained_is_said_and_leaves_nothing(tmp_path, grey, labels, change, message):
    with pytest.raises(BadInputError, match=message):
        train(grey, labels, tmp_path / "m.safetensors", TrainOptions(**QUICK | change))
    assert list(tmp_path.iterdir()) == []


def test_labels_must_fit(tmp_path, grey, labels):
    for wrong, message in [
        (labels[:5], r"has shape \(5, 64, 96\), expected \(9, 64, 96\)"),
        (labels * 255, "say what they mean with --target"),
        (labels * 0, "holds only the value 0"),
        (labels * 0.5, "holds fractions"),
    ]:
        with pytest.raises(BadInputError, match=message):
            train(grey, wrong, tmp_path / "m.safetensors", TrainOptions(**QUICK))
    assert list(tmp_path.iterdir()) == []


def test_a_batch_too_small_for_batch_norm_is_said(tmp_path, grey, labels):
    tiny = TrainOptions(weights="none", steps=2, batch=1, crop=32)
    with pytest.raises(BadInputError, match="use a larger --batch or --crop"):
        train(grey[:, :32, :32], labels[:, :32, :32], tmp_path / "m.safetensors", tiny)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_explodes_is_said_and_leaves_nothing(tmp_path, grey, labels):
    with pytest.raises(BadInputError, match="smaller --lr"):
        train(grey, labels, tmp_path / "m.safetensors", TrainOptions(**QUICK | {"lr": 1e30}))
    assert list(tmp_path.iterdir()) == []
