"""A training run on its way: its folder, and what is kept at each look at the validation slices."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evenslice.errors import BadInputError
from evenslice.model.checkpoint import read_metadata, save_model
from evenslice.model.spec import Model
from evenslice.options import TrainOptions
from evenslice.verbs.train_score import Validation, validate
from evenslice.volume.atomic import check_writable, remove_stale, written_beside
from evenslice.volume.locks import try_lock
from evenslice.volume.run_state import begun, busy, clear_run, remove_run, stored_rows

LOOK_SLICES = 8
STATE, PLAN, FORCED, PLACING = "state.ckpt", "plan.json", "forced", "placing"
LOCK, PLANNING = "run.lock", "plan.lock"
Watch = Callable[[Model, int], dict[str, Any]]


class Run:
    """The folder in which a run keeps its state until it ends; a run that fails before there is a state leaves nothing.

    Parameters
    ----------
    out
        What the run makes.
    recipe
        How.
    resume, force
        Whether to go on with a run that is there, or to start it over.
    training
        What the model will say of what it was trained on.
    """

    def __init__(
        self, out: Path, recipe: TrainOptions, resume: bool, force: bool, training: dict[str, Any]
    ) -> None:
        self.folder = run_folder(out)
        self._out, self._resume, self._force = out, resume, force
        data = {key: training[key] for key in ("fingerprint", "labels")}
        others = [[one["fingerprint"], one["labels"]] for one in training.get("volumes", [])[1:]]
        self._plan = json.dumps(recipe.model_dump() | data | {"more": others}, indent=2)
        self._lock = try_lock(self.folder / LOCK)

    def __enter__(self) -> "Run":
        if self._resume and not self.folder.exists():
            raise BadInputError(
                f"{self.folder} holds no run to go on with, expected an unfinished one; leave --resume out"
            )
        with begun(self.folder, {PLAN, LOCK, PLANNING}, PLANNING):
            if not self._lock.__enter__():
                raise busy(self._out, self.folder / LOCK)
            try:
                self._begin()
            except BaseException:
                self._end(remove=not (self.folder / PLAN).exists())
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end(remove=kind is None or not (self.folder / STATE).exists())

    def place(self, made: dict[str, Path]) -> None:
        """Give copies of files of the run their names, one by one; if that is cut short, it is done again by ``resume``.

        Parameters
        ----------
        made
            What each file of the run is to be called.
        """
        placing = self.folder / PLACING
        again = placing.exists()
        if not again:
            for path in made.values():
                check_writable(path, self._may_replace)
            _write(placing, "")
        for name, path in made.items():
            with written_beside(path, again or self._may_replace) as part:
                shutil.copyfile(self.folder / name, part)

    @property
    def _may_replace(self) -> bool:
        return self._force or (self.folder / FORCED).exists()

    def _begin(self) -> None:
        record = self.folder / PLAN
        if record.exists() and self._resume:
            if record.read_text() != self._plan:
                raise BadInputError(
                    f"{self.folder} holds a run with other settings or data, expected the same; repeat them, or start over with --force"
                )
            return
        if record.exists() and not self._force:
            raise BadInputError(
                f"{self.folder} holds an unfinished run, expected none; go on with --resume, or start over with --force"
            )
        record.unlink(missing_ok=True)  # first: without it there is no run
        clear_run(self.folder)
        if self._force:
            _write(self.folder / FORCED, "")
        _write(record, self._plan)

    def _end(self, remove: bool) -> None:
        try:
            if remove:
                remove_run(self.folder)
        finally:
            self._lock.__exit__(None, None, None)


def run_folder(out: Path) -> Path:
    """Return where a run keeps its state until it ends."""
    return out.with_name(out.name + ".run")


def check_outputs(out: Path, others: Sequence[Path], resume: bool, force: bool) -> None:
    """Raise ``BadInputError`` unless a run may give its files their names; one that is gone on with may have done so, or been told to."""
    folder = run_folder(out)
    told = resume and ((folder / FORCED).exists() or (folder / PLACING).exists())
    for path in (out, *others):
        check_writable(path, force or told)


def is_made(out: Path, training: dict[str, Any]) -> bool:
    """Whether a model is there that was trained in just this way, and no run is on its way."""
    remove_stale(run_folder(out))
    if run_folder(out).exists() or not out.is_file():
        return False
    try:
        found = read_metadata(out)["training"]
    except (BadInputError, KeyError):
        return False
    plain = json.loads(json.dumps(training))
    return all(found.get(key) == plain[key] for key in ("fingerprint", "labels", "recipe"))


class Keeper:
    """At each look: validates on a few slices, saves the last state, and the best; says when nothing has got better for long."""

    def __init__(
        self,
        model: Model,
        validation: Validation,
        device: torch.device,
        folder: Path,
        patience: int | None,
        watch: Watch | None = None,
    ) -> None:
        each = math.ceil(LOOK_SLICES / len(validation))
        self._validation = [
            (source, [zs[pick] for pick in _spread(len(zs), each)]) for source, zs in validation
        ]
        self._model, self._device, self._folder = model, device, folder
        self._patience, self._watch = patience, watch

    @property
    def looks(self) -> tuple[dict[str, Any], ...]:
        """What the looks so far saw, those before a kill included."""
        file = self._folder / "looks.json"
        return tuple(stored_rows(file, "steps", "dice")) if file.exists() else ()

    def begin(self) -> None:
        """Watch the model before the first step, unless the run goes on."""
        if self._watch is None or (self._folder / STATE).exists():
            return
        self._model.module.eval()
        seen = self._watch(self._model, 0)
        self._model.module.train()
        self._note({"steps": 0, "loss": None, "lr": None, "dice": None, **seen})

    def look(self, steps: int, loss: float, lr: float) -> tuple[float | None, bool]:
        """Look at the validation slices; return the Dice, and whether to stop."""
        model = self._model
        training = model.module.training
        model.module.eval()
        dice = validate(model, self._validation, self._device).dice
        seen = {} if self._watch is None else self._watch(model, steps)
        model.module.train(training)
        looks = self._note({"steps": steps, "loss": loss, "lr": lr, "dice": dice, **seen})
        state = model.with_facts(training=model.training | {"steps": steps}, scores={"dice": dice})
        save_model(self._folder / "last.safetensors", state)
        best = self._folder / "best.safetensors"
        if not best.exists() or (dice or 0.0) >= (read_metadata(best)["scores"]["dice"] or 0.0):
            with written_beside(best) as part:
                shutil.copyfile(self._folder / "last.safetensors", part)
        return dice, self._patience is not None and looks_since_best(looks) >= self._patience

    def _note(self, look: dict[str, Any]) -> list[dict[str, Any]]:
        looks = [*(one for one in self.looks if one["steps"] < look["steps"]), look]
        _write(self._folder / "looks.json", json.dumps(looks))
        return looks


def looks_since_best(looks: list[dict[str, Any]]) -> int:
    """Return after how many looks the best Dice was first seen, counted back from the last; the one before the first step is none."""
    dice = [look["dice"] or 0.0 for look in looks if look["steps"] > 0]
    return len(dice) - 1 - dice.index(max(dice))


def _spread(count: int, most: int) -> list[int]:
    """Return at most so many of ``count`` numbers from 0, evenly spread."""
    return [int(n) for n in np.unique(np.linspace(0, count - 1, most).round())]


def _write(path: Path, text: str) -> None:
    with written_beside(path) as part:
        part.write_text(text)
