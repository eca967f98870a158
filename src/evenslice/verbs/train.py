"""Train: open, split, build, widen the stem, fit, keep the best, segment the validation slices, evaluate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from evenslice.evidence.certificate import certify
from evenslice.evidence.window_view import WindowView
from evenslice.labels.metrics import Scores
from evenslice.learn.devices import check_devices
from evenslice.learn.multi_volume import Mixture
from evenslice.model.build import build_model
from evenslice.model.checkpoint import check_model_name, load_model, save_model
from evenslice.model.inputs import VolumeLike, check_apart, device_of, volume_of
from evenslice.model.spec import Model, Spec
from evenslice.model.tile_limits import free_memory
from evenslice.options import TrainOptions, TrainPrecision
from evenslice.progress import Progress, silent
from evenslice.verbs.train_plan import Plan, origin, plan_training, provenance
from evenslice.verbs.train_run import Keeper, Run, Watch, check_outputs, is_made
from evenslice.verbs.train_score import looks_at, score_slices, validate
from evenslice.volume.atomic import remove_stale

__all__ = ["Trained", "score_slices", "train", "validate"]
LAST, LOG = ".last.safetensors", ".log.csv"
Given = VolumeLike | Sequence[VolumeLike]


@dataclass(frozen=True)
class Trained:
    """What ``train`` made.

    Attributes
    ----------
    model
        The network as saved: the best on the validation slices, or the last (``TrainOptions.keep``).
    scores
        Its scores on all validation slices.
    path, last, log
        Where it lies, where the last state lies, and where the log of all steps lies.
    looks
        What each look at the validation slices saw, none if ``resume`` found the model made already: ``steps``, mean ``loss`` since the look before, ``lr`` of the last step,
        ``dice`` on a few slices, and what ``watch`` returned.
    shown
        Validation slices to look at, as many as were asked for.
    warnings
        What the user should know.
    """

    model: Model
    scores: Scores
    path: Path
    last: Path
    log: Path
    looks: tuple[dict[str, Any], ...] = ()
    shown: tuple[WindowView, ...] = ()
    warnings: tuple[str, ...] = ()


def train(
    volume: Given,
    labels: Given,
    out: str | Path,
    recipe: TrainOptions | None = None,
    *,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    watch: Watch | None = None,
    shown: int = 0,
    told: Callable[["Trained"], None] | None = None,
    label: str = "training",
    progress: Progress = silent,
) -> Trained:
    """Train a 2D+ segmentation model on one volume or several, and save the best and the last state.

    The best state, by Dice on a few validation slices at each look, is saved as ``out``, the last as ``out`` with
    ``.last`` before its ending, and loss and rate of every step as ``out`` with the ending ``.log.csv``. While the run goes
    on, its state lies in the folder ``out`` + ``.run``; a killed run goes on from there with ``resume`` and ends as if it
    had not been interrupted.

    Parameters
    ----------
    volume, labels
        Volumes, arrays (z, y, x) or paths, same shape; or lists of them, each volume with its labels.
    out
        Name ending in ``.safetensors``.
    recipe
        How to train; the defaults when None.
    device, resume, force
        ``auto``, ``cpu`` or ``cuda``; whether to go on with a killed run; whether to overwrite.
    watch
        Called before the first step and at every look with the model, in eval mode, and the number of steps done; what it
        returns is kept with the look.
    shown
        How many validation slices to keep for looking at.
    told
        Called with the result before the run's state is removed: what it writes is written again by ``resume`` if that is cut short.
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
    out, recipe = Path(out), recipe or TrainOptions()
    check_model_name(out)
    last, log = out.with_suffix(LAST), out.with_suffix(LOG)
    if not resume:
        check_outputs(out, (last, log), resume, force)
    where = device_of(device)
    check_devices(recipe.devices, where, device)
    given, truth = _listed(volume), _listed(labels)
    check_apart(out, *given, *truth, recipe.weights)
    plan = plan_training(
        [volume_of(one) for one in given], [volume_of(one) for one in truth], recipe
    )
    model = _built(plan, recipe)
    for place in (out, last, log):
        remove_stale(place)
    if resume and is_made(out, model.training):
        kept = load_model(out)
        return Trained(kept, validate(kept, plan.validating(plan.mixture), where), out, last, log)
    check_outputs(out, (last, log), resume, force)
    from evenslice.learn.fit import LOG as ROWS
    from evenslice.learn.fit import precision_of
    from evenslice.learn.preload import held_sources

    precision = precision_of(recipe.precision, where)
    with Run(out, recipe, resume, force, model.training) as run:
        folder = run.folder
        mixture = held_sources(plan.mixture, recipe, free_memory() // recipe.devices)
        validation = plan.validating(mixture)
        keeper = Keeper(model, validation, where, folder, recipe.patience, watch)
        keeper.begin()
        others = _abroad(plan.mixture, given, truth) if recipe.devices > 1 else None
        _fit(model, (mixture, others), recipe, (where, precision), folder, keeper, label, progress)
        kept = load_model(folder / f"{recipe.keep}.safetensors")
        kept.module.to(where)
        scores = validate(kept, validation, where)
        certificate = certify(kept, seed=recipe.seed, device=where).to_dict()
        kept = kept.with_facts(scores={"validation": scores.to_dict()}, certificate=certificate)
        looks = keeper.looks
        seen = looks_at(kept, validation, where, out.stem, shown) if shown else ()
        save_model(folder / "made.safetensors", kept)
        run.place({"made.safetensors": out, "last.safetensors": last, ROWS: log})
        scores = replace(scores, provenance=kept.provenance)
        result = Trained(kept, scores, out, last, log, looks, seen, plan.warnings)
        if told is not None:
            told(result)
    return result


def _listed(given: Given) -> list[VolumeLike]:
    return list(given) if isinstance(given, (list, tuple)) else [given]  # type: ignore[list-item]


def _built(plan: Plan, recipe: TrainOptions) -> Model:
    return build_model(
        recipe.arch,
        recipe.encoder,
        slices=recipe.slices,
        classes=plan.first.target.classes,
        weights=recipe.weights,
        init=recipe.init,
        tie=recipe.tie,
        encoder_depth=recipe.encoder_depth,
        seed=recipe.seed,
    ).with_facts(
        normalisation=plan.first.normalisation,
        training=provenance(plan, recipe),
        provenance=origin(plan, recipe),
    )


def _abroad(
    mixture: Mixture, volumes: Sequence[VolumeLike], labels: Sequence[VolumeLike]
) -> Mixture:
    """Return what to draw patches from as other processes can have it."""
    from evenslice.learn.job import abroad

    sources = zip(mixture.sources, volumes, labels, strict=True)
    return replace(
        mixture,
        sources=tuple(
            replace(
                source, volume=abroad(source.volume, volume), labels=abroad(source.labels, truth)
            )
            for source, volume, truth in sources
        ),
    )


def _fit(
    model: Model,
    mixtures: tuple[Mixture, Mixture | None],
    recipe: TrainOptions,
    on: tuple[torch.device, TrainPrecision],
    folder: Path,
    keeper: Keeper,
    label: str,
    progress: Progress,
) -> None:
    """Train on the first device, and have the others train along on what they can open themselves."""
    from evenslice.learn.fit import Seen, chunk_of, fit
    from evenslice.learn.job import Job
    from evenslice.learn.module import Training
    from evenslice.learn.ranks import crew

    chunk, (here, others) = chunk_of(recipe.steps, recipe.validation_runs), mixtures
    assert isinstance(model.spec, Spec)
    job = Job(model.spec, model.stride, others or here, recipe, chunk, on[0].type, on[1], folder)
    training = Training(model.module, model.stride, here, recipe, chunk)
    with crew(job, recipe.devices) as ranks:
        fit(training, *on, folder, lambda *seen: Seen(*keeper.look(*seen)), ranks, label, progress)
