"""The Lightning module: a network, a loss, a schedule, and seeded patches for each epoch."""

import itertools
import math
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from evenslice.learn.losses import segmentation_loss
from evenslice.learn.multi_volume import MultiVolume
from evenslice.model.build import rebuild
from evenslice.model.predict import logits_of
from evenslice.model.spec import Model, Spec
from evenslice.model.stem.adapt import mirror_stem
from evenslice.model.stem.find import find_stems
from evenslice.model.tile_limits import free_memory
from evenslice.options import Freeze, JsonObject, TrainOptions

MOST_THREADS = 8
Batch = tuple[Tensor, Tensor]


def schedule_of(optimiser: torch.optim.Optimizer, options: TrainOptions) -> LRScheduler:
    """Return the learning-rate schedule, to be stepped after every training step.

    ``one-cycle`` is torch's (Smith & Topin 2018, arXiv:1708.07120); ``cosine``: ``cosine_factor``.
    """
    if options.schedule == "one-cycle":
        return OneCycleLR(optimiser, options.lr, total_steps=max(2, options.steps))
    if options.schedule == "constant":
        return LambdaLR(optimiser, lambda _: 1.0)
    return LambdaLR(optimiser, lambda step: cosine_factor(step, options.steps, options.warmup))


def cosine_factor(step: int, steps: int, warmup: float) -> float:
    """Return the fraction of the largest rate that step 0, 1, ... is taken with.

    It rises linearly over the fraction ``warmup`` of the steps, reaches 1 with the last of them,
    and falls along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts) to
    0 after the last step.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))


class Batches:
    """The batches of one epoch, made ahead in threads: patches ``first`` and on, for some steps.

    ``batch`` patches a step are shared by all devices: ``share`` is the number of this one, and how
    many there are. At most one batch more than ``threads`` waits. ``pinned`` memory is what a GPU
    copies from without waiting.
    """

    def __init__(
        self,
        source: MultiVolume,
        seed: int,
        first: int,
        steps: int,
        batch: int,
        share: tuple[int, int] = (0, 1),
        threads: int = 1,
        pinned: bool = False,
    ) -> None:
        self._source, self._seed, self._first, self._steps = source, seed, first, steps
        self._batch, self._share, self._threads, self._pinned = batch, share, threads, pinned

    def __len__(self) -> int:
        """Return the number of steps."""
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        """Give windows (B, S, y, x) and targets (B, y, x), step by step."""
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(self._threads, "patches") as pool:
            try:
                for step in range(len(self)):
                    waiting.append(pool.submit(self._make, step))
                    if len(waiting) > self._threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _make(self, step: int) -> Batch:
        rank, ranks = self._share
        count = self._batch // ranks
        first = self._first + step * self._batch + rank * count
        drawn = [self._source.patch(self._seed, first + i) for i in range(count)]
        windows, targets = self._empty(count, drawn[0][0]), self._empty(count, drawn[0][1])
        for i, (window, target) in enumerate(drawn):
            windows.numpy()[i], targets.numpy()[i] = window, target
        return windows, targets

    def _empty(self, count: int, one: np.ndarray) -> Tensor:
        dtype = torch.from_numpy(one).dtype
        return torch.empty((count, *one.shape), dtype=dtype, pin_memory=self._pinned)


def frozen_parts(model: Model, freeze: Freeze) -> list[torch.nn.Module]:
    """Return the layers that are not trained: the stems, tied ones too, or the whole encoder."""
    network = model.module
    if freeze == "encoder":
        assert isinstance(network.encoder, torch.nn.Module)
        return [network.encoder]
    return [] if freeze == "none" else [stem.layer for stem in find_stems(network, model.slices)]


class Training(pl.LightningModule):  # type: ignore[misc]
    """Trains a network on patches with AdamW.

    An epoch is the ``interval`` steps between two validation runs; each has its own patches and
    random state. A run that is resumed from ``state``, taken at the end of an epoch, therefore
    equals one that was never interrupted.
    """

    def __init__(
        self, model: Model, source: MultiVolume, options: TrainOptions, interval: int
    ) -> None:
        super().__init__()
        self.model, self.network = model, model.module
        self.source, self.options, self.interval = source, options, interval
        self._frozen = frozen_parts(model, options.freeze)
        for parameter in itertools.chain(*(part.parameters() for part in self._frozen)):
            parameter.requires_grad_(False)
        self.start = 0
        self._earlier: JsonObject | None = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Send spec and weights to another process where the stem is tied: torch pickles no tie."""
        spec = self.model.spec
        if not isinstance(spec, Spec) or spec.tie == "none":
            return super().__reduce_ex__(protocol)
        weights = {key: value.cpu() for key, value in self.network.state_dict().items()}
        model = replace(self.model, module=torch.nn.Identity())
        fields = (model, self.source, self.options, self.interval)
        return _rebuilt, (fields, weights, self._earlier)

    @property
    def done(self) -> int:
        """Steps done, earlier runs included."""
        return self.start + int(self.trainer.global_step)

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def resume(self, state: JsonObject) -> None:
        """Start from what ``state`` returned."""
        self.network.load_state_dict(state["network"])
        self.start, self._earlier = state["done"], state

    def state(self) -> JsonObject:
        """Return all that is needed to resume."""
        return {
            "done": self.done,
            "network": self.network.state_dict(),
            "optimiser": self.trainer.optimizers[0].state_dict(),
            "schedule": self.trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            "scaling": self.trainer.precision_plugin.state_dict(),
        }

    def setup(self, stage: str) -> None:
        """Read the volumes into memory where they fit, each process for itself."""
        self.source = self.source.preloaded(self.options, free_memory() // self.options.devices)

    def on_fit_start(self) -> None:
        """Scale the loss as the run did before (fp16)."""
        if self._earlier is not None:
            self.trainer.precision_plugin.load_state_dict(self._earlier["scaling"])

    def on_train_epoch_start(self) -> None:
        """Keep the frozen parts in eval mode; seed what the network itself draws, by device."""
        for part in self._frozen:
            part.eval()
        torch.manual_seed(self.options.seed * 1_000_003 + self.done + self.global_rank * 7_919)
        if self.done:  # torch's own loader drew a number here: seeds keep their meaning
            torch.empty((), dtype=torch.int64).random_()

    def train_dataloader(self) -> Batches:
        """Return the batches of this epoch."""
        options, cuda = self.options, self.device.type == "cuda"
        steps = min(self.interval, options.steps - self.done)
        cores = (os.cpu_count() or 1) // options.devices
        return Batches(
            self.source,
            options.seed,
            self.done * options.batch,
            steps,
            options.batch,
            (self.global_rank, options.devices),
            threads=max(1, min(MOST_THREADS, cores - 1)) if cuda else 1,
            pinned=cuda,
        )

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the loss of one batch."""
        windows, target = batch
        logits = logits_of(self.network, windows, self.model.stride).float()
        return segmentation_loss(logits, target, self.options.loss, self.options.class_weights)

    def configure_optimizers(self) -> JsonObject:
        """Return AdamW and its schedule over all steps."""
        options = self.options
        optimiser = torch.optim.AdamW(
            (one for one in self.network.parameters() if one.requires_grad),
            lr=options.lr,
            weight_decay=options.weight_decay,
        )
        schedule = schedule_of(optimiser, options)
        if self._earlier is not None:
            # A copy: in processes of several devices the tensors lie in memory that all share.
            optimiser.load_state_dict(deepcopy(self._earlier["optimiser"]))
            schedule.load_state_dict(self._earlier["schedule"])
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _rebuilt(
    fields: tuple[Model, MultiVolume, TrainOptions, int],
    weights: dict[str, Tensor],
    earlier: JsonObject | None,
) -> Training:
    model, source, options, interval = fields
    assert isinstance(model.spec, Spec)
    network = mirror_stem(rebuild(model.spec), model.spec.slices, model.spec.tie)
    network.load_state_dict(weights)
    training = Training(replace(model, module=network.train()), source, options, interval)
    if earlier is not None:
        training.resume(earlier)
    return training
