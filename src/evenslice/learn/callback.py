"""A Lightning callback that logs how much each slot counts while a model trains."""

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from evenslice.errors import BadInputError
from evenslice.evidence.attribution import check_methods
from evenslice.evidence.measure import importance_by
from evenslice.evidence.model_on_volume import ModelOnVolume, explaining
from evenslice.evidence.result import MethodResult
from evenslice.evidence.sampling import Raw, SampledWindow, draw_windows, read_windows
from evenslice.evidence.summary import method_result
from evenslice.model.external import wrap_external
from evenslice.model.logits import Wrapper
from evenslice.model.opening import given_normalisation
from evenslice.model.predict import device_of
from evenslice.options import JsonObject
from evenslice.volume.inputs import VolumeLike, volume_of
from evenslice.volume.normalisation import estimate

Numbers = float | Sequence[float] | None
MARGIN = 0.05  # of a verdict, which is not logged
SHARDED = ("FSDP", "DeepSpeed", "ModelParallel")


class MirrorIndexCallback(pl.Callback):  # type: ignore[misc]
    """Log the mirror index and the share of every slot while a model trains.

    It measures before the first step, every so often, and at the end, and logs to every logger of
    the trainer: ``mirror_index``, ``mirror_low``, ``mirror_high`` (its interval, from 6 blocks of
    volume), ``share_0``, ``share_1``, ...; for more than three slices ``mirror_pair_1``, ... too.
    ``history`` holds the same with ``step`` and ``epoch``. Always on the same windows, each with
    its reversal.

    A measurement costs ``windows`` windows and their reversals forward and backward once (about a
    few training steps), on the first device only; the other ones wait. Modes, gradients and random
    states are restored, so the weights come out as without it, bit for bit.

    Parameters
    ----------
    volume
        A path, an array (z, y, x) or a Volume to measure on, raw.
    slices
        S; None for the first of 3, 5, 7, 9 that the network takes.
    mean, std
        Normalisation of the training, in raw intensity units, one number or S; None for that of the
        volume.
    every_n_steps
        Optimiser steps between two measurements; None for one at the end of every epoch.
    windows, tile, seed
        How many windows, their side in pixels, and the seed of them and of the bootstrap.
    method, confidence
        An attribution method of ``evenslice.audit``; confidence of the interval.
    module
        What to explain: given the LightningModule, returns the network, which takes (B, S, y, x);
        None for the LightningModule itself.
    prefix
        Put before every name that is logged, for example ``"slices/"``.
    at_once
        Windows and reversals that go through the network together.

    Raises
    ------
    BadInputError
        When training starts: if something given cannot be used, or the weights are sharded over
        devices (FSDP, DeepSpeed).
    """

    def __init__(
        self,
        volume: VolumeLike,
        *,
        slices: int | None = None,
        mean: Numbers = None,
        std: Numbers = None,
        every_n_steps: int | None = None,
        windows: int = 12,
        tile: int = 128,
        method: str = "gradient",
        module: Callable[[Any], nn.Module] | None = None,
        prefix: str = "",
        at_once: int = 8,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if every_n_steps is not None and every_n_steps < 1:
            raise BadInputError(
                f"every_n_steps is {every_n_steps}, expected 1 or more, or None for once an epoch"
            )
        self.volume, self.slices, self.mean, self.std = volume, slices, mean, std
        self.every_n_steps, self.method = every_n_steps, method
        self.windows, self.tile = windows, tile
        self.module, self.prefix, self.at_once = module, prefix, at_once
        self.confidence, self.seed = confidence, seed
        self.history: list[dict[str, float]] = []
        self._scene: ModelOnVolume | None = None
        self._parts: list[tuple[SampledWindow, Raw]] = []

    def state_dict(self) -> JsonObject:
        """Return the history, for the checkpoint."""
        return {"history": [dict(row) for row in self.history]}

    def load_state_dict(self, state: JsonObject) -> None:
        """Take the history of a checkpoint."""
        self.history = [dict(row) for row in state["history"]]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the windows, and measure before the first step."""
        name = type(trainer.strategy).__name__
        if any(kind in name for kind in SHARDED):
            raise BadInputError(
                f"the weights are sharded over devices ({name}), expected a strategy that keeps "
                "them whole, such as ddp; leave the callback out"
            )
        if trainer.is_global_zero:
            network = pl_module if self.module is None else self.module(pl_module)
            with _undisturbed(network):
                self._scene, self._parts = self._prepared(network)
            self._log(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Measure every ``every_n_steps`` steps."""
        if self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0:
            self._log(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Measure, unless that is done by steps."""
        if self.every_n_steps is None:
            self._log(trainer)

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Measure a last time, and release the network."""
        self._log(trainer)
        self._scene, self._parts = None, []

    def _prepared(
        self, network: nn.Module
    ) -> tuple[ModelOnVolume, list[tuple[SampledWindow, Raw]]]:
        """Find out how the network is called, and read the windows."""
        volume = volume_of(self.volume)
        model = wrap_external(network, "callable", type(network).__name__, self.slices)
        if model.spec.classes == 0 or model.slices == 1:
            found = "sees one slice"
            if model.spec.classes == 0:
                found = "returns no prediction (B, classes, y, x)"
            raise BadInputError(
                f"{type(network).__name__} {found}, expected a network that segments stacks; "
                "return it from module=..."
            )
        check_methods((self.method,), model.slices, True)
        given = [None if n is None else np.atleast_1d(n).tolist() for n in (self.mean, self.std)]
        norm = given_normalisation(given[0], given[1], model.slices)
        own = estimate(volume, self.seed)
        sampled = draw_windows(
            volume, model.slices, self.tile, self.windows, self.seed, model.stride, model.size
        )
        scene = ModelOnVolume(
            module=_AsFloat(model.module),
            stride=model.stride,
            slices=model.slices,
            volume=volume,
            normalisation=norm or own,
            baseline=own.mean[0],
            device=device_of(network),
            batch=self.at_once,
        )
        return scene, list(read_windows(volume, model.slices, sampled))

    def _log(self, trainer: pl.Trainer) -> None:
        """Measure and log, once per step, on the first device only."""
        step = int(trainer.global_step)
        if self._scene is None or (self.history and self.history[-1]["step"] == step):
            return
        try:
            found = self._measured(self._scene)
        except BadInputError as error:  # an untrained network may have no importance: train on
            warnings.warn(
                f"the mirror index was not measured at step {step}: {error}", stacklevel=2
            )
            return
        values = _row(found)
        self.history.append({"step": step, "epoch": int(trainer.current_epoch), **values})
        for logger in trainer.loggers:
            named = {f"{self.prefix}{name}": value for name, value in values.items()}
            logger.log_metrics(named, step=step)

    def _measured(self, scene: ModelOnVolume) -> MethodResult:
        with _undisturbed(scene.module):
            importance = importance_by(scene, self.method, self._parts, self.seed)
        clusters = np.array([site.cluster for site, _ in self._parts], np.intp)
        return method_result(importance, clusters, MARGIN, self.confidence, self.seed)


class _AsFloat(Wrapper):
    """Lets a network compute in the dtype of its weights; takes and returns float32."""

    def forward(self, x: Tensor) -> Tensor:
        example = next((p for p in self.network.parameters() if p.is_floating_point()), x)
        out: Tensor = self.network(x.to(example.dtype))
        return out.float()


def _row(found: MethodResult) -> dict[str, float]:
    """Return what is logged; an interval of too few blocks is left out."""
    assert found.index is not None
    row = {
        "mirror_index": found.index.value,
        "mirror_low": found.index.low,
        "mirror_high": found.index.high,
    }
    if len(found.pairs) > 1:
        row |= {f"mirror_pair_{number}": pair.value for number, pair in enumerate(found.pairs, 1)}
    row |= {f"share_{slot}": share.value for slot, share in enumerate(found.shares)}
    return {name: float(value) for name, value in row.items() if np.isfinite(value)}


@contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """Put a network in eval mode, its parameters frozen; restore modes and random states."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with (
            torch.random.fork_rng(devices=devices),
            torch.inference_mode(False),
            torch.enable_grad(),
            explaining(module),
        ):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
