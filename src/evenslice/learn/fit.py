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
from evenslice.learn.recipe import Precision
from evenslice.progress import Progress, Step
from evenslice.volume.writing import written_beside

FEWEST_CHUNK = 50
PLUGINS: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def chunk_of(steps: int, looks: int = 4) -> int:
    """Return how many steps lie between two looks at the validation slices: at least 50."""
    return min(steps, max(FEWEST_CHUNK, math.ceil(steps / looks)))


def precision_of(name: Precision, device: torch.device) -> Precision:
    """Return what ``auto`` means here: bf16 on a GPU that has it, else fp32.

    Raises
    ------
    BadInputError
        If fp16 is asked for where there is no GPU.
    """
    if name == "fp16" and device.type != "cuda":
        raise BadInputError("--precision is fp16 without a GPU, expected bf16 or fp32 there; use --precision bf16")
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def fit(
    training: Training,
    device: torch.device,
    precision: Precision,
    checkpoint: Path,
    after_chunk: Callable[[int, float], str],
    progress: Progress,
    label: str,
) -> None:
    """Train to the end, or go on from ``checkpoint`` if it exists.

    Parameters
    ----------
    training
        What to train.
    device, precision
        CPU or GPU; ``fp32``, ``bf16`` or ``fp16``.
    checkpoint
        Where the state of the run is kept between chunks.
    after_chunk
        Called with the number of steps done and the mean loss since the last call, after each chunk and before its
        checkpoint is written; returns a word for the progress bar.
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
    if checkpoint.exists():
        training.go_on(_read_state(checkpoint))
    left = training.steps - training.start
    with warnings.catch_warnings(), progress(label, training.steps) as step:
        warnings.simplefilter("ignore")
        for _ in range(training.start):
            step()
        trainer = pl.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision=PLUGINS[precision],
            max_epochs=math.ceil(left / training.chunk),
            max_steps=left,
            reload_dataloaders_every_n_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[_Watch(step, checkpoint, after_chunk)],
        )
        if left > 0:
            _fit(trainer, training)


def _fit(trainer: pl.Trainer, training: Training) -> None:
    try:
        trainer.fit(training)
    except SystemExit as stop:  # Lightning turns Ctrl-C into an exit
        raise KeyboardInterrupt from stop
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise BadInputError(
            f"a batch of {training.batch} patches of {training.source.crop} pixels leaves a batch norm one value per channel, "
            "expected more; use a larger --batch or --crop, or fewer stages with --encoder-depth"
        ) from error
    if trainer.interrupted:
        raise KeyboardInterrupt


def _read_state(checkpoint: Path) -> dict[str, Any]:
    try:
        return dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    except Exception as error:  # torch and pickle raise kinds of their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInputError(
            f"{checkpoint} cannot be read ({reason}), expected the state of a run; start over with --force"
        ) from error


class _Watch(pl.Callback):  # type: ignore[misc]
    """Shows each step, and after each chunk validates and keeps the state."""

    def __init__(self, step: Step, checkpoint: Path, after_chunk: Callable[[int, float], str]) -> None:
        self._step, self._checkpoint, self._after_chunk = step, checkpoint, after_chunk
        self._note = ""
        self._losses: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Training, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = float(outputs["loss"])
        if not math.isfinite(loss):
            raise BadInputError(
                f"the loss became {loss} at step {pl_module.done}, expected a number; use a smaller --lr"
            )
        self._losses.append(loss)
        self._step(f"loss {loss:.3f}{self._note}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Training) -> None:
        self._note = f", {self._after_chunk(pl_module.done, sum(self._losses) / len(self._losses))}"
        self._losses.clear()
        with written_beside(self._checkpoint) as part:
            torch.save(pl_module.state(), part)
