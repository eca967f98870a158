"""Fitting a tiny network: a resumed run equals an uninterrupted one, several devices equal one."""

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
from evenslice.learn.fit import (
    BUFFERED,
    LOG,
    STATE,
    ValidationResult,
    check_devices,
    fit,
    trim_log,
    validation_interval,
)
from evenslice.learn.losses import segmentation_loss
from evenslice.learn.module import Training
from evenslice.learn.multi_volume import MultiVolume, find_class_locations
from evenslice.learn.patches import PatchSource
from evenslice.model.build import build_model
from evenslice.model.spec import ExternalSpec, Model
from evenslice.options import TrainOptions
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation

CPU = torch.device("cpu")
RAW = np.random.default_rng(0).integers(0, 255, (6, 40, 48)).astype(np.uint8)
LABELS = np.digitize(RAW, [100, 200]).astype(np.uint8)
QUICK = {"steps": 8, "batch": 2, "crop": 32}


def multi_volume(options, classes=1):
    target = Target("foreground" if classes == 1 else "classes", classes)
    sources = tuple(
        PatchSource(
            Volume(RAW[cut]),
            Volume(LABELS[cut]),
            (0, 1, 2),
            3,
            (options.crop, options.crop),
            target,
            Normalisation((127.0,), (70.0,)),
            options.augment_reversal,
            options.z_order == "reversed",
            turns=options.augment != "none",
            em=options.em if options.augment == "em" else None,
        )
        for cut in (slice(None), slice(1, 5))
    )
    locations = find_class_locations(sources, 0) if options.balance else None
    return MultiVolume(sources, locations, options.balance)


