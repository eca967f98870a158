"""Train: open, split, build, widen the stem, fit, keep the best, segment the validation slices, evaluate."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evenslice.errors import BadInputError
from evenslice.evidence.certificate import certify
from evenslice.labels.metrics import Scores, confusion, scores_of
from evenslice.labels.targets import Target, resolve_target
from evenslice.learn.patches import PatchSource
from evenslice.learn.recipe import Precision, Recipe
from evenslice.learn.split import split_slices
from evenslice.model.build import build_model
from evenslice.model.checkpoint import check_model_name, load_model, read_about, save_model
from evenslice.model.predict import classes_of
from evenslice.model.spec import Model
from evenslice.model.streaming import predict_slices
from evenslice.progress import Progress, silent
from evenslice.verbs.choices import (
    VolumeLike,
    check_same_shape,
    device_of,
    fingerprint,
    parse_span,
    spans_of,
    volume_of,
)
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import estimate
from evenslice.volume.writing import check_writable, written_beside

LOOK_SLICES = 8
Watch = Callable[[Model, int], dict[str, Any]]


@dataclass(frozen=True)
class Trained:
    """What ``train`` made.

    Attributes
    ----------
    model
        The network as saved: the best on the validation slices, or the last (``Recipe.keep``).
    scores
        Its scores on all validation slices.
    path, last
        Where it lies, and where the last state lies.
    looks
        What each look at the validation slices saw: ``steps``, mean ``loss`` since the look before, ``dice`` on a few
        slices, and what ``watch`` returned.
    """

    model: Model
    scores: Scores
    path: Path
    last: Path
    looks: tuple[dict[str, Any], ...] = ()


def train(
    volume: VolumeLike,
    labels: VolumeLike,
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    watch: Watch | None = None,
    label: str = "training",
    progress: Progress = silent,
) -> Trained:
    """Train a 2D+ segmentation model on one volume and save the best and the last state.

    The best state, by Dice on a few validation slices after each quarter of the run, is saved as ``out``, the last as
    ``out`` with ``.last`` before its ending. While the run goes on, its state lies in the folder ``out`` + ``.run``;
    a killed run goes on from there with ``resume`` and ends as if it had not been interrupted.

    Parameters
    ----------
    volume, labels
        Volumes, arrays (z, y, x) or paths, same shape.
    out
        Name ending in ``.safetensors``.
    recipe
        How to train; the defaults when None.
    device, resume, force
        ``auto``, ``cpu`` or ``cuda``; whether to go on with a killed run; whether to overwrite.
    watch
        Called before the first step and at every look with the model, in eval mode, and the number of steps done; what it
        returns is kept with the look.
    label, progress
        What to call it, and how to show the progress.

    Returns
    -------
    Trained
        The best model, scored on all validation slices.

    Raises
    ------
    BadInputError
        If something given cannot be used; nothing is written then.
    """
    out, recipe = Path(out), recipe or Recipe()
    check_model_name(out)
    check_writable(out, force)
    check_writable(out.with_suffix(".last.safetensors"), force)
    volume, labels = volume_of(volume), volume_of(labels)
    check_same_shape(volume, labels)
    source, zs = _plan(volume, labels, recipe)
    model = build_model(
        recipe.arch,
        recipe.encoder,
        slices=recipe.slices,
        classes=source.target.classes,
        weights=recipe.weights,
        init=recipe.init,
        tie=recipe.tie,
        encoder_depth=recipe.encoder_depth,
        seed=recipe.seed,
    ).with_facts(normalisation=source.normalisation, training=_provenance(volume, source, zs, recipe))
    where = device_of(device)
    from evenslice.learn.fit import precision_of

    precision = precision_of(recipe.precision, where)
    with _Run(out, recipe, resume, force, model.training) as folder:
        keeper = _Keeper(model, volume, source, zs, where, folder, watch)
        keeper.begin()
        _fit(model, source, recipe, (where, precision), folder, keeper, label, progress)
        kept = load_model(folder / f"{recipe.keep}.safetensors")
        kept.module.to(where)
        scores = validate(kept, volume, source, zs, where)
        certificate = certify(kept, seed=recipe.seed, device=where).to_dict()
        kept = kept.with_facts(scores={"validation": scores.to_dict()}, certificate=certificate)
        looks = keeper.looks
        save_model(out, kept)
        last = out.with_suffix(".last.safetensors")
        (folder / "last.safetensors").replace(last)
    return Trained(kept, scores, out, last, looks)


def validate(model: Model, volume: Volume, source: PatchSource, zs: list[int], device: torch.device) -> Scores:
    """Segment some slices and compare them with their targets; labels to be ignored are left out."""
    return score_slices(model, volume, source.labels, source.target, zs, device, source.ignore)


def score_slices(
    model: Model,
    volume: Volume,
    labels: Volume,
    target: Target,
    zs: Sequence[int],
    device: torch.device,
    ignore: int | None = None,
) -> Scores:
    """Segment some slices of a volume and compare them with what the labels mean; the label ``ignore`` is left out."""
    size = max(2, model.spec.classes)
    table = np.zeros((size, size), np.int64)
    for z, probability in zip(zs, predict_slices(model, volume, zs, device), strict=True):
        guess = classes_of(torch.from_numpy(probability)[None])[0].numpy()
        plane = labels.slice_at(z)
        keep = np.ones(plane.shape, bool) if ignore is None else plane != ignore
        table += confusion(guess[keep], target.apply(plane)[keep], size)
    return scores_of(table)


def _plan(volume: Volume, labels: Volume, recipe: Recipe) -> tuple[PatchSource, list[int]]:
    """Split the slices, decide what the labels mean, and measure the normalisation on the training slices."""
    span = None
    if recipe.validation is not None:
        part = parse_span(recipe.validation, volume.shape[0], "--validation")
        span = range(part.start, part.stop)
    centres, zs = split_slices(volume.shape[0], recipe.slices, span)
    target = resolve_target(labels, recipe.target, recipe.ignore_label)
    crop = (min(recipe.crop, volume.shape[1]), min(recipe.crop, volume.shape[2]))
    normalisation = estimate(volume, recipe.seed, centres)
    return (
        PatchSource(
            volume,
            labels,
            tuple(centres),
            recipe.slices,
            crop,
            target,
            normalisation,
            recipe.reverse_z,
            recipe.ignore_label,
        ),
        zs,
    )


def _provenance(volume: Volume, source: PatchSource, zs: list[int], recipe: Recipe) -> dict[str, Any]:
    """Record what a model was trained on, for its file; the slices are those its windows can see."""
    reach, depth = recipe.slices // 2, volume.shape[0]
    seen = sorted({n for z in source.centres for n in range(max(0, z - reach), min(depth, z + reach + 1))})
    return {
        "volume": Path(volume.source).name,
        "fingerprint": fingerprint(volume),
        "labels": fingerprint(source.labels),
        "voxel_nm": volume.voxel_nm,
        "slices": spans_of(seen),
        "validation": spans_of(zs),
        "target": source.target.kind,
        "recipe": recipe.model_dump() | {"weights": Path(recipe.weights).name},
        "versions": {name: version(name) for name in ("evenslice", "torch", "timm", "segmentation-models-pytorch")},
    }


class _Run:
    """The folder in which a run keeps its state until it ends; a run that fails before there is a state leaves nothing."""

    def __init__(self, out: Path, recipe: Recipe, resume: bool, force: bool, training: dict[str, Any]) -> None:
        self.folder = out.with_name(out.name + ".run")
        plan = json.dumps(recipe.model_dump() | {key: training[key] for key in ("fingerprint", "labels")}, indent=2)
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
        if kind is None or not (self.folder / "state.ckpt").exists():
            shutil.rmtree(self.folder)


class _Keeper:
    """After each chunk: validates on a few slices, saves the last state, and the best."""

    def __init__(
        self,
        model: Model,
        volume: Volume,
        source: PatchSource,
        zs: list[int],
        device: torch.device,
        folder: Path,
        watch: Watch | None = None,
    ) -> None:
        picks = np.unique(np.linspace(0, len(zs) - 1, LOOK_SLICES).round().astype(int))
        self._zs = [zs[p] for p in picks]
        self._model, self._volume, self._source, self._device, self._folder = model, volume, source, device, folder
        self._watch = watch

    @property
    def looks(self) -> tuple[dict[str, Any], ...]:
        """What the looks so far saw, those before a kill included."""
        file = self._folder / "looks.json"
        return tuple(json.loads(file.read_text())) if file.exists() else ()

    def begin(self) -> None:
        """Watch the model before the first step, unless the run goes on."""
        if self._watch is None or (self._folder / "state.ckpt").exists():
            return
        self._model.module.eval()
        seen = self._watch(self._model, 0)
        self._model.module.train()
        self._note({"steps": 0, "loss": None, "dice": None, **seen})

    def _note(self, look: dict[str, Any]) -> None:
        earlier = [one for one in self.looks if one["steps"] < look["steps"]]
        with written_beside(self._folder / "looks.json") as part:
            part.write_text(json.dumps([*earlier, look]))

    def __call__(self, steps: int, loss: float) -> str:
        model = self._model
        training = model.module.training
        model.module.eval()
        dice = validate(model, self._volume, self._source, self._zs, self._device).dice
        seen = {} if self._watch is None else self._watch(model, steps)
        model.module.train(training)
        self._note({"steps": steps, "loss": loss, "dice": dice, **seen})
        state = model.with_facts(training=model.training | {"steps": steps}, scores={"dice": dice})
        save_model(self._folder / "last.safetensors", state)
        best = self._folder / "best.safetensors"
        if not best.exists() or (dice or 0.0) >= (read_about(best)["scores"]["dice"] or 0.0):
            shutil.copyfile(self._folder / "last.safetensors", best)
        return "no foreground to validate on" if dice is None else f"validation Dice {dice:.3f}"


def _fit(
    model: Model,
    source: PatchSource,
    recipe: Recipe,
    on: tuple[torch.device, Precision],
    folder: Path,
    keeper: _Keeper,
    label: str,
    progress: Progress,
) -> None:
    from evenslice.learn.fit import chunk_of, fit
    from evenslice.learn.module import Training

    steps, chunk = recipe.steps, chunk_of(recipe.steps, recipe.looks)
    training = Training(
        model.module, model.stride, source, steps=steps, batch=recipe.batch, lr=recipe.lr, seed=recipe.seed, chunk=chunk
    )
    fit(training, *on, folder / "state.ckpt", keeper, progress, label)
