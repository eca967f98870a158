"""Audit: open, draw windows, arrange, normalise, explain, shares, intervals, verdict."""

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from evenslice.errors import BadInputError
from evenslice.evidence.checks import agreement_check, completeness_checks, run_checks
from evenslice.evidence.gradients import explaining
from evenslice.evidence.maps import writing_maps
from evenslice.evidence.measure import Found, Question, measure
from evenslice.evidence.methods import check_methods, default_methods
from evenslice.evidence.network import ModelOnVolume, at_once_for, read_sites
from evenslice.evidence.result import Audit, Check, Latin, MethodResult, Sampling
from evenslice.evidence.sampling import DESIGNS, SampledWindow, plan_sites
from evenslice.evidence.stats import (
    MOST_WINDOWS,
    confidence_each,
    is_decided,
    overall_verdict,
    planned_looks,
)
from evenslice.evidence.summary import apply_abstention, lag_result, latin_result, method_result
from evenslice.evidence.target import REGIONS
from evenslice.evidence.window_view import WindowView
from evenslice.labels.targets import Target, whole
from evenslice.model.checkpoint import stem_record
from evenslice.model.inputs import (
    ModelLike,
    VolumeLike,
    check_same_shape,
    check_segments,
    device_of,
    model_of,
    normalised_by,
    parse_roi,
    trained_slices,
    volume_of,
    voxel_warning,
    wrapped_module,
)
from evenslice.model.provenance import provenance_of
from evenslice.model.spec import Model
from evenslice.model.streaming import normalisation_of
from evenslice.options import Design, Region
from evenslice.progress import Progress, Step, silent
from evenslice.volume.array import Roi, Volume
from evenslice.volume.normalisation import estimate

CHECK_WINDOWS = 4
AUTO: Literal["auto"] = "auto"


def audit(
    model: ModelLike | nn.Module,
    volume: VolumeLike,
    *,
    labels: VolumeLike | None = None,
    methods: Sequence[str] | None = None,
    windows: int | Literal["auto"] = AUTO,
    tile: int = 256,
    region: Region = "predicted",
    design: Design = "reversal",
    roi: str | None = None,
    margin: float = 0.05,
    confidence: float = 0.95,
    slices: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    trust: bool = False,
    seed: int = 0,
    device: str = "auto",
    maps: str | Path | None = None,
    force: bool = False,
    views: int = 1,
    label: str = "model",
    progress: Progress = silent,
) -> Audit:
    """Measure how much each slot of a model counts and whether previous equals next.

    Every window is measured together with its reversal on the same pixels, reversed before normalisation; the
    intervals come from a bootstrap over blocks of S x tile x tile.

    Parameters
    ----------
    model
        A model; any form of one that ``model_of`` takes: a file, or ``package.module:callable``; or a network as it is, of
        which a copy is audited.
    volume
        A volume, an array (z, y, x) or a path.
    labels
        Truth of the same shape: windows are then drawn in proportion from those with little and with much foreground, the lag
        is measured, and the truth is shown beside the prediction.
    methods
        Families of evidence, any of ``ablation``, ``ablation-copy``, ``shapley``, ``gradient``, ``integrated-gradients``,
        ``input-x-gradient``, ``smoothgrad``; None for the first five, as far as the model allows. The response to the
        reversal is always measured.
    windows
        How many windows, wholly inside the volume, fewer when it holds no more; or ``auto``: as many as are needed to
        decide, at most 64, looking after 12, 16, 24, 32, 48 and 64.
    tile
        Side of a window in pixels, at most the slice's.
    region
        What is explained, see ``evenslice.evidence.target``.
    design
        ``latin`` measures the S cyclic shifts of each window too, and says whether all slots are alike.
    roi
        ``Z0:Z1,Y0:Y1,X0:X1`` in which windows lie wholly.
    margin
        Half-width of the zone in which a mirror pair counts as even.
    confidence
        Of the intervals.
    slices
        S, where a foreign network does not say it.
    mean, std
        Normalisation in raw intensity units, one number or S; None for the model's own, else the volume's.
    seed
        Seed of the windows and the bootstrap.
    device
        ``auto``, ``cpu`` or ``cuda``.
    maps, force
        OME-Zarr store to write the attribution of every window to, slot by slot; whether to overwrite it.
    views
        How many windows to keep for showing.
    label
        Name of the model on these.
    progress
        How to show the progress.

    Raises
    ------
    BadInputError
        If something given cannot be used.
    """
    known = wrapped_module(model, slices) if isinstance(model, nn.Module) else model
    model, volume = model_of(known, slices, mean, std, trust), volume_of(volume)
    given = model
    check_segments(model)
    truth = None if labels is None else whole(volume_of(labels))
    _check_options(volume, truth, windows, region, design, margin, confidence)
    model = normalised_by(model, volume, seed)
    question = Question((), design, region, truth, _target(model, truth), seed, label)
    sites = _sites(
        model,
        question,
        volume,
        tile,
        windows,
        None if roi is None else parse_roi(roi, volume.shape),
        seed,
    )
    scene = _scene(model, volume, sites[0], device, seed)
    allowed = default_methods(model.slices, scene.differentiable) if methods is None else methods
    question = replace(question, methods=check_methods(allowed, model.slices, scene.differentiable))
    plan = planned_looks(len(sites), None if windows == AUTO else int(windows))
    made = provenance_of(seed, model=given, volume=volume, labels=truth)
    with ExitStack() as stack:
        stack.enter_context(explaining(scene.module))
        keep = None
        if maps is not None:
            keep = stack.enter_context(
                writing_maps(Path(maps), plan[-1], volume.voxel_nm, force, made)
            )
        step = stack.enter_context(progress(f"auditing {label}", plan[-1]))
        gathered = _gather(scene, question, sites, plan, margin, confidence, views, step, keep)
        checks = run_checks(
            scene, [raw for _, raw in read_sites(volume, model.slices, sites[:CHECK_WINDOWS])]
        )
    result = _result(
        model, scene, question, gathered, checks, windows == AUTO, plan, margin, confidence
    )
    return replace(
        result, provenance=made, warnings=() if truth is None else voxel_warning(volume, truth)
    )