class Plain(nn.Sequential):
    """No batch norm, so that parts of a batch are as good as all of it; one layer is unused."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))
        self.unused = [nn.Linear(2, 2)]
        self.register_module("spare", self.unused[0])

    def forward(self, x):
        return self[2](self[1](self[0](x)))


def training(options, classes=1, interval=2, network=None):
    torch.manual_seed(3)
    network = network or nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Conv2d(4, classes, 1)
    )
    model = Model(network, ExternalSpec("callable", "toy", 3, classes, 3), stride=1)
    return Training(model, multi_volume(options, classes), options, interval)


def run(
    folder, options, classes=1, stop_at=None, precision="fp32", interval=2, result=lambda *_: None
):
    """Train, up to a Ctrl-C before step ``stop_at``; return weights and what validations saw."""
    folder.mkdir(exist_ok=True)
    made, rows = training(options, classes, interval), []
    step = made.training_step

    def interrupted(batch, batch_idx):
        if made.done == stop_at:
            raise KeyboardInterrupt
        return step(batch, batch_idx)

    def validate(_, *values):
        rows.append(values)
        return result(*values) or ValidationResult(0.5)

    made.training_step = interrupted
    if stop_at is None:
        fit(made, CPU, precision, folder, validate)
    else:
        with pytest.raises(KeyboardInterrupt):
            fit(made, CPU, precision, folder, validate)
    return made.network.state_dict(), rows


def same(one, two):
    return all(torch.equal(one[key], two[key]) for key in one)


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
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, settings, classes, stop_at):
    options = TrainOptions(**QUICK | settings)
    whole, rows = run(tmp_path / "whole", options, classes)
    _, before = run(tmp_path / "cut", options, classes, stop_at=stop_at)
    parts, after = run(tmp_path / "cut", options, classes)
    assert same(whole, parts)
    assert before + after == rows
    assert [steps for steps, _, _ in rows] == [2, 4, 6, 8]
    logs = [(tmp_path / name / LOG).read_text() for name in ("whole", "cut")]
    assert logs[0] == logs[1]
    assert len(logs[0].splitlines()) == 9


@pytest.mark.parametrize(
    ("freeze", "tie", "kept", "statistics_move"),
    [
        ("none", "mirror", (), True),
        ("stem", "mirror", ("encoder.model.conv1.",), True),
        ("encoder", "none", ("encoder.",), False),
        ("encoder", "mirror", ("encoder.",), False),
    ],
)
def test_frozen_parts_are_bit_equal_after_training(tmp_path, freeze, tie, kept, statistics_move):
    model = build_model("unet", "resnet18", weights="none", encoder_depth=2, tie=tie)
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    options = TrainOptions(**QUICK | {"steps": 4, "freeze": freeze, "weight_decay": 0.5})
    made = Training(model, multi_volume(options), options, 2)

    def validate(training, *_):
        training.network.train()  # as after every validation run
        return ValidationResult(0.5)

    fit(made, CPU, "fp32", tmp_path, validate)
    changed = {k for k, v in made.network.state_dict().items() if not torch.equal(v, before[k])}
    assert any(key.startswith("decoder.") for key in changed)
    frozen = {key for key in before if key.startswith(kept)}
    assert bool(frozen) == (freeze != "none")
    assert not changed & frozen
    assert ("encoder.model.bn1.running_mean" in changed) == statistics_move
    stem = {key for key in before if key.startswith("encoder.model.conv1.")}
    assert bool(changed & stem) == (freeze == "none")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_resumes_with_its_scale(tmp_path, monkeypatch, precision):
    if precision == "fp16":  # Lightning has it on GPUs only; the state is the same here
        made = pl.Trainer

        def trainer(**options):
            scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
            plugins = [*options["plugins"], MixedPrecision("16-mixed", "cpu", scaler)]
            return made(**options | {"precision": None, "plugins": plugins})

        monkeypatch.setattr(engine.pl, "Trainer", trainer)
    options = TrainOptions(**QUICK, clip=0.5)
    whole, _ = run(tmp_path / "whole", options, precision=precision)
    run(tmp_path / "cut", options, precision=precision, stop_at=5)
    scale = torch.load(tmp_path / "cut" / STATE, weights_only=True)["scaling"].get("scale")
    assert scale == (32.0 if precision == "fp16" else None)
    parts, _ = run(tmp_path / "cut", options, precision=precision)
    assert same(whole, parts)
    states = [
        torch.load(tmp_path / name / STATE, weights_only=True)["scaling"]
        for name in ("whole", "cut")
    ]
    assert states[0] == states[1]
    monkeypatch.undo()
    assert not same(whole, run(tmp_path / "fp32", options)[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_defaults_train_bit_for_bit_as_this_loop(tmp_path, precision):
    """Seeds keep their meaning: patches, dropout, rates and weights of old runs come out again."""
    options = TrainOptions(**QUICK, seed=5)
    made = training(options, interval=3)
    optimiser = torch.optim.AdamW(made.network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=8)
    for done in range(8):
        if done % 3 == 0:
            torch.manual_seed(5 * 1_000_003 + done)
            patches = [made.source.patch(5, 2 * done + i) for i in range(6)]
            epoch = iter(DataLoader(patches, batch_size=2))  # draws a seed, too
            if done == 0:
                torch.manual_seed(5 * 1_000_003)
        windows, target = next(epoch)
        with torch.autocast(
            "cpu", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False
        ):
            loss = segmentation_loss(made.network(windows).float(), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    weights, _ = run(tmp_path / "a", options, interval=3, precision=precision)
    assert same(made.network.state_dict(), weights)


CHANGES = [
    {"clip": 1e-3},
    {"schedule": "cosine"},
    {"weight_decay": 1.0},
    {"loss": "dice"},
    {"class_weights": [1.0, 9.0]},
    {"augment": "em"},
    {"augment": "none"},
    {"balance": 1.0},
    {"augment_reversal": True},
    {"z_order": "reversed"},
    {"seed": 1},
]


def test_every_setting_matters(tmp_path):
    options = {**QUICK, "steps": 2}
    plain, _ = run(tmp_path / "plain", TrainOptions(**options))
    for number, change in enumerate(CHANGES):
        changed, _ = run(tmp_path / str(number), TrainOptions(**options | change))
        assert not same(plain, changed), change


def test_a_clipped_gradient_is_no_longer_than_requested(tmp_path, monkeypatch):
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


def test_validations_know_the_rate_and_the_log_every_one(tmp_path):
    options = TrainOptions(**QUICK, schedule="cosine", warmup=0.5, lr=0.4)
    _, seen = run(tmp_path / "a", options)
    rows = [line.split(",") for line in (tmp_path / "a" / LOG).read_text().splitlines()[1:]]
    rates = [0.1, 0.2, 0.3, 0.4] + [0.2 * (1 + math.cos(math.pi * t / 4)) for t in range(4)]
    assert [float(row[2]) for row in rows] == pytest.approx(rates)
    assert [rate for _, _, rate in seen] == pytest.approx(rates[1::2])
    losses = [float(row[1]) for row in rows]
    assert [loss for _, loss, _ in seen] == pytest.approx(np.reshape(losses, (4, 2)).mean(1))
    assert [row[3] for row in rows] == ["", "0.5"] * 4


def test_a_validation_may_stop_the_training_for_good(tmp_path):
    options = TrainOptions(**QUICK)
    weights, rows = run(
        tmp_path / "a", options, result=lambda steps, *_: ValidationResult(0.1, steps == 4)
    )
    assert [steps for steps, _, _ in rows] == [2, 4]
    again, more = run(tmp_path / "a", options)
    assert more == []
    assert same(weights, again)
    assert len((tmp_path / "a" / LOG).read_text().splitlines()) == 5


def test_a_loss_that_is_no_number_is_refused_before_anything_is_kept(tmp_path):
    with pytest.raises(BadInputError, match=r"the loss became nan at step \d.*smaller --lr"):
        run(tmp_path / "a", TrainOptions(**QUICK | {"lr": 1e30, "schedule": "constant"}))
    assert not (tmp_path / "a" / STATE).exists()


def test_a_damaged_state_is_refused(tmp_path):
    (tmp_path / STATE).write_bytes(b"state")
    with pytest.raises(BadInputError, match=r"state.ckpt cannot be read .*--force"):
        run(tmp_path, TrainOptions(**QUICK))


def test_variables_of_a_cluster_are_ignored(tmp_path, monkeypatch):
    for name, value in {"NTASKS": 4, "NTASKS_PER_NODE": 4, "JOB_ID": 7, "PROCID": 2}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SLURM_JOB_NAME", "study")
    _, rows = run(tmp_path / "a", TrainOptions(**QUICK | {"steps": 2}))
    assert len(rows) == 1


@pytest.mark.parametrize(("steps", "runs", "expected"), [(1000, 4, 250), (90, 4, 50), (9, 4, 9)])
def test_validation_runs_are_at_least_50_steps_apart(steps, runs, expected):
    assert validation_interval(steps, runs) == expected


def test_several_processors_must_be_requested_by_name():
    check_devices(1, CPU, "auto")
    check_devices(2, CPU, "cpu")
    with pytest.raises(BadInputError, match=r"--devices is 2 and 0 GPUs were found.*--device cpu"):
        check_devices(2, CPU, "auto")
    with pytest.raises(BadInputError, match=r"--devices is 10000 for processes on \d+ processor"):
        check_devices(10_000, CPU, "cpu")


def stop_at_6(_, steps, *__):
    return ValidationResult(0.1, stop=steps == 6)


def fail(_, steps, *__):
    raise BadInputError(f"broken after {steps}")


def on_devices(folder, options, validate):
    folder.mkdir()
    torch.manual_seed(0)
    made = training(options, interval=3, network=Plain())
    fit(made, CPU, "fp32", folder, validate)
    losses = [float(row.split(",")[1]) for row in (folder / LOG).read_text().splitlines()[1:]]
    return made.network.state_dict(), losses


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_devices_train_as_one_where_nothing_depends_on_the_batch(tmp_path):
    options = TrainOptions(steps=9, batch=4, crop=32, loss="ce", augment="em", clip=0.5, devices=2)
    alone = options.model_copy(update={"devices": 1})
    one, losses = on_devices(tmp_path / "one", alone, stop_at_6)
    two, others = on_devices(tmp_path / "two", options, stop_at_6)
    assert all(torch.allclose(one[key], two[key], rtol=1e-5, atol=1e-6) for key in one)
    assert others == pytest.approx(losses, rel=1e-5)
    assert len(losses) == 6  # all devices stop together
    with pytest.raises(BadInputError, match=r"^broken after 3$"):
        on_devices(tmp_path / "broken", options, fail)
    with pytest.raises(BadInputError, match=r"cannot be sent to the processes .*give its path"):
        on_devices(tmp_path / "local", options, lambda *_: ValidationResult(0.1))


TEXT = "steps,loss,lr,dice\n1,0.5,0.001,\n2,0.333333333,0.002,0.25\n3,0.1,1e-09,\n4,0,0,1\n"


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        (TEXT, 3),
        (TEXT[:-3], 3),
        (TEXT.replace("\n3,0", "\n30,0"), 3),
        (TEXT[: TEXT.index("\n3") + 2], 3),
        (TEXT[: TEXT.index("\n3")], 2),  # the second row is cut
        ("old", 1),
    ],
)
def test_a_log_is_trimmed_to_the_steps_of_the_state(tmp_path, left, kept):
    (tmp_path / "log.csv").write_text(left)
    trim_log(tmp_path / "log.csv", 2)
    assert (tmp_path / "log.csv").read_text() == "".join(TEXT.splitlines(keepends=True)[:kept])


@pytest.mark.parametrize("steps", [BUFFERED - 1, BUFFERED, 2 * BUFFERED + 1])
def test_a_log_has_one_row_per_step_and_is_written_now_and_then(tmp_path, steps):
    written = []

    def count(*_):
        written.append(len((tmp_path / LOG).read_text().splitlines()) - 1)
        return ValidationResult(0.25)

    made = training(TrainOptions(**QUICK | {"steps": steps}), interval=steps)
    fit(made, CPU, "fp32", tmp_path, count)
    rows = [line.split(",") for line in (tmp_path / LOG).read_text().splitlines()[1:]]
    assert [int(row[0]) for row in rows] == list(range(1, steps + 1))
    assert [row[3] for row in rows] == [*[""] * (steps - 1), "0.25"]
    assert written == [steps - 1 - (steps - 1) % BUFFERED]
