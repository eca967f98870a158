"""Train: open, split, build, widen the stem, fit, keep the best, score the validation slices."""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from evenslice.errors import BadInputError, give_warnings, keeps_warnings, says_what_is_kept
from evenslice.evidence.certificate import certify
from evenslice.evidence.label_asymmetry import LabelAsymmetry
from evenslice.evidence.window_view import WindowView
from evenslice.labels.metrics import Scores
from evenslice.learn.fit import (
    LOG,
    STATE,
    ValidationResult,
    check_devices,
    fit,
    precision_of,
    validation_interval,
)
from evenslice.learn.module import Training
from evenslice.learn.multi_volume import Reopened
from evenslice.learn.patches import PatchSource
from evenslice.model.build import build_model
from evenslice.model.checkpoint import (
    check_model_name,
    load_model,
    read_metadata,
    save_model,
    stem_record,
)
from evenslice.model.predict import device_named
from evenslice.model.spec import Model
from evenslice.options import JsonObject, TrainOptions
from evenslice.progress import Progress, silent
from evenslice.verbs.train_data import (
    TrainingData,
    plan_data,
    spread,
    training_provenance,
    training_record,
    validate,
    views_of,
)
from evenslice.volume.array import Volume
from evenslice.volume.atomic import check_writable, remove_stale, written_beside
from evenslice.volume.inputs import VolumeLike, check_apart, volume_of
from evenslice.volume.run_state import RunState, differing, open_run_state, stored_rows

VALIDATED = 8  # slices of a validation run
VIEWS = 6
FINAL, VALIDATIONS = "final.safetensors", "validations.json"
OnValidation = Callable[[Model, int], JsonObject]


