"""Running a training with Lightning: quiet, with a log, and a state to resume from."""

import io
import itertools
import logging
import math
import os
import signal
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch.multiprocessing.spawn import ProcessException, ProcessRaisedException

from evenslice.errors import BadInputError
from evenslice.learn.module import Training
from evenslice.options import JsonObject, TrainPrecision
from evenslice.progress import Progress, silent
from evenslice.volume.atomic import fsync, named, written_beside

SHORTEST_INTERVAL = 50
FEWEST_CORES = 2  # two processes on one core are slow, and right
PATIENCE = timedelta(days=7)  # the other devices wait while the first validates
STATE, LOG = "state.ckpt", "log.csv"
HEADER = "steps,loss,lr,dice\n"
BUFFERED = 50  # steps between two writes to the log
PLUGINS: JsonObject = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class ValidationResult:
    """What a validation run found."""

    dice: float | None  # None if there is no foreground to validate on
    stop: bool = False  # whether training ends here


ValidationCallback = Callable[[Training, int, float, float], ValidationResult]


def validation_interval(steps: int, runs: int = 4) -> int:
    """Return how many steps lie between two validation runs: at least 50."""
    return min(steps, max(SHORTEST_INTERVAL, math.ceil(steps / runs)))


def precision_of(name: TrainPrecision, device: torch.device) -> TrainPrecision:
    """Return what ``auto`` means here: bf16 on a GPU that has it, else fp32.

    Raises ``BadInputError`` if fp16 is asked for where there is no GPU.
    """
    if name == "fp16" and device.type != "cuda":
        raise BadInputError(
            "--precision is fp16 without a GPU, expected bf16 or fp32 there; use --precision bf16"
        )
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def check_devices(count: int, device: torch.device, requested: str) -> None:
    """Raise ``BadInputError`` if there are fewer; several on the CPU must be requested."""
    cores = max(FEWEST_CORES, os.cpu_count() or 1)
    if device.type == "cpu" and requested == "cpu":
        if count > cores:
            raise BadInputError(
                f"--devices is {count} for processes on {cores} processor cores, expected at most "
                "one per core; use fewer"
            )
        return
    found = torch.cuda.device_count() if device.type == "cuda" else 0
    if count > max(1, found):
        raise BadInputError(
            f"--devices is {count} and {found} GPUs were found, expected as many; use fewer, or "
            "--device cpu for processes without a GPU"
        )


def fit(
    training: Training,
    device: torch.device,
    precision: TrainPrecision,
    folder: Path,
    validate: ValidationCallback,
    progress: Progress = silent,
) -> None:
    """Train to the end, from the state in ``folder`` if there is one.

    Several devices (``training.options.devices``) train by Lightning's ``ddp`` in processes of
    their own, so all that is given must then be picklable. State and log are kept in ``folder``.
    The first device calls ``validate`` with the training, the number of steps done, the mean loss
    since the last call and the rate of the last step, after each interval and before its state is
    written; it says whether to stop.

    Raises ``KeyboardInterrupt`` if the user interrupted (the state stays), ``BadInputError`` if the
    state cannot be read, the loss is no longer a number, or a process fails.
    """
    state, stopped = folder / STATE, False
    if state.exists():
        earlier = _read_state(state)
        training.resume(earlier)
        stopped = earlier["stop"]
    left = training.options.steps - training.start
    if stopped or not left:
        return
    _quieten()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        devices = training.options.devices
        trainer = pl.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=devices,
            # A static graph lets parts of a network stay unused.
            strategy="auto"
            if devices == 1
            else DDPStrategy(start_method="spawn", static_graph=True, timeout=PATIENCE),
            plugins=[LightningEnvironment()],  # whatever the variables of a cluster say
            precision=PLUGINS[precision],
            max_epochs=math.ceil(left / training.interval),
            max_steps=left,
            gradient_clip_val=training.options.clip,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[_Recorder(folder, validate, progress)],
        )
        _run(trainer, training)


def _quieten() -> None:
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _run(trainer: pl.Trainer, training: Training) -> None:
    try:
        trainer.fit(training)
    except SystemExit as stop:  # Lightning turns Ctrl-C into an exit
        raise KeyboardInterrupt from stop
    except Exception as error:
        reason = _explain(error, training)
        if reason is None:
            raise
        raise BadInputError(reason) from error
    finally:
        launcher = trainer.strategy.launcher
        if launcher is not None:  # after an interrupt the processes would train on
            launcher.kill(getattr(signal, "SIGKILL", signal.SIGTERM))
            for process in launcher.procs:
                process.join()
    if trainer.interrupted:
        raise KeyboardInterrupt


def _explain(error: Exception, training: Training) -> str | None:
    """Say what a user can do about an error, None if it says so itself or nothing is known."""
    last = (str(error).strip().splitlines() or [""])[-1]  # of the traceback of another process
    if "more than 1 value per channel" in last:
        side, batch = training.source.sources[0].crop, training.options.batch
        return (
            f"a batch of {batch} patches of {side} pixels leaves a batch norm one value per "
            "channel, expected more; use a larger --batch or --crop, or fewer stages with "
            "--encoder-depth"
        )
    if isinstance(error, ProcessRaisedException):
        kind, _, text = last.partition(": ")
        if kind.endswith(BadInputError.__name__):
            return text
        return f"the process of a device failed ({last}), expected it to train; use one device"
    if isinstance(error, ProcessException):
        return (
            f"the {last}, expected it to train: is there enough memory, and does a script call "
            "train under if __name__ == '__main__'? add --resume to continue"
        )
    if training.options.devices > 1 and "pickle" in str(error):
        return (
            f"a volume cannot be sent to the processes of other devices ({last}), expected paths "
            "or arrays; give its path"
        )
    return None


