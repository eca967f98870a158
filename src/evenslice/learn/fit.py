"""Running the training: Lightning underneath, quiet, with our progress and files that survive a kill."""

import io
import itertools
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from evenslice.errors import BadInputError
from evenslice.learn.log import OFTEN, Log
from evenslice.learn.module import Training
from evenslice.learn.ranks import Ranks, strategy_of
from evenslice.options import TrainPrecision
from evenslice.progress import Progress, Step, silent
from evenslice.volume.atomic import written_beside

FEWEST_CHUNK = 50
STATE, LOG = "state.ckpt", "log.csv"
PLUGINS: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class Seen:
    """What a look at the validation slices found.

    Attributes
    ----------
    dice
        None if there is no foreground to validate on.
    stop
        Whether training ends here.
    """

    dice: float | None
    stop: bool = False


Look = Callable[[int, float, float], Seen]


def chunk_of(steps: int, looks: int = 4) -> int:
    """Return how many steps lie between two looks at the validation slices: at least 50."""
    return min(steps, max(FEWEST_CHUNK, math.ceil(steps / looks)))


def precision_of(name: TrainPrecision, device: torch.device) -> TrainPrecision:
    """Return what ``auto`` means here: bf16 on a GPU that has it, else fp32.

    Raises
    ------
    BadInputError
        If fp16 is asked for where there is no GPU.
    """
    if name == "fp16" and device.type != "cuda":
        raise BadInputError(
            "--precision is fp16 without a GPU, expected bf16 or fp32 there; use --precision bf16"
        )
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def fit(
    training: Training,
    device: torch.device,
    precision: TrainPrecision,
    folder: Path,
    look: Look,
    ranks: Ranks | None = None,
    label: str = "training",
    progress: Progress = silent,
) -> None:
    """Train to the end, or go on from the state in ``folder`` if there is one.

    Parameters
    ----------
    training
        What to train.
    device, precision
        CPU or GPU; ``fp32``, ``bf16`` or ``fp16``.
    folder
        Where the state of the run and its log are kept.
    look
        Called by the first device with the number of steps done, the mean loss since the last call, and the rate of the last step,
        after each chunk and before its state is written; says whether to stop.
    ranks
        Which of several devices this process trains on; the only one when None.
    label, progress
        How to show it.

    Raises
    ------
    KeyboardInterrupt
        If the user interrupted; the state stays.
    BadInputError
        If the state cannot be read, or the loss is no longer a number.
    """
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ranks = ranks or Ranks()
    state = folder / STATE
    earlier = _read_state(state) if state.exists() else None
    if earlier is not None:
        training.go_on(earlier)
    stopped = earlier is not None and bool(earlier.get("stop"))
    left = 0 if stopped else training.recipe.steps - training.start
    with warnings.catch_warnings(), progress(label, training.recipe.steps) as step:
        warnings.simplefilter("ignore")
        for _ in range(training.start):
            step()
        watch = (
            _Watch(step, state, look, Log(folder / LOG, training.start))
            if ranks.rank == 0
            else _Follow()
        )
        trainer = pl.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=ranks.count,
            strategy=strategy_of(ranks),
            plugins=[ranks],
            precision=PLUGINS[precision],
            max_epochs=math.ceil(left / training.chunk),
            max_steps=left,
            gradient_clip_val=training.recipe.clip,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[watch],
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
            f"a batch of {training.recipe.batch} patches of {training.source.crop} pixels leaves a batch norm one value per channel, "
            "expected more; use a larger --batch or --crop, or fewer stages with --encoder-depth"
        ) from error
    if trainer.interrupted:
        raise KeyboardInterrupt


def _read_state(state: Path) -> dict[str, Any]:
    try:
        return dict(torch.load(state, map_location="cpu", weights_only=True))
    except Exception as error:  # torch and pickle raise kinds of their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInputError(
            f"{state} cannot be read ({reason}), expected the state of a run; start over with --force"
        ) from error


class _Follow(pl.Callback):  # type: ignore[misc]
    """Shares the losses with the other devices, and stops when the first one says so."""

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Training, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses.append(outputs["loss"].detach())
        if len(self._losses) == OFTEN:
            self._gather(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Training) -> None:
        self._gather(trainer, pl_module)
        trainer.should_stop = trainer.strategy.broadcast(self._end(pl_module))

    def _gather(self, trainer: pl.Trainer, pl_module: Training) -> None:
        if self._losses:
            losses = torch.stack(self._losses).double()
            self._take(pl_module, trainer.strategy.reduce(losses, reduce_op="mean").tolist())
            self._losses.clear()

    def _take(self, training: Training, losses: list[float]) -> None:
        """Take the losses of the last steps, each the mean over the devices."""

    def _end(self, training: Training) -> bool:
        """End a chunk; say whether to stop."""
        return False


class _Watch(_Follow):
    """Shows and logs each step, and after each chunk looks at the validation slices and keeps the state."""

    def __init__(self, step: Step, state: Path, look: Look, log: Log) -> None:
        super().__init__()
        self._step, self._state, self._look, self._log = step, state, look, log
        self._note = ""
        self._rates: list[float] = []
        self._chunk: list[float] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Training, batch: Any, batch_idx: int
    ) -> None:
        self._rates.append(pl_module.rate)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Training, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._losses:  # the one before: to ask for the last would make a GPU wait
            loss = _finite(float(self._losses[-1]), pl_module.done - 1)
            self._step(f"loss {loss:.3f}{self._note}")
        else:
            self._step(self._note.removeprefix(", "))
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _take(self, training: Training, losses: list[float]) -> None:
        first = training.done - len(losses) + 1
        for done, loss, rate in zip(itertools.count(first), losses, self._rates, strict=False):
            self._log.step(done, _finite(loss, done), rate)
        self._chunk += losses
        self._last = self._rates[-1]
        self._rates.clear()

    def _end(self, training: Training) -> bool:
        seen = self._look(training.done, sum(self._chunk) / len(self._chunk), self._last)
        self._chunk.clear()
        self._log.look(seen.dice)
        self._note = f", {'no foreground to validate on' if seen.dice is None else f'validation Dice {seen.dice:.3f}'}"
        held = io.BytesIO()  # torch writes to files on its own, and says nothing of a full disk
        torch.save(training.state() | {"stop": seen.stop}, held)
        with written_beside(self._state) as part:
            part.write_bytes(held.getbuffer())
        return seen.stop


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise BadInputError(
            f"the loss became {loss} at step {step}, expected a number; use a smaller --lr"
        )
    return loss
