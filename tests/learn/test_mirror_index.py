"""The callback in somebody else's training: what it logs, and that it changes nothing."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from evenslice import audit, save_volume
from evenslice.errors import BadInputError
from evenslice.learn.callback import MirrorIndexCallback

SMALL = {"windows": 8, "tile": 24, "mean": 128.0, "std": 40.0}


class Theirs(pl.LightningModule):
    """As a user writes one: dropout, batch norm, and random numbers in its forward pass."""

    def __init__(self, slices=3, scale=1.0):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(slices, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Dropout(0.3),
            nn.Conv2d(4, 1, 1),
        )
        self.net[3].weight.requires_grad_(False).mul_(scale)
        self.calls = 0

    def forward(self, x):
        self.calls += not self.training
        torch.rand(1), random.random(), np.random.rand()
        return self.net(x)

    def training_step(self, batch, _):
        x, y = batch
        return nn.functional.binary_cross_entropy_with_logits(
            self(x) * (1 + 0.01 * random.random()), y
        )

    def configure_optimizers(self):
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=1e-2)


@pytest.fixture
def volume(grey):
    return np.concatenate([grey, grey[::-1] // 2 + 40])


def batches(slices=3):
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(12, slices, 16, 16, generator=draw)
    return DataLoader(TensorDataset(x, (x[:, -1:] > 0).float()), batch_size=2, shuffle=True)


def fit(folder, *callbacks, slices=3, scale=1.0, epochs=2, **options):
    """Train from one seed; return the module and the trainer."""
    pl.seed_everything(7, verbose=False)
    theirs = Theirs(slices, scale)
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=CSVLogger(folder / "log", name="", version=""),
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,
    )
    trainer.fit(theirs, batches(slices))
    return theirs, trainer


pytestmark = pytest.mark.filterwarnings(  # of Lightning itself
    "ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning",
    "ignore:.*LeafSpec:FutureWarning",
)


def random_states():
    """Every random state there is on a CPU."""
    return [
        random.getstate(),
        str(np.random.get_state(legacy=False)),
        torch.get_rng_state().tolist(),
    ]


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 3}])
def test_the_weights_come_out_bit_for_bit_as_without_it(tmp_path, volume, options):
    plain, _ = fit(tmp_path / "plain", **options)
    states = random_states()
    watcher = MirrorIndexCallback(volume, every_n_steps=1, **SMALL)
    watched, _ = fit(tmp_path / "watched", watcher, **options)
    assert states == random_states()
    assert watched.calls > 0 and len(watcher.history) == 1 + (4 if options else 12)
    assert all(
        torch.equal(a, b)
        for a, b in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True)
    )
    assert [p.requires_grad for p in watched.parameters()] == [
        p.requires_grad for p in plain.parameters()
    ]
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None) and (
            one.grad is None or torch.equal(one.grad, other.grad)
        )
    assert [m.training for m in watched.modules()] == [m.training for m in plain.modules()]


def test_it_logs_once_an_epoch_and_before_the_first_step(tmp_path, volume):
    watcher = MirrorIndexCallback(volume, prefix="slices/", **SMALL)
    fit(tmp_path, watcher)
    assert [(row["step"], row["epoch"]) for row in watcher.history] == [(0, 0), (6, 0), (12, 1)]
    table = np.genfromtxt(tmp_path / "log" / "metrics.csv", delimiter=",", names=True)
    assert table["step"].tolist() == [0, 6, 12]
    for name in ("mirror_index", "mirror_low", "mirror_high", "share_0", "share_1", "share_2"):
        np.testing.assert_allclose(
            table[f"slices{name}"], [row[name] for row in watcher.history], rtol=1e-6
        )
    assert all(
        row["mirror_low"] <= row["mirror_index"] <= row["mirror_high"] for row in watcher.history
    )
    assert watcher.history[0]["mirror_index"] != watcher.history[-1]["mirror_index"]


def test_it_finds_what_an_audit_finds(tmp_path, volume):
    save_volume(tmp_path / "raw.tif", volume)
    watcher = MirrorIndexCallback(
        tmp_path / "raw.tif", module=lambda theirs: theirs.net, seed=3, **SMALL
    )
    theirs, _ = fit(tmp_path, watcher)
    options = {"windows": 8, "tile": 24, "mean": [128.0], "std": [40.0], "seed": 3}
    found = audit(theirs.net, volume, methods=["gradient"], **options).methods["gradient"]
    last = watcher.history[-1]
    assert last["mirror_index"] == pytest.approx(found.index.value, abs=1e-6)
    assert last["mirror_low"] == pytest.approx(found.index.low, abs=1e-6)
    assert [last[f"share_{s}"] for s in range(3)] == pytest.approx(
        [s.value for s in found.shares], abs=1e-6
    )
    assert theirs.calls == 0, "the named module alone is measured"


def test_five_slices_and_half_precision(tmp_path, volume):
    watcher = MirrorIndexCallback(volume, every_n_steps=100, **SMALL)
    theirs, _ = fit(tmp_path, watcher, slices=5, epochs=1, precision="64-true")
    assert theirs.net[0].weight.dtype == torch.float64
    assert [row["step"] for row in watcher.history] == [0, 6], "in the end too"
    assert {"mirror_pair_1", "mirror_pair_2", "share_4"} <= set(watcher.history[0])


def test_too_few_blocks_leave_the_interval_out(tmp_path, volume):
    watcher = MirrorIndexCallback(volume, **SMALL | {"windows": 1})
    fit(tmp_path, watcher, epochs=1)
    assert "mirror_low" not in watcher.history[0] and "mirror_index" in watcher.history[0]


@pytest.mark.filterwarnings("default:the mirror index:UserWarning")
def test_a_network_without_importance_is_trained_on(tmp_path, volume):
    watcher = MirrorIndexCallback(volume, **SMALL)
    with pytest.warns(UserWarning, match="not measured at step 0: no window has any importance"):
        _, trainer = fit(tmp_path, watcher, scale=0.0, epochs=1)
    assert watcher.history == [] and trainer.global_step == 6


def test_the_history_continues_after_a_checkpoint(tmp_path, volume):
    watcher = MirrorIndexCallback(volume, **SMALL)
    _, trainer = fit(tmp_path, watcher, epochs=1)
    trainer.save_checkpoint(tmp_path / "state.ckpt")
    again = MirrorIndexCallback(volume, **SMALL)
    later = pl.Trainer(
        max_epochs=2,
        callbacks=[again],
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    later.fit(Theirs(), batches(), ckpt_path=tmp_path / "state.ckpt")
    assert [row["step"] for row in again.history] == [0, 6, 12]
    assert again.history[:2] == watcher.history


def test_what_cannot_be_measured_is_refused_when_training_starts(tmp_path, volume):
    with pytest.raises(BadInputError, match=r"Linear: .*does not run"):
        fit(tmp_path, MirrorIndexCallback(volume, module=lambda _: nn.Linear(3, 3)))
    with pytest.raises(BadInputError, match="Conv2d sees one slice"):
        fit(tmp_path, MirrorIndexCallback(volume, module=lambda _: nn.Conv2d(1, 1, 1)))
    for options, words in (
        ({"method": "guess"}, "unknown"),
        ({"mean": 1.0}, "only one of mean and std"),
        ({"every_n_steps": 0}, "every_n_steps is 0, expected 1 or more"),
    ):
        with pytest.raises(BadInputError, match=words):
            fit(tmp_path, MirrorIndexCallback(volume, **options))


def test_weights_sharded_over_devices_are_refused(volume):
    class FSDPStrategy:
        pass

    class Trainer:
        strategy = FSDPStrategy()

    with pytest.raises(BadInputError, match="sharded over devices"):
        MirrorIndexCallback(volume).on_train_start(Trainer(), None)


def test_only_the_first_device_measures(volume):
    class Trainer:
        strategy, is_global_zero, global_step = object(), False, 1

    watcher = MirrorIndexCallback(volume, every_n_steps=1)
    watcher.on_train_start(Trainer(), None)
    watcher.on_train_batch_end(Trainer(), None)
    watcher.on_train_end(Trainer(), None)
    assert watcher.history == []


SCRIPT = """
import sys
import numpy as np
import pytorch_lightning as pl
import torch
sys.path.insert(0, sys.argv[1])
from test_mirror_index import Theirs, batches
from evenslice.learn.callback import MirrorIndexCallback