@dataclass
class _Gathered:
    """What has been measured so far, and the results of the last look at it."""

    sites: list[SampledWindow] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    views: list[WindowView] = field(default_factory=list)
    methods: dict[str, MethodResult] = field(default_factory=dict)

    @property
    def clusters(self) -> NDArray[np.intp]:
        return np.array([site.cluster for site in self.sites], np.intp)

    def importance(self, name: str) -> NDArray[np.float64]:
        return np.stack([found.importance[name] for found in self.found])


def _gather(
    scene: ModelOnVolume,
    question: Question,
    sites: Sequence[SampledWindow],
    plan: Sequence[int],
    margin: float,
    confidence: float,
    views: int,
    step: Step,
    keep: Any,
) -> _Gathered:
    """Measure windows until a look decides, or the plan ends."""
    gathered, each = _Gathered(), confidence_each(confidence, len(plan))
    for end in plan:
        part = sites[len(gathered.sites) : end]
        for found in measure(scene, question, part, step, keep):
            if len(gathered.views) < views and found.view is not None:
                gathered.views.append(found.view)
            gathered.found.append(replace(found, view=None))
        gathered.sites.extend(part)
        gathered.methods = apply_abstention(
            {
                name: method_result(
                    gathered.importance(name)[:, :2], gathered.clusters, margin, each, question.seed
                )
                for name in question.methods
            }
        )
        if is_decided([method.verdict for method in gathered.methods.values()]):
            break
    return gathered


