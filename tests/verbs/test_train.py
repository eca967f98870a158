"""Training: what is kept, and that a killed and resumed run equals an uninterrupted one."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from evenslice import audit, load_model, save_volume, train
from evenslice.errors import BadInputError
from evenslice.learn import fit
from evenslice.model.stem.find import find_stems
from evenslice.model.stem.slots import norms_per_slot
from evenslice.options import TrainOptions
from evenslice.verbs import train as verb

QUICK = {"weights": "none", "encoder": "test_resnet.r160_in1k", "encoder_depth": 2}
QUICK |= {"steps": 4, "batch": 2, "crop": 32}


@pytest.fixture
def labels(grey):
    return (grey > 128).astype(np.uint8)


def weights_of(path):
    return load_model(path).module.state_dict()


def equal(one, other):
    one, other = weights_of(one), weights_of(other)
    return all(torch.equal(one[key], other[key]) for key in one)


def names(folder, start=""):
    return sorted(file.name for file in folder.iterdir() if file.name.startswith(start))


def test_best_and_last_are_kept_and_nothing_else(tmp_path, grey, labels):
    result = train(grey, labels, tmp_path / "m.safetensors", TrainOptions(**QUICK | {"steps": 5}))
    changed = train(grey, labels, tmp_path / "n.safetensors", TrainOptions(**QUICK), steps=5)
    assert names(tmp_path, "m") == ["m.last.safetensors", "m.log.csv", "m.safetensors"]
    assert result.last == tmp_path / "m.last.safetensors"
    assert result.steps == 5
    assert equal(result.path, changed.path)
    model = load_model(result.path)
    assert model.training["slices"] == [[0, 5]]  # centres 0 to 3 and the neighbour of the last
    assert model.training["validation"] == [[7, 9]]
    assert model.training["recipe"]["steps"] == 5
    assert model.normalisation.mean[0] == pytest.approx(grey[:4].mean(), rel=1e-6)
    assert 0 <= result.scores.dice <= 1
    assert model.scores["validation"]["dice"] == result.scores.dice


def test_it_learns(tmp_path, grey, labels):
    result = train(
        grey, labels, tmp_path / "m.safetensors", **QUICK | {"steps": 30, "lr": 3e-3, "seed": 0}
    )
    assert result.scores.dice > 0.85
    assert [view.origin[0] for view in result.views] == [7, 8]
    assert min(np.mean(view.wrong() == 0) for view in result.views) > 0.8
    for view in result.views:
        z, y, x = view.origin
        height, width = view.prediction.shape
        np.testing.assert_array_equal(view.slices[1], grey[z, y : y + height, x : x + width])
        np.testing.assert_array_equal(view.truth, labels[z, y : y + height, x : x + width])


def test_classes_ties_and_reversal_train_too(tmp_path, grey):
    classes = np.digitize(grey, [100, 150]).astype(np.uint8)
    options = TrainOptions(**QUICK, slices=5, tie="mirror", augment_reversal=True, init="random")
    model = train(grey, classes, tmp_path / "m.safetensors", options).model
    assert (model.spec.classes, model.spec.tie, model.slices) == (3, "mirror", 5)
    norms = norms_per_slot(find_stems(model.module, 5)[0])
    np.testing.assert_allclose(norms, norms[::-1], rtol=1e-6)


def test_training_in_reversed_order_makes_the_mirrored_network(tmp_path, grey, labels):
    """From an init that is symmetric itself; labels of the next slice make it matter."""
    options = TrainOptions(**QUICK | {"steps": 3})
    later = labels[[*range(1, len(labels)), 0]]
    one, two = (
        train(grey, later, tmp_path / f"{order}.safetensors", options, z_order=order)
        for order in ("forward", "reversed")
    )
    stems = [find_stems(made.model.module, 3)[0].layer.weight.detach() for made in (one, two)]
    torch.testing.assert_close(stems[0], stems[1].flip(1), rtol=1e-3, atol=1e-4)
    assert (stems[0] - stems[1]).abs().max() > 1e-3
    assert one.scores.dice == pytest.approx(two.scores.dice, abs=1e-3)
    assert two.model.training["recipe"]["z_order"] == "reversed"


KILLED = """
import os, signal, sys, numpy as np, torch
torch.set_num_threads(1)
from evenslice import train
from evenslice.learn import fit, module
fit.SHORTEST_INTERVAL = 2
step = module.Training.training_step
def dying(self, batch, number):
    if self.done == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, number)