class Counting(MirrorIndexCallback):
    def on_train_end(self, trainer, *rest):
        super().on_train_end(trainer, *rest)
        with open(sys.argv[2] + "/counts", "a") as counts:
            counts.write(f"{trainer.global_rank}:{len(self.history)} ")

if __name__ == "__main__":
    for watched in (False, True):
        pl.seed_everything(7)
        volume = np.random.default_rng(0).integers(0, 255, (12, 64, 96)).astype(np.uint8)
        watcher = Counting(volume, every_n_steps=1, windows=8, tile=24)
        trainer = pl.Trainer(max_epochs=1, accelerator="cpu", devices=2, strategy="ddp_spawn",
                             logger=False, callbacks=[watcher] * watched,
                             default_root_dir=sys.argv[2])
        theirs = Theirs()
        trainer.fit(theirs, batches())
        trainer.save_checkpoint(sys.argv[2] + f"/{watched}.ckpt")
"""


@pytest.mark.slow
def test_two_devices_train_as_without_it(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    words = [sys.executable, str(tmp_path / "script.py"), str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    assert sorted((tmp_path / "counts").read_text().split()) == ["0:4", "1:0"], (
        "the first measures, the other does not"
    )
    plain, watched = (
        torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in (False, True)
    )
    assert all(
        torch.equal(value, watched["state_dict"][name])
        for name, value in plain["state_dict"].items()
    )
