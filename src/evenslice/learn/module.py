"""The Lightning module: one network, one loss, one schedule, a seeded stretch of patches for each epoch."""

import os
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from evenslice.errors import BadInputError
from evenslice.learn.feed import Batches
from evenslice.learn.losses import segmentation_loss
from evenslice.learn.patches import Patches, Source
from evenslice.learn.recipe import Recipe
from evenslice.learn.schedule import schedule_of
from evenslice.model.predict import logits_of

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
        self, network: nn.Module, stride: int, source: Source, recipe: Recipe, chunk: int, rank: int = 0
    ) -> None:
        super().__init__()
        self.network = network
        self.stride, self.source, self.recipe, self.chunk, self.rank = stride, source, recipe, chunk, rank
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
        threads = max(1, min(MOST_THREADS, (os.cpu_count() or 1) // recipe.devices - 1)) if cuda else 1
        return Batches(patches, recipe.batch, (self.rank, recipe.devices), threads, pinned=cuda)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of one batch."""
        windows, target = batch
        logits = logits_of(self.network, windows, self.stride).float()
        return segmentation_loss(logits, target, self.recipe.loss, self.recipe.class_weights)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return AdamW and its schedule over all steps."""
        recipe = self.recipe
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
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
