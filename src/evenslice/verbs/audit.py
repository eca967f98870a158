"""Audit: open, draw windows, arrange, normalise, explain, shares, bootstrap, verdict."""

import copy
from collections.abc import Sequence

import numpy as np

from evenslice.errors import BadInputError
from evenslice.evidence.attribution import explaining
from evenslice.evidence.checks import run_checks
from evenslice.evidence.measure import Scene, measure, method_result, read_sites
from evenslice.evidence.result import Audit
from evenslice.evidence.sites import plan_sites
from evenslice.evidence.stats import overall_verdict
from evenslice.model.checkpoint import stem_record
from evenslice.model.streaming import normalisation_of
from evenslice.progress import Progress, silent
from evenslice.verbs.choices import VolumeLike, check_same_shape, device_of, trained_slices, volume_of
from evenslice.verbs.models import ModelLike, check_segments, model_of, normalised_by
from evenslice.volume.array import Volume

METHODS = ("gradient",)
WINDOWS = 40
CHECK_WINDOWS = 4


def audit(
    model: ModelLike,
    volume: VolumeLike,
    *,
    labels: VolumeLike | None = None,
    methods: Sequence[str] = METHODS,
    windows: int = WINDOWS,
    tile: int = 256,
    margin: float = 0.05,
    confidence: float = 0.95,
    slices: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    device: str = "auto",
    looks: int = 1,
    label: str = "model",
    progress: Progress = silent,
) -> Audit:
    """Measure how much each slot of a model counts and whether previous equals next.

    Every window is measured together with its reversal on the same pixels, reversed before normalisation; the
    intervals come from a bootstrap over blocks of S x tile x tile.

    Parameters
    ----------
    model
        A model, or any form of one that ``model_of`` takes: a file, or ``package.module:callable``.
    volume
        A volume, an array (z, y, x) or a path.
    labels
        Truth of the same shape, shown beside the prediction.
    methods
        Any of ``gradient``.
    windows
        How many windows, wholly inside the volume; fewer when it holds no more.
    tile
        Side of a window in pixels, at most the slice's.
    margin
        Half-width of the zone in which a mirror pair counts as even.
    confidence
        Of the intervals.
    slices
        S, where a foreign network does not say it.
    mean, std
        Normalisation in raw intensity units, one number or S; None for the model's own, else
        the volume's.
    seed
        Seed of the windows and the bootstrap.
    device
        ``auto``, ``cpu`` or ``cuda``.
    looks
        How many windows to keep for looking at.
    label
        Name of the model on these.
    progress
        How to show the progress.

    Raises
    ------
    BadInputError
        If something given cannot be used.
    """
    model, volume = model_of(model, slices, mean, std), volume_of(volume)
    check_segments(model)
    truth = None if labels is None else volume_of(labels)
    _check_options(volume, truth, methods, margin, confidence)
    model = normalised_by(model, volume, seed)
    sites = plan_sites(volume.shape, model.slices, tile, windows, seed, model.stride, model.size)
    scene = Scene(
        module=copy.deepcopy(model.module).float().to(device_of(device)),
        stride=model.stride,
        slices=model.slices,
        volume=volume,
        truth=truth,
        normalisation=normalisation_of(model),
        device=device_of(device),
        label=label,
    )
    with explaining(scene.module), progress(f"auditing {label}", len(sites)) as step:
        measured = measure(scene, sites, looks, step)
        checks = run_checks(scene, [raw for _, raw in read_sites(volume, model.slices, sites[:CHECK_WINDOWS])])
    clusters = np.array([site.cluster for site in sites])
    result = method_result(measured.importance, clusters, margin, confidence, seed)
    used = measured.importance.sum(axis=2).min(axis=1) > 0
    seen = trained_slices(model, volume)
    return Audit(
        slices=model.slices,
        windows=int(used.sum()),
        clusters=len(set(clusters[used].tolist())),
        dropped=int((~used).sum()),
        seed=seed,
        margin=margin,
        confidence=confidence,
        tile=(sites[0].y.stop - sites[0].y.start, sites[0].x.stop - sites[0].x.start),
        stems=tuple(stem_record(model)),
        normalisation=scene.normalisation,
        methods={"gradient": result},
        probability_change=float(measured.change.mean()),
        flipped_fraction=float(measured.flipped.mean()),
        checks=checks,
        verdict=overall_verdict([result.verdict], scene.normalisation.uniform),
        trained_on=sum(site.z in seen for site in sites) if model.training else None,
        looks=measured.looks,
    )


def _check_options(
    volume: Volume, truth: Volume | None, methods: Sequence[str], margin: float, confidence: float
) -> None:
    if truth is not None:
        check_same_shape(volume, truth)
    unknown = sorted(set(methods) - set(METHODS))
    if unknown or not methods:
        raise BadInputError(
            f"the method {', '.join(unknown) or '(none)'} is unknown, expected {', '.join(METHODS)}; choose among these"
        )
    for name, value in (("margin", margin), ("confidence", confidence)):
        if not 0 < value < 1:
            raise BadInputError(
                f"the {name} is {value}, expected a number between 0 and 1; leave it out for the default"
            )
