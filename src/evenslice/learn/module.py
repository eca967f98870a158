"""The Lightning module: one network, one loss, one schedule, a seeded stretch of patches for each epoch."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from evenslice.learn.losses import segmentation_loss
from evenslice.learn.patches import Patches, PatchSource
from evenslice.model.predict import logits_of


class Training(pl.LightningModule):  # type: ignore[misc]
    """Trains a network on patches with AdamW and a one-cycle schedule.

    An epoch is a stretch of ``chunk`` steps; each has its own patches and random state. A run that goes on from
    ``state``, kept at the end of a stretch, therefore equals one that was never interrupted.
    """

    def __init__(
        self,
        network: nn.Module,
        stride: int,
        source: PatchSource,
        *,
        steps: int,
        batch: int,
        lr: float,
        seed: int,
        chunk: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.stride, self.source = stride, source
        self.steps, self.batch, self.lr, self.seed, self.chunk = steps, batch, lr, seed, chunk
        self.start = 0
        self._earlier: dict[str, Any] | None = None

    @property
    def done(self) -> int:
        """Steps done, earlier runs included."""
        return self.start + int(self.trainer.global_step)

    def go_on(self, state: dict[str, Any]) -> None:
        """Start from a state that ``state`` returned."""
        self.start, self._earlier = int(state["done"]), state
        self.network.load_state_dict(state["network"])

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on."""
        return {
            "done": self.done,
            "network": self.network.state_dict(),
            "optimiser": self.trainer.optimizers[0].state_dict(),
            "schedule": self.trainer.lr_scheduler_configs[0].scheduler.state_dict(),
        }

    def on_train_epoch_start(self) -> None:
        """Seed what the network itself draws, such as dropout."""
        torch.manual_seed(self.seed * 1_000_003 + self.done)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Return this stretch's patches."""
        count = min(self.chunk, self.steps - self.done)
        return DataLoader(
            Patches(self.source, self.seed, self.done * self.batch, count * self.batch), batch_size=self.batch
        )

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of one batch."""
        windows, target = batch
        return segmentation_loss(logits_of(self.network, windows, self.stride).float(), target)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return AdamW with a one-cycle schedule over all steps."""
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.lr, total_steps=max(2, self.steps))
        if self._earlier is not None:
            optimiser.load_state_dict(self._earlier["optimiser"])
            schedule.load_state_dict(self._earlier["schedule"])
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
