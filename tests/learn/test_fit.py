"""Fitting a tiny network: going on equals never having stopped, for every setting that has a state."""

import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader

from evenslice.errors import BadInputError
from evenslice.labels.targets import Target
from evenslice.learn import fit as engine
from evenslice.learn.fit import LOG, STATE, Seen, fit
from evenslice.learn.losses import segmentation_loss
from evenslice.learn.module import Training
from evenslice.learn.multi_volume import Mixture, find_occurrences
from evenslice.learn.patches import Patches, PatchSource
from evenslice.options import TrainOptions
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation

CPU = torch.device("cpu")
RAW = np.random.default_rng(0).integers(0, 255, (6, 40, 48)).astype(np.uint8)
LABELS = np.digitize(RAW, [100, 200]).astype(np.uint8)
QUICK = {"steps": 8, "batch": 2, "crop": 32}


def mixture(recipe, classes=1):
    target = Target("foreground" if classes == 1 else "classes", classes)
    sources = tuple(
        PatchSource(
            Volume(RAW[cut]),
            Volume(LABELS[cut]),
            (0, 1, 2),
            3,
            (recipe.crop, recipe.crop),
            target,
            Normalisation((127.0,), (70.0,)),
            recipe.reverse_z,
            turns=recipe.augment != "none",
            em=recipe.em if recipe.augment == "em" else None,
        )
        for cut in (slice(None), slice(1, 5))
    )
    return Mixture(
        sources, find_occurrences(sources, 0) if recipe.balance else None, recipe.balance
    )


def training(recipe, classes=1, chunk=2):
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Conv2d(4, classes, 1)
    )
    return Training(network, 1, mixture(recipe, classes), recipe, chunk)


def run(folder, recipe, classes=1, stop_at=None, precision="fp32", chunk=2, look=None):
    """Train; ``stop_at``: as if killed just before that step. Return the weights and what the looks saw."""
    folder.mkdir(exist_ok=True)
    made, looks = training(recipe, classes, chunk), []
    step = made.training_step

    def dying(batch, batch_idx):
        if made.done == stop_at:
            raise KeyboardInterrupt
        return step(batch, batch_idx)

    made.training_step = dying

    def seen(*values):
        looks.append(values)
        return Seen(0.5) if look is None else look(*values)

    if stop_at is None:
        fit(made, CPU, precision, folder, seen)
    else:
        with pytest.raises(KeyboardInterrupt):
            fit(made, CPU, precision, folder, seen)
    return made.network.state_dict(), looks


def assert_same(one, two):
    assert all(torch.equal(one[key], two[key]) for key in one)


def differ(one, two):
    return not all(torch.equal(one[key], two[key]) for key in one)


SETTINGS = [
    ({}, 1),
    ({"schedule": "cosine", "clip": 0.1, "augment": "em", "balance": 0.5, "reverse_z": True}, 3),
    (
        {
            "schedule": "constant",
            "weight_decay": 0.5,
            "loss": "bce",
            "class_weights": [1.0, 3.0],
            "augment": "none",
        },
        1,
    ),
]