@dataclass(frozen=True)
class Trained:
    """What ``train`` made.

    ``validations`` holds one row per validation run: ``steps``, mean ``loss`` since the one before,
    ``lr`` of the last step, ``dice`` on a few slices, and what ``on_validation`` returned. It is
    empty if ``resume`` found the model complete.
    """

    model: Model  # as saved: the best on the validation slices, or the last (``keep``)
    scores: Scores  # on all validation slices
    path: Path
    last: Path  # the file of the last state
    log: Path  # of all steps
    validations: tuple[JsonObject, ...] = ()
    views: tuple[WindowView, ...] = ()  # some validation slices with their predictions
    label_asymmetry: tuple[LabelAsymmetry, ...] = ()  # of the training slices of each volume
    warnings: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Number of steps done, from the log."""
        return int(self.log.read_text().splitlines()[-1].split(",")[0])


@keeps_warnings
def train(
    volume: VolumeLike | Sequence[VolumeLike],
    labels: VolumeLike | Sequence[VolumeLike],
    out: str | Path,
    options: TrainOptions | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    device: str = "auto",
    on_validation: OnValidation | None = None,
    progress: Progress = silent,
    **changes: Any,
) -> Trained:
    """Train a 2D+ segmentation model on one volume or several, and save the best and last state.

    The best state, by Dice on a few validation slices, is saved as ``out``, the last as ``out``
    with ``.last`` before its ending, and loss and rate of every step as ``out`` with the ending
    ``.log.csv``. Until then the state of the run lies in the folder ``out`` + ``.run``; a killed
    run continues from there with ``resume`` and ends as if it had not been interrupted.

    Parameters
    ----------
    volume, labels
        Volumes, arrays (z, y, x) or paths, same shape; or lists of them, each volume with its
        labels.
    out
        Name ending in ``.safetensors``.
    options, changes
        How to train, and single fields of ``TrainOptions`` to change.
    resume, force
        Whether to continue an interrupted run; whether to overwrite.
    device
        ``auto``, ``cpu`` or ``cuda``.
    on_validation
        Called before the first step and at every validation run with the model, in eval mode, and
        the number of steps done; what it returns is added to the row of that validation.
    progress
        How to show the progress.

    Raises
    ------
    BadInputError
        If something given cannot be used; nothing is written then.
    """
    out, options = Path(out), TrainOptions.of(options, changes)
    check_model_name(out)
    paths = (out, out.with_suffix(".last.safetensors"), out.with_suffix(".log.csv"))
    for path in paths:
        check_writable(path, force or resume)
    where = device_named(device)
    check_devices(options.devices, where, device)
    volumes, marks = _listed(volume), _listed(labels)
    check_apart(out, *volumes, *marks, options.weights)
    with progress("reading", 0):
        data = plan_data(
            [_opened(one, options.devices) for one in volumes],
            [_opened(one, options.devices) for one in marks],
            options,
        )
        give_warnings(data.warnings)
        record = training_record(data, options)
    folder = out.with_name(out.name + ".run")
    for path in (*paths, folder):
        remove_stale(path)
    if resume and not folder.exists():
        return _completed(paths, record, data, where)
    with progress("building the network", 0):
        model = _built(data, options, record)
    precision = precision_of(options.precision, where)
    request = {"volume": record["fingerprint"], "labels": record["labels"], **record["recipe"]}
    request["more"] = [[one["fingerprint"], one["labels"]] for one in record.get("volumes", [])[1:]]
    run = open_run_state(folder, request, lambda _: {}, resume, force and not resume)
    kept = partial(_kept, folder, options.steps)
    with run.holding("training", out), says_what_is_kept(kept), _removed_without_state(run):
        validator = _Validator(folder, data.validation, options.patience, on_validation, progress)
        validator.begin(model)
        interval = validation_interval(options.steps, options.validation_runs)
        training = Training(model, data.source, options, interval)
        fit(training, where, precision, folder, validator, progress)
        model = load_model(folder / f"{options.keep}.safetensors")
        result = _scored(model, training.source.sources, data, where, paths, progress)
        with progress("writing", 0):
            certificate = certify(model, seed=options.seed, device=where).to_dict()
            scores = {"validation": replace(result.scores, provenance={}).to_dict()}
            model = replace(model, scores=scores, certificate=certificate)
            result = replace(result, model=model, validations=tuple(validator.rows))
            save_model(folder / FINAL, model)
            # The model comes last: where it is, the run is complete.
            for name, path in zip(("last.safetensors", LOG, FINAL), (*paths[1:], out), strict=True):
                with written_beside(path, force or resume) as part:
                    shutil.copyfile(folder / name, part)
            run.remove()
    return result


def _listed(given: VolumeLike | Sequence[VolumeLike]) -> list[VolumeLike]:
    return list(given) if isinstance(given, (list, tuple)) else [given]  # type: ignore[list-item]


def _opened(given: VolumeLike, devices: int) -> Volume:
    volume = volume_of(given)
    if devices == 1 or not isinstance(given, (str, Path)):
        return volume
    pixels = Reopened(str(given), volume.shape, volume.dtype)
    return replace(volume, pixels=pixels, facts={})


def _built(data: TrainingData, options: TrainOptions, record: JsonObject) -> Model:
    model = build_model(
        options.arch,
        options.encoder,
        slices=options.slices,
        classes=data.target.classes,
        weights=options.weights,
        init=options.init,
        tie=options.tie,
        encoder_depth=options.encoder_depth,
        seed=options.seed,
    )
    return replace(
        model,
        normalisation=data.source.sources[0].normalisation,
        training=record | {"stem_before": [one["asymmetry"] for one in stem_record(model)]},
        provenance=training_provenance(data, options),
    )


def _kept(folder: Path, steps: int) -> str:
    if not (folder / STATE).exists():
        return "nothing is kept, for the first validation run was still to come"
    done = stored_rows(folder / VALIDATIONS, "steps")[-1]["steps"]
    return f"{done} of {steps} steps are kept in {folder}; add --resume to go on"


@contextmanager
def _removed_without_state(run: RunState) -> Iterator[None]:
    """Remove a run that fails before there is a state to resume from."""
    try:
        yield
    except BaseException:
        if not (run.folder / STATE).exists():
            run.remove()
        raise


def _completed(
    paths: tuple[Path, Path, Path], record: JsonObject, data: TrainingData, device: torch.device
) -> Trained:
    """Return the result of a run that is complete already."""
    out, _, log = paths
    keys = ("fingerprint", "labels", "recipe")
    if out.is_file() and log.is_file():
        found, plain = read_metadata(out)["training"], json.loads(json.dumps(record))
        was, now = ({key: one.get(key) for key in keys} for one in (found, plain))
        differs = differing(was, now)
        if not differs:
            return _scored(load_model(out), data.source.sources, data, device, paths)
        raise BadInputError(
            f"{out} is complete, with another {differs}, expected the same to resume; choose "
            "another name, or start over with --force"
        )
    raise BadInputError(
        f"{out}.run holds no run to resume, expected an unfinished one; leave --resume out"
    )


def _scored(
    model: Model,
    sources: Sequence[PatchSource],
    data: TrainingData,
    device: torch.device,
    paths: tuple[Path, Path, Path],
    progress: Progress = silent,
) -> Trained:
    model.module.to(device)
    scores = validate(model, sources, data.validation, device, progress)
    scores = replace(scores, provenance=model.provenance)
    with progress("drawing", 0):
        shown = spread(data.validation[0], VIEWS)
        views = views_of(model, sources[0], shown, device, paths[0].stem)
    return Trained(model, scores, *paths, views=views, label_asymmetry=data.label_asymmetry)


@dataclass(frozen=True)
class _Validator:
    """Validates on a few slices, saves the last state and the best, says when to stop."""

    folder: Path  # of the run
    slices: tuple[tuple[int, ...], ...]  # all validation slices of each volume
    patience: int | None  # validation runs without a better Dice after which training stops
    on_validation: OnValidation | None  # of ``train``
    progress: Progress

    @property
    def rows(self) -> list[JsonObject]:
        """Rows of the validation runs so far, those before a kill included."""
        file = self.folder / VALIDATIONS
        return stored_rows(file, "steps", "dice") if file.exists() else []

    def begin(self, model: Model) -> None:
        """Add the row before the first step, unless the run is resumed."""
        if self.on_validation is None or (self.folder / STATE).exists():
            return
        model.module.eval()
        found = self.on_validation(model, 0)
        model.module.train()
        self._add({"steps": 0, "loss": None, "lr": None, "dice": None, **found})

    def __call__(self, training: Training, steps: int, loss: float, lr: float) -> ValidationResult:
        """Validate; the arguments are those of ``fit``."""
        model, sources = training.model, training.source.sources
        each = math.ceil(VALIDATED / len(sources))
        slices = [spread(zs, each) for zs in self.slices]
        mode = model.module.training
        model.module.eval()
        dice = validate(model, sources, slices, training.device, self.progress).dice
        found = {} if self.on_validation is None else self.on_validation(model, steps)
        model.module.train(mode)
        rows = self._add({"steps": steps, "loss": loss, "lr": lr, "dice": dice, **found})
        state = replace(model, training=model.training | {"steps": steps}, scores={"dice": dice})
        last, best = (self.folder / f"{name}.safetensors" for name in ("last", "best"))
        save_model(last, state)
        if not best.exists() or (dice or 0.0) >= (read_metadata(best)["scores"]["dice"] or 0.0):
            with written_beside(best) as part:
                shutil.copyfile(last, part)
        stop = self.patience is not None and validations_since_best(rows) >= self.patience
        return ValidationResult(dice, stop)

    def _add(self, row: JsonObject) -> list[JsonObject]:
        rows = [*(one for one in self.rows if one["steps"] < row["steps"]), row]
        with written_beside(self.folder / VALIDATIONS) as part:
            part.write_text(json.dumps(rows))
        return rows


def validations_since_best(rows: Sequence[JsonObject]) -> int:
    """Return how many runs ago the best Dice was first seen; the row before step 1 is none."""
    dice = [row["dice"] or 0.0 for row in rows if row["steps"] > 0]
    return len(dice) - 1 - dice.index(max(dice))
