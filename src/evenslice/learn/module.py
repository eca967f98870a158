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

    An epoch is a stretch of ``chunk`` steps; each has its own patches and random state, so that a run resumed at the
    start of an epoch equals one that was never interrupted.
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

    def on_train_epoch_start(self) -> None:
        """Seed what the network itself draws, such as dropout."""
        torch.manual_seed(self.seed * 100_003 + self.current_epoch)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Return this epoch's patches."""
        first = self.current_epoch * self.chunk
        count = min(self.chunk, self.steps - first)
        return DataLoader(
            Patches(self.source, self.seed, first * self.batch, count * self.batch), batch_size=self.batch
        )

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of one batch."""
        windows, target = batch
        return segmentation_loss(logits_of(self.network, windows, self.stride), target)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return AdamW with a one-cycle schedule over all steps."""
        optimiser = torch.optim.AdamW(self.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.lr, total_steps=max(2, self.steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
