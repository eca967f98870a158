"""Running the training: Lightning underneath, quiet, with our progress and files that survive a kill."""

import logging
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from evenslice.errors import BadInputError
from evenslice.learn.module import Training
from evenslice.progress import Progress, Step
from evenslice.volume.writing import written_beside

FEWEST_CHUNK = 50
CHUNKS = 4


def chunk_of(steps: int) -> int:
    """Return how many steps lie between two looks at the validation slices."""
    return min(steps, max(FEWEST_CHUNK, math.ceil(steps / CHUNKS)))


def fit(
    training: Training,
    device: torch.device,
    checkpoint: Path,
    after_chunk: Callable[[int], str],
    progress: Progress,
    label: str,
) -> None:
    """Train to the end, or go on from ``checkpoint`` if it exists.

    Parameters
    ----------
    training
        What to train.
    device
        CPU or GPU.
    checkpoint
        Where the state of the run is kept between chunks.
    after_chunk
        Called with the number of steps done, after each chunk and before its checkpoint is written; returns a word for
        the progress bar.
    progress, label
        How to show it.

    Raises
    ------
    KeyboardInterrupt
        If the user interrupted; the checkpoint stays.
    BadInputError
        If the checkpoint cannot be read, or the loss is no longer a number.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings(), progress(label, training.steps) as step:
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=math.ceil(training.steps / training.chunk),
            max_steps=training.steps,
            reload_dataloaders_every_n_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[_Watch(step, checkpoint, after_chunk)],
        )
        _fit(trainer, training, checkpoint)


def _fit(trainer: pl.Trainer, training: Training, checkpoint: Path) -> None:
    known = str(checkpoint) if checkpoint.exists() else None
    try:
        trainer.fit(training, ckpt_path=known, weights_only=True)
    except SystemExit as stop:  # Lightning turns Ctrl-C into an exit
        raise KeyboardInterrupt from stop
    except (RuntimeError, OSError, EOFError) as error:
        if known and trainer.global_step == 0:
            raise BadInputError(
                f"{checkpoint} cannot be read ({str(error).splitlines()[0]}), expected the state of a run; start over with --force"
            ) from error
        raise
    if trainer.interrupted:
        raise KeyboardInterrupt


class _Watch(pl.Callback):  # type: ignore[misc]
    """Shows each step, and after each chunk validates and keeps the state."""

    def __init__(self, step: Step, checkpoint: Path, after_chunk: Callable[[int], str]) -> None:
        self._step, self._checkpoint, self._after_chunk = step, checkpoint, after_chunk
        self._note = ""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Training) -> None:
        for _ in range(trainer.global_step):
            self._step()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Training, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = float(outputs["loss"])
        if not math.isfinite(loss):
            raise BadInputError(
                f"the loss became {loss} at step {trainer.global_step}, expected a number; use a smaller --lr"
            )
        self._step(f"loss {loss:.3f}{self._note}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Training) -> None:
        self._note = f", {self._after_chunk(trainer.global_step)}"
        with written_beside(self._checkpoint) as part:
            trainer.save_checkpoint(part)