def _read_state(state: Path) -> JsonObject:
    try:
        return dict(torch.load(state, map_location="cpu", weights_only=True))
    except Exception as error:  # torch and pickle raise errors of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInputError(
            f"{state} cannot be read ({reason}), expected the state of a run; start over with "
            "--force"
        ) from error


class _Recorder(pl.Callback):  # type: ignore[misc]
    """Shows and logs each step; after each epoch validates and writes the state.

    All devices share their losses, the rest is done by the first one.
    """

    def __init__(self, folder: Path, validate: ValidationCallback, progress: Progress) -> None:
        self._folder, self._validate, self._progress = folder, validate, progress
        self._shown = ""
        self._losses: list[torch.Tensor] = []  # since the last exchange between the devices
        self._rates: list[float] = []
        self._epoch: list[float] = []
        self._rows: list[list[str]] = []  # to be written
        self._open = ExitStack()

    def __setstate__(self, state: JsonObject) -> None:
        """Arrive in the process of a device, which is to be as quiet as this one."""
        self.__dict__ |= state
        _quieten()
        warnings.simplefilter("ignore")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Training) -> None:
        if trainer.is_global_zero:
            trim_log(self._folder / LOG, pl_module.start)
            steps = self._progress("training", pl_module.options.steps)
            self._step = self._open.enter_context(steps)
            for _ in range(pl_module.start):
                self._step()

    def on_exception(self, *_: Any) -> None:
        self._open.close()

    def on_fit_end(self, *_: Any) -> None:
        self._open.close()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Training, *_: Any) -> None:
        self._rates.append(pl_module.rate)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Training, outputs: Any, *_: Any
    ) -> None:
        if trainer.is_global_zero:
            text = self._shown
            if self._losses:  # the one before: to ask for the last would make a GPU wait
                loss = _finite(float(self._losses[-1]), pl_module.done - 1)
                text = f"loss {loss:.3f}, {text}" if text else f"loss {loss:.3f}"
            self._step(text)
        self._losses.append(outputs["loss"].detach())
        if len(self._losses) == BUFFERED:
            self._exchange(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Training) -> None:
        if self._losses:
            self._exchange(trainer, pl_module)
        stop = trainer.is_global_zero and self._finish_epoch(pl_module)
        trainer.should_stop = trainer.strategy.broadcast(stop)

    def _exchange(self, trainer: pl.Trainer, training: Training) -> None:
        """Take the mean of the last losses over the devices; write the rows of those before."""
        losses = torch.stack(self._losses).double()
        means = trainer.strategy.reduce(losses, reduce_op="mean").tolist()
        if trainer.is_global_zero:
            self._write_rows()
        first = training.done - len(means) + 1
        for done, loss, rate in zip(itertools.count(first), means, self._rates, strict=False):
            self._rows.append([str(done), f"{_finite(loss, done):.9g}", f"{rate:.9g}", ""])
        self._epoch += means
        self._rate = self._rates[-1]
        self._losses.clear()
        self._rates.clear()

    def _finish_epoch(self, training: Training) -> bool:
        """Validate and write the state; return whether to stop."""
        mean = sum(self._epoch) / len(self._epoch)
        found = self._validate(training, training.done, mean, self._rate)
        self._epoch.clear()
        self._shown = "no foreground to validate on"
        if found.dice is not None:
            self._shown = f"Dice {found.dice:.3f}"
            self._rows[-1][-1] = f"{found.dice:.9g}"
        self._write_rows()
        fsync(self._folder / LOG)  # before the state, which says that these steps are done
        buffer = io.BytesIO()  # torch writing to a file would not report a full disk
        torch.save(training.state() | {"stop": found.stop}, buffer)
        with written_beside(self._folder / STATE) as part:
            part.write_bytes(buffer.getbuffer())
        return found.stop

    def _write_rows(self) -> None:
        path = self._folder / LOG
        with named(path), path.open("a") as file:
            file.writelines(",".join(row) + "\n" for row in self._rows)
        self._rows.clear()


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise BadInputError(
            f"the loss became {loss} at step {step}, expected a number; use a smaller --lr"
        )
    return loss


def trim_log(path: Path, done: int) -> None:
    """Start a log, or drop the rows of one that are later than the state, and a cut row.

    Columns: ``steps`` done, ``loss``, ``lr`` and, after a validation run, ``dice``.
    """
    lines = path.read_text().splitlines(keepends=True)[1:] if path.exists() else []
    kept = takewhile(lambda line: _is_whole(line) and int(line.split(",")[0]) <= done, lines)
    with written_beside(path) as part:
        part.write_text(HEADER + "".join(kept))


def _is_whole(line: str) -> bool:
    first, *others = line.split(",")
    return line.endswith("\n") and len(others) == HEADER.count(",") and first.isdecimal()
