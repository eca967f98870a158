"""A training run on its way: its folder, and what is kept at each look at the validation slices."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evenslice.errors import BadInputError
from evenslice.learn.recipe import Recipe
from evenslice.model.checkpoint import read_about, save_model
from evenslice.model.spec import Model
from evenslice.verbs.train_score import Validation, validate
from evenslice.volume.writing import written_beside

LOOK_SLICES = 8
STATE = "state.ckpt"
Watch = Callable[[Model, int], dict[str, Any]]


class Run:
    """The folder in which a run keeps its state until it ends; a run that fails before there is a state leaves nothing."""

    def __init__(self, out: Path, recipe: Recipe, resume: bool, force: bool, training: dict[str, Any]) -> None:
        self.folder = out.with_name(out.name + ".run")
        data = {key: training[key] for key in ("fingerprint", "labels")}
        others = [[one["fingerprint"], one["labels"]] for one in training.get("volumes", [])[1:]]
        plan = json.dumps(recipe.model_dump() | data | {"more": others}, indent=2)
        record = self.folder / "plan.json"
        if self.folder.exists() and not self.folder.is_dir():
            raise BadInputError(
                f"{self.folder} is a file, expected no file of that name, for the state of the run; move it"
            )
        if self.folder.exists() and not resume and not force:
            raise BadInputError(
                f"{self.folder} holds an unfinished run, expected none; go on with --resume, or start over with --force"
            )
        if resume and record.exists():
            if record.read_text() != plan:
                raise BadInputError(
                    f"{self.folder} holds a run with other settings or data, expected the same; repeat them, or start over with --force"
                )
            return
        if resume:
            raise BadInputError(
                f"{self.folder} holds no run to go on with, expected an unfinished one; leave --resume out"
            )
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir()
        record.write_text(plan)

    def __enter__(self) -> Path:
        return self.folder

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or not (self.folder / STATE).exists():
            shutil.rmtree(self.folder)


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
        self._validation = [(source, [zs[pick] for pick in _spread(len(zs), each)]) for source, zs in validation]
        self._model, self._device, self._folder = model, device, folder
        self._patience, self._watch = patience, watch

    @property
    def looks(self) -> tuple[dict[str, Any], ...]:
        """What the looks so far saw, those before a kill included."""
        file = self._folder / "looks.json"
        return tuple(json.loads(file.read_text())) if file.exists() else ()

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
        if not best.exists() or (dice or 0.0) >= (read_about(best)["scores"]["dice"] or 0.0):
            shutil.copyfile(self._folder / "last.safetensors", best)
        return dice, self._patience is not None and looks_since_best(looks) >= self._patience

    def _note(self, look: dict[str, Any]) -> list[dict[str, Any]]:
        looks = [*(one for one in self.looks if one["steps"] < look["steps"]), look]
        with written_beside(self._folder / "looks.json") as part:
            part.write_text(json.dumps(looks))
        return looks


def looks_since_best(looks: list[dict[str, Any]]) -> int:
    """Return after how many looks the best Dice was first seen, counted back from the last; the one before the first step is none."""
    dice = [look["dice"] or 0.0 for look in looks if look["steps"] > 0]
    return len(dice) - 1 - dice.index(max(dice))


def _spread(count: int, most: int) -> list[int]:
    """Return at most so many of ``count`` numbers from 0, evenly spread."""
    return [int(n) for n in np.unique(np.linspace(0, count - 1, most).round())]