module.Training.training_step = dying
raw = np.load(sys.argv[1])
train(raw, (raw > 128).astype(np.uint8), sys.argv[2], **eval(sys.argv[3]))
"""
MANY = {
    "schedule": "cosine",
    "clip": 1.0,
    "augment": "em",
    "balance": 0.5,
    "patience": 3,
    "loss": "bce+dice",
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, grey, labels, monkeypatch):
    monkeypatch.setattr(fit, "SHORTEST_INTERVAL", 2)
    np.save(tmp_path / "raw.npy", grey)
    killed, whole = tmp_path / "killed.safetensors", tmp_path / "whole.safetensors"
    settings = QUICK | MANY | {"steps": 8, "seed": 3}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "raw.npy"), str(killed), repr(settings)]
    died = subprocess.run(command, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert died.returncode == -signal.SIGKILL
    assert not killed.exists()
    assert (tmp_path / "killed.safetensors.run" / "state.ckpt").exists()
    with pytest.raises(BadInputError, match="unfinished run"):
        train(grey, labels, killed, **settings)
    with pytest.raises(BadInputError, match=r"another clip \(was null, now 2\.0\)"):
        train(grey, labels, killed, resume=True, **settings | {"clip": 2.0})
    with pytest.raises(BadInputError, match="another labels"):
        train(grey, 1 - labels, killed, resume=True, **settings)
    parts = train(grey, labels, killed, resume=True, **settings)
    once = train(grey, labels, whole, **settings)
    assert parts.validations == once.validations
    assert parts.log.read_bytes() == once.log.read_bytes()
    assert parts.scores == once.scores
    assert equal(killed, whole) and equal(parts.last, once.last)
    assert names(tmp_path, "killed") == [
        "killed.last.safetensors",
        "killed.log.csv",
        "killed.safetensors",
    ]
    again = train(grey, labels, killed, resume=True, **settings)
    assert (again.scores.to_dict(), again.steps) == (parts.scores.to_dict(), 8)
    assert [view.origin for view in again.views] == [view.origin for view in parts.views]
    assert equal(killed, whole)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_devices_that_are_killed_resume_too(tmp_path, grey, labels, monkeypatch):
    """Volumes from files and a tied stem, each in the processes of two devices."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fit, "SHORTEST_INTERVAL", 2)
    save_volume("raw.tif", grey)
    save_volume("labels.tif", labels)
    settings = QUICK | {"batch": 4, "devices": 2, "tie": "mirror", "augment": "em", "seed": 3}
    given = {"device": "cpu", **settings}
    with pytest.raises(BadInputError, match="add --resume to continue"):
        train("raw.tif", "labels.tif", "killed.safetensors", on_validation=die_at_4, **given)
    assert (tmp_path / "killed.safetensors.run" / "state.ckpt").exists()
    parts = train("raw.tif", "labels.tif", "killed.safetensors", resume=True, **given)
    once = train("raw.tif", "labels.tif", "whole.safetensors", **given)
    assert equal(parts.path, once.path)
    assert parts.log.read_bytes() == once.log.read_bytes()


def die_at_4(model, steps):
    fit.SHORTEST_INTERVAL = 2
    if steps == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return {}


def test_resuming_needs_a_run(tmp_path, grey, labels):
    with pytest.raises(BadInputError, match="holds no run to resume"):
        train(grey, labels, tmp_path / "m.safetensors", resume=True, **QUICK)
    assert names(tmp_path) == []


def test_force_starts_over_and_a_failed_start_leaves_nothing(tmp_path, grey, labels, monkeypatch):
    out = tmp_path / "m.safetensors"
    for name, left in (("other", []), ("state.ckpt", ["m.safetensors.run"])):

        def stop(training, device, precision, folder, *_, name=name):
            (folder / name).write_bytes(b"state")
            raise KeyboardInterrupt

        monkeypatch.setattr(verb, "fit", stop)
        with pytest.raises(KeyboardInterrupt):
            train(grey, labels, out, **QUICK)
        assert names(tmp_path) == left
    monkeypatch.undo()
    train(grey, labels, out, force=True, **QUICK)
    assert names(tmp_path) == ["m.last.safetensors", "m.log.csv", "m.safetensors"]