def _result(
    model: Model,
    scene: ModelOnVolume,
    question: Question,
    gathered: _Gathered,
    checks: dict[str, Check],
    sequential: bool,
    plan: tuple[int, ...],
    margin: float,
    confidence: float,
) -> Audit:
    sites, found, clusters = gathered.sites, gathered.found, gathered.clusters
    each, verdicts = (
        confidence_each(confidence, len(plan)),
        [m.verdict for m in gathered.methods.values()],
    )
    used = np.array(
        [all(v.sum(axis=1).min() > 0 for v in one.importance.values()) for one in found]
    )
    if not found[0].importance:
        used = np.ones(len(found), bool)
    latin: dict[str, Latin] = {}
    if question.design == "latin" and model.slices > 1:
        latin = {
            name: latin_result(
                gathered.importance(name), clusters, margin, confidence, question.seed
            )
            for name in question.methods
        }
    missed = {name: [one.incompleteness[name] for one in found] for name in found[0].incompleteness}
    seen = trained_slices(model, scene.volume)
    return Audit(
        slices=model.slices,
        windows=int(used.sum()),
        clusters=len(set(clusters[used].tolist())),
        dropped=int((~used).sum()),
        seed=question.seed,
        margin=margin,
        confidence=confidence,
        tile=(sites[0].y.stop - sites[0].y.start, sites[0].x.stop - sites[0].x.start),
        stems=_stems(model),
        normalisation=scene.normalisation,
        methods=gathered.methods,
        probability_change=float(np.mean([one.change for one in found])),
        flipped_fraction=float(np.mean([one.flipped for one in found])),
        checks=completeness_checks(missed)
        | {"agreement": agreement_check(gathered.methods)}
        | checks,
        verdict=overall_verdict(verdicts, scene.normalisation.uniform),
        trained_on=sum(site.z in seen for site in sites) if model.training else None,
        sampling=Sampling(
            "sequential" if sequential else "fixed",
            plan,
            each,
            is_decided(verdicts) if sequential else None,
        ),
        design=question.design,
        region=question.region,
        lag=lag_result([one.lag for one in found], clusters, confidence, question.seed),
        latin=latin,
        views=tuple(gathered.views),
    )


def _stems(model: Model) -> tuple[dict[str, Any], ...]:
    """Describe the stems; none where the network shows none."""
    try:
        return tuple(stem_record(model))
    except BadInputError:
        return ()


def _target(model: Model, truth: Volume | None) -> Target | None:
    """Labels mean what they meant in training; for a foreign model the foreground, or classes."""
    if truth is None:
        return None
    classes = model.spec.classes
    return Target(model.training.get("target", "classes" if classes > 1 else "foreground"), classes)


def _sites(
    model: Model,
    question: Question,
    volume: Volume,
    tile: int,
    windows: int | str,
    roi: Roi | None,
    seed: int,
) -> list[SampledWindow]:
    truth, target = question.truth, question.target

    def richness(site: SampledWindow) -> float:
        assert truth is not None
        assert target is not None
        return float(
            (target.apply(truth.read((slice(site.z, site.z + 1), site.y, site.x))) > 0).mean()
        )

    return plan_sites(
        volume.shape,
        model.slices,
        tile,
        MOST_WINDOWS if windows == AUTO else int(windows),
        seed,
        model.stride,
        model.size,
        roi,
        None if truth is None else richness,
        volume.source,
    )


def _scene(
    model: Model, volume: Volume, site: SampledWindow, device: str, seed: int
) -> ModelOnVolume:
    where = device_of(device)
    module = copy.deepcopy(model.module).float().to(where)
    shape = (model.slices, site.y.stop - site.y.start, site.x.stop - site.x.start)
    with explaining(module):
        at_once = at_once_for(module, where, shape, model.stride)
    return ModelOnVolume(
        module=module,
        stride=model.stride,
        slices=model.slices,
        volume=volume,
        normalisation=normalisation_of(model),
        baseline=estimate(volume, seed).mean[0],
        device=where,
        at_once=at_once,
    )


def _check_options(
    volume: Volume,
    truth: Volume | None,
    windows: int | str,
    region: str,
    design: str,
    margin: float,
    confidence: float,
) -> None:
    if truth is not None:
        check_same_shape(volume, truth)
    if isinstance(windows, str) and windows != AUTO:
        raise BadInputError(
            f"windows is {windows!r}, expected a whole number or auto; write for example 40"
        )
    for name, value, known in (("region", region, REGIONS), ("design", design, DESIGNS)):
        if value not in known:
            raise BadInputError(
                f"the {name} {value!r} is unknown, expected {', '.join(known)}; choose one"
            )
    if region == "truth" and truth is None:
        raise BadInputError(
            "the region is truth but there are no labels, expected both; give --labels"
        )
    for name, number in (("margin", margin), ("confidence", confidence)):
        if not 0 < number < 1:
            raise BadInputError(
                f"the {name} is {number}, expected a number between 0 and 1; leave it out for the default"
            )