@pytest.mark.parametrize(("settings", "classes"), SETTINGS)
@pytest.mark.parametrize("stop_at", [3, 4])
def test_going_on_equals_never_having_stopped(tmp_path, settings, classes, stop_at):
    recipe = TrainOptions(**QUICK | settings)
    whole, looks = run(tmp_path / "whole", recipe, classes)
    _, before = run(tmp_path / "cut", recipe, classes, stop_at=stop_at)
    parts, after = run(tmp_path / "cut", recipe, classes)
    assert_same(whole, parts)
    assert before + after == looks
    assert [steps for steps, _, _ in looks] == [2, 4, 6, 8]
    logs = [(tmp_path / name / LOG).read_text() for name in ("whole", "cut")]
    assert logs[0] == logs[1]
    assert len(logs[0].splitlines()) == 9


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_goes_on_with_its_scale(tmp_path, monkeypatch, precision):
    if precision == "fp16":  # Lightning has it on GPUs only; the state is the same here
        made = pl.Trainer

        def trainer(**options):
            scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
            plugins = [*options["plugins"], MixedPrecision("16-mixed", "cpu", scaler)]
            return made(**options | {"precision": None, "plugins": plugins})

        monkeypatch.setattr(engine.pl, "Trainer", trainer)
    recipe = TrainOptions(**QUICK, clip=0.5)
    whole, _ = run(tmp_path / "whole", recipe, precision=precision)
    run(tmp_path / "cut", recipe, precision=precision, stop_at=5)
    scale = torch.load(tmp_path / "cut" / STATE, weights_only=True)["scaling"].get("scale")
    assert scale == (32.0 if precision == "fp16" else None)
    parts, _ = run(tmp_path / "cut", recipe, precision=precision)
    assert_same(whole, parts)
    states = [
        torch.load(tmp_path / name / STATE, weights_only=True)["scaling"]
        for name in ("whole", "cut")
    ]
    assert states[0] == states[1]
    monkeypatch.undo()
    assert differ(whole, run(tmp_path / "fp32", recipe)[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_defaults_train_bit_for_bit_as_this_loop(tmp_path, precision):
    """Seeds keep their meaning: patches, dropout, rates and weights of old runs come out again."""
    recipe = TrainOptions(**QUICK, seed=5)
    made = training(recipe, chunk=3)
    optimiser = torch.optim.AdamW(made.network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=8)
    for done in range(8):
        if done % 3 == 0:
            torch.manual_seed(5 * 1_000_003 + done)
            stretch = iter(
                DataLoader(Patches(made.source, 5, 2 * done, 6), batch_size=2)
            )  # draws a seed, too
            if done == 0:
                torch.manual_seed(5 * 1_000_003)
        windows, target = next(stretch)
        with torch.autocast(
            "cpu", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False
        ):
            loss = segmentation_loss(made.network(windows).float(), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    weights, _ = run(tmp_path / "a", recipe, chunk=3, precision=precision)
    assert_same(made.network.state_dict(), weights)


def test_the_defaults_are_the_settings_of_old(tmp_path):
    plain, _ = run(tmp_path / "a", TrainOptions(**QUICK))
    named = {
        "schedule": "one-cycle",
        "weight_decay": 0.01,
        "clip": None,
        "loss": "ce+dice",
        "balance": 0.0,
    }
    spelled, _ = run(
        tmp_path / "b",
        TrainOptions(**QUICK | named, augment="flips", devices=1, class_weights=None),
    )
    assert_same(plain, spelled)


CHANGES = [
    {"clip": 1e-3},
    {"schedule": "cosine"},
    {"weight_decay": 1.0},
    {"loss": "dice"},
    {"class_weights": [1.0, 9.0]},
    {"augment": "em"},
    {"augment": "none"},
    {"balance": 1.0},
    {"reverse_z": True},
    {"seed": 1},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_setting_matters(tmp_path, change):
    recipe = {**QUICK, "steps": 2}
    assert differ(
        run(tmp_path / "a", TrainOptions(**recipe))[0],
        run(tmp_path / "b", TrainOptions(**recipe | change))[0],
    )


def test_a_clipped_gradient_is_no_longer_than_asked(tmp_path, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def watched(self, closure=None):
        loss = closure()
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.linalg.vector_norm(torch.stack([g.norm() for g in grads]))))
        return step(self, lambda: loss)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    run(tmp_path / "free", TrainOptions(**QUICK, schedule="constant"))
    free = norms.copy()
    norms.clear()
    run(tmp_path / "clipped", TrainOptions(**QUICK, schedule="constant", clip=min(free) / 2))
    assert norms == pytest.approx([min(free) / 2] * 8, rel=1e-3)


def test_looks_know_the_rate_and_the_log_every_one(tmp_path):
    recipe = TrainOptions(**QUICK, schedule="cosine", warmup=0.5, lr=0.4)
    _, looks = run(tmp_path / "a", recipe)
    rows = [line.split(",") for line in (tmp_path / "a" / LOG).read_text().splitlines()[1:]]
    rates = [0.1, 0.2, 0.3, 0.4] + [0.2 * (1 + math.cos(math.pi * t / 4)) for t in range(4)]
    assert [float(row[2]) for row in rows] == pytest.approx(rates)
    assert [rate for _, _, rate in looks] == pytest.approx(rates[1::2])
    losses = [float(row[1]) for row in rows]
    assert [loss for _, loss, _ in looks] == pytest.approx(np.reshape(losses, (4, 2)).mean(1))
    assert [row[3] for row in rows] == ["", "0.5"] * 4


def test_training_ends_where_a_look_says_so_and_does_not_go_on(tmp_path):
    recipe = TrainOptions(**QUICK)
    weights, looks = run(tmp_path / "a", recipe, look=lambda steps, *_: Seen(0.1, stop=steps == 4))
    assert [steps for steps, _, _ in looks] == [2, 4]
    again, more = run(tmp_path / "a", recipe)
    assert more == []
    assert_same(weights, again)
    assert len((tmp_path / "a" / LOG).read_text().splitlines()) == 5


def test_a_loss_that_is_no_number_is_said_before_anything_is_kept(tmp_path):
    with pytest.raises(BadInputError, match=r"the loss became nan at step \d.*smaller --lr"):
        run(tmp_path / "a", TrainOptions(**QUICK | {"lr": 1e30, "schedule": "constant"}))
    assert not (tmp_path / "a" / STATE).exists()


def test_what_a_cluster_says_of_its_tasks_is_not_looked_at(tmp_path, monkeypatch):
    for name, value in {
        "SLURM_NTASKS": "4",
        "SLURM_NTASKS_PER_NODE": "4",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "study",
        "SLURM_PROCID": "2",
        "SLURM_LOCALID": "2",
        "SLURM_NODEID": "0",
        "SLURM_JOB_NUM_NODES": "1",
    }.items():
        monkeypatch.setenv(name, value)
    _, looks = run(tmp_path / "a", TrainOptions(**QUICK))
    assert len(looks) == 4