@pytest.mark.slow
def test_ctrl_c_stops_at_once_and_leaves_nothing_of_a_run_without_state(tmp_path, grey):
    save_volume(tmp_path / "raw.tif", grey)
    save_volume(tmp_path / "labels.tif", (grey > 128).astype(np.uint8))
    start = (  # what runs in the background ignores Ctrl-C unless it is asked for
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from evenslice.cli.app import main; main()"
    )
    words = ["train", "raw.tif", "labels.tif", "m.safetensors", "--weights", "none"]
    options = ["--encoder-depth", "3", "--crop", "32", "--steps", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-c", start, *words, *options],
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
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == "evenslice: error: interrupted\n"
    assert names(tmp_path) == ["labels.tif", "raw.tif"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "--steps is 0, expected 1 or more"),
        ({"step": 3}, r"--step is unknown, .*did you mean steps"),
        ({"slices": 4}, "expected an odd number"),
        ({"validation": "5:99"}, r"--validation is '5:99', expected a part of 0:9"),
        ({"validation": "0:9"}, "leaves none to train on"),
        ({"encoder": "resnet19"}, "did you mean"),
        ({"lr": 1e30}, "smaller --lr"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_nothing(
    tmp_path, grey, labels, change, message
):
    with pytest.raises(BadInputError, match=message):
        train(grey, labels, tmp_path / "m.safetensors", **QUICK | change)
    assert names(tmp_path) == []


def test_labels_must_fit(tmp_path, grey, labels):
    for wrong, message in [
        (labels[:5], r"has shape \(5, 64, 96\), expected \(9, 64, 96\)"),
        (labels * 100, "--target"),
        (labels * 0, "only the value 0"),
        (labels * 0.5, "fractions"),
    ]:
        with pytest.raises(BadInputError, match=message):
            train(grey, wrong, tmp_path / "m.safetensors", **QUICK)
    with pytest.raises(BadInputError, match="2 volumes and 1 of labels were given"):
        train([grey, grey], labels, tmp_path / "m.safetensors", **QUICK)
    assert names(tmp_path) == []


def test_a_batch_too_small_for_batch_norm_is_refused(tmp_path, grey, labels):
    tiny = {"weights": "none", "steps": 2, "batch": 1, "crop": 32}
    with pytest.raises(BadInputError, match=r"1 patches of \(32, 32\).* larger --batch or --crop"):
        train(grey[:, :32, :32], labels[:, :32, :32], tmp_path / "m.safetensors", **tiny)
    assert names(tmp_path) == []


def test_training_ends_after_validations_without_a_better_dice(tmp_path, grey, labels, monkeypatch):
    monkeypatch.setattr(fit, "SHORTEST_INTERVAL", 1)
    settings = QUICK | {"steps": 9, "validation_runs": 9, "lr": 1e-30, "patience": 1}
    steps = []
    found = train(
        grey,
        labels,
        tmp_path / "m.safetensors",
        on_validation=lambda model, done: steps.append(done) or {"seen": model.module.training},
        **settings,
    )
    first, *rows = found.validations
    assert first == {"steps": 0, "loss": None, "lr": None, "dice": None, "seen": False}
    dice = [row["dice"] for row in rows]
    assert dice.index(max(dice)) == len(dice) - 2
    assert steps == [0, *range(1, len(dice) + 1)]
    assert rows[-1]["steps"] == found.steps == len(dice) < 9
    lines = [line.split(",") for line in found.log.read_text().splitlines()[1:]]
    assert [float(line[3]) for line in lines] == pytest.approx(dice)
    assert [row["lr"] for row in rows] == pytest.approx([float(line[2]) for line in lines])
    assert found.model.training["steps"] <= len(dice)


@pytest.mark.parametrize(
    ("dice", "since"),
    [
        ([0.9, 0.1], 0),
        ([None, 0.5, 0.4], 1),
        ([None, 0.5, 0.5, 0.5], 2),
        ([None, None, 0.0], 1),
        ([None, 0.1, 0.3, 0.2, 0.31], 0),
    ],
)
def test_validations_are_counted_from_where_the_best_was_first_seen(dice, since):
    rows = [{"steps": n, "dice": value} for n, value in enumerate(dice)]
    assert verb.validations_since_best(rows) == since


def test_a_log_is_overwritten_only_with_force(tmp_path, grey, labels):
    (tmp_path / "m.log.csv").write_text("mine")
    with pytest.raises(BadInputError, match=r"m.log.csv exists.*--force"):
        train(grey, labels, tmp_path / "m.safetensors", **QUICK)
    assert (tmp_path / "m.log.csv").read_text() == "mine"


def test_more_devices_than_there_are_are_refused_at_once(tmp_path, grey, labels, monkeypatch):
    for count in (0, 1):
        monkeypatch.setattr("torch.cuda.is_available", lambda count=count: bool(count))
        monkeypatch.setattr("torch.cuda.device_count", lambda count=count: count)
        with pytest.raises(BadInputError, match=f"--devices is 2 and {count} GPUs were found"):
            train(grey, labels, tmp_path / "m.safetensors", devices=2, **QUICK)
    assert names(tmp_path) == []


@pytest.mark.parametrize("init", ["green", "random"])
def test_an_audit_says_which_cause_is_possible(tmp_path, grey, labels, init):
    options = QUICK | {"steps": 1, "init": init}
    model = train(grey, labels, tmp_path / "m.safetensors", **options).model
    (before,) = load_model(tmp_path / "m.safetensors").training["stem_before"]
    assert (before["kernels"][0] > 0.1) is (init == "random")
    found = audit(model, grey, methods=("gradient",), windows=8, tile=32)
    causes = found.to_dict()["causes"]
    if found.verdict == "asymmetric":
        assert causes["before_training"] is (init == "random")
    else:
        assert causes is None
