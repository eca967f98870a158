"""The Lightning module: one network, one loss, one schedule, a seeded stretch of patches for each epoch."""

import math
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from evenslice.errors import BadInputError
from evenslice.learn.losses import segmentation_loss
from evenslice.learn.patches import Patches, Source
from evenslice.model.predict import logits_of
from evenslice.options import TrainOptions


def schedule_of(optimiser: torch.optim.Optimizer, recipe: TrainOptions) -> Any:
    """Return the schedule of a recipe, to be stepped once a step.

    ``one-cycle`` is torch's (Smith & Topin 2018, arXiv:1708.07120); ``cosine`` is ``cosine_part`` of ``recipe.lr``.
    """
    schedules = torch.optim.lr_scheduler
    if recipe.schedule == "one-cycle":
        return schedules.OneCycleLR(optimiser, recipe.lr, total_steps=max(2, recipe.steps))
    if recipe.schedule == "constant":
        return schedules.LambdaLR(optimiser, lambda _: 1.0)
    return schedules.LambdaLR(
        optimiser, lambda step: cosine_part(step, recipe.steps, recipe.warmup)
    )


def cosine_part(step: int, steps: int, warmup: float) -> float:
    """Return the part of the largest rate that step 0, 1, ... is taken with.

    It rises linearly over the first ``warmup`` part of the steps, reaches 1 with the last of them, and falls along half a
    cosine (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts) to 0 after the last step.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))


Batch = tuple[Tensor, Tensor]


class Batches:
    """The batches of a stretch of patches, or the part of each that one of several devices takes.

    Parameters
    ----------
    patches
        The stretch, a multiple of ``batch`` long.
    batch
        Patches a step, of all devices together.
    share
        Number of this device, and how many there are: of every batch it takes as many patches as the others, in a row.
    threads
        How many make batches; at most one more than these are waiting.
    pinned
        Whether to put them into memory from which a GPU takes them without waiting.
    """

    def __init__(
        self,
        patches: Patches,
        batch: int,
        share: tuple[int, int] = (0, 1),
        threads: int = 1,
        pinned: bool = False,
    ) -> None:
        self._patches, self._batch, self._share = patches, batch, share
        self._threads, self._pinned = threads, pinned

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self._patches) // self._batch

    def __iter__(self) -> Iterator[Batch]:
        """Give windows (B, S, y, x) and targets (B, y, x), step by step."""
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(self._threads, "patches") as pool:
            try:
                for step in range(len(self)):
                    waiting.append(pool.submit(self._made, step))
                    if len(waiting) > self._threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _made(self, step: int) -> Batch:
        rank, ranks = self._share
        part = self._batch // ranks
        first = step * self._batch + rank * part
        drawn = [self._patches.drawn(first + i) for i in range(part)]
        windows, targets = self._room(part, drawn[0][0]), self._room(part, drawn[0][1])
        for i, (window, target) in enumerate(drawn):
            windows.numpy()[i], targets.numpy()[i] = window, target
        return windows, targets

    def _room(self, part: int, one: np.ndarray) -> Tensor:
        kind = torch.from_numpy(one).dtype
        return torch.empty((part, *one.shape), dtype=kind, pin_memory=self._pinned)


MOST_THREADS = 8


class Training(pl.LightningModule):  # type: ignore[misc]
    """Trains a network on patches with AdamW, as a recipe says.

    An epoch is a stretch of ``chunk`` steps; each has its own patches and random state. A run that goes on from
    ``state``, kept at the end of a stretch, therefore equals one that was never interrupted.

    Parameters
    ----------
    network, stride
        See ``Model``.
    source
        What patches are drawn from.
    recipe
        Steps, batch, loss, rate and seed.
    chunk
        Steps of a stretch.
    rank
        Number of this device among ``recipe.devices``.
    """

    def __init__(
        self,
        network: nn.Module,
        stride: int,
        source: Source,
        recipe: TrainOptions,
        chunk: int,
        rank: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.stride, self.source, self.recipe, self.chunk, self.rank = (
            stride,
            source,
            recipe,
            chunk,
            rank,
        )
        self.start = 0
        self._earlier: dict[str, Any] | None = None

    @property
    def done(self) -> int:
        """Steps done, earlier runs included."""
        return self.start + int(self.trainer.global_step)

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def go_on(self, state: dict[str, Any]) -> None:
        """Start from a state that ``state`` returned.

        Raises
        ------
        BadInputError
            If it is another one.
        """
        missing = {"done", "network", "optimiser", "schedule", "scaling"} - set(state)
        done = state.get("done")
        if missing or not isinstance(done, int) or not 0 <= done <= self.recipe.steps:
            raise BadInputError(
                f"the state of the run lacks {', '.join(sorted(missing)) or 'a number of steps'}, expected what this run wrote; start "
                "over with --force"
            )
        try:
            self.network.load_state_dict(state["network"])
        except (RuntimeError, TypeError, AttributeError) as error:
            raise BadInputError(
                f"the state of the run is of another network ({(str(error).splitlines() or [''])[0][:100]}), expected what this run wrote; start over with --force"
            ) from error
        self.start, self._earlier = done, state

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on."""
        return {
            "done": self.done,
            "network": self.network.state_dict(),
            "optimiser": self.trainer.optimizers[0].state_dict(),
            "schedule": self.trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            "scaling": self.trainer.precision_plugin.state_dict(),
        }

    def on_fit_start(self) -> None:
        """Scale the loss as the run did before (fp16)."""
        if self._earlier is not None:
            self.trainer.precision_plugin.load_state_dict(self._earlier["scaling"])

    def on_train_epoch_start(self) -> None:
        """Seed what the network itself draws, such as dropout; each device draws its own."""
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.done + self.rank * 7_919)
        if self.done:
            torch.empty(
                (), dtype=torch.int64
            ).random_()  # torch's own loader took one here, and seeds keep their meaning

    def train_dataloader(self) -> Batches:
        """Return this stretch's batches."""
        recipe, cuda = self.recipe, self.device.type == "cuda"
        count = min(self.chunk, recipe.steps - self.done) * recipe.batch
        patches = Patches(self.source, recipe.seed, self.done * recipe.batch, count)
        threads = (
            max(1, min(MOST_THREADS, (os.cpu_count() or 1) // recipe.devices - 1)) if cuda else 1
        )
        return Batches(patches, recipe.batch, (self.rank, recipe.devices), threads, pinned=cuda)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of one batch."""
        windows, target = batch
        logits = logits_of(self.network, windows, self.stride).float()
        return segmentation_loss(logits, target, self.recipe.loss, self.recipe.class_weights)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return AdamW and its schedule over all steps."""
        recipe = self.recipe
        optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        schedule = schedule_of(optimiser, recipe)
        if self._earlier is not None:
            try:
                optimiser.load_state_dict(self._earlier["optimiser"])
                schedule.load_state_dict(self._earlier["schedule"])
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                raise BadInputError(
                    f"the state of the run is of another optimiser ({error!r}), expected what this run wrote; start over with --force"
                ) from error
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
