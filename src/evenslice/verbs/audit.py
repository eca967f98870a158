"""Audit: open, draw windows, arrange, normalise, explain, shares, intervals, verdict."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from evenslice.errors import BadInputError
from evenslice.evidence.attribution import check_methods, default_methods
from evenslice.evidence.checks import agreement_check, completeness_checks, run_checks
from evenslice.evidence.measure import WindowResult, measure
from evenslice.evidence.model_on_volume import (
    Floats,
    ModelOnVolume,
    explaining,
    model_on_volume,
    target_of,
)
from evenslice.evidence.result import Audit, Check, Latin, MethodResult, Sampling
from evenslice.evidence.sampling import SampledWindow, draw_windows, read_windows
from evenslice.evidence.stats import (
    MOST_WINDOWS,
    confidence_each,
    is_decided,
    overall_verdict,
    planned_looks,
)
from evenslice.evidence.summary import apply_abstention, lag_result, latin_result, method_result
from evenslice.evidence.window_view import WindowView, writing_maps
from evenslice.labels.targets import whole
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
from evenslice.options import AuditOptions, JsonObject
from evenslice.progress import Progress, Step, silent
from evenslice.volume.array import Volume

CHECK_WINDOWS = 4


def audit(
    model: ModelLike | nn.Module,
    volume: VolumeLike,
    options: AuditOptions | None = None,
    *,
    labels: VolumeLike | None = None,
    maps: str | Path | None = None,
    force: bool = False,
    views: int = 1,
    label: str = "model",
    progress: Progress = silent,
    **changes: Any,
) -> Audit:
    """Measure how much each slot of a model counts and whether previous equals next.

    Every window is measured together with its reversal on the same pixels, reversed before
    normalisation; the intervals come from a bootstrap over blocks of S x tile x tile.

    Parameters
    ----------
    model
        A model in any form: a Model, a file, ``package.module:callable``; or a network, of which a
        copy is audited.
    volume
        A volume, an array (z, y, x) or a path.
    options, changes
        The options of ``AuditOptions``, as an object, as keyword arguments
        (``audit(model, volume, windows=8, methods=("gradient",))``), or both.
    labels
        Ground truth of the same shape: windows are then drawn in proportion from those with little
        and with much foreground, the lag is measured, and it is shown beside the prediction.
    maps, force
        OME-Zarr store for the attribution of every window, slot by slot; whether to overwrite it.
    views, label
        How many windows to keep for showing; name of the model on these.
    progress
        Shows the progress.

    Raises
    ------
    BadInputError
        If something given cannot be used.

    Examples
    --------
    >>> from evenslice import build_model
    >>> model = build_model(weights="none", encoder_depth=3, tie="mirror")
    >>> volume = np.random.default_rng(0).integers(0, 255, (9, 64, 64)).astype(np.uint8)
    >>> found = audit(model, volume, methods=("gradient",), windows=8, tile=32)
    >>> abs(found.methods["gradient"].index.value) < 1e-6
    True
    """
    options = AuditOptions.of(options, changes)
    source = wrapped_module(model, options.slices) if isinstance(model, nn.Module) else model
    given = model_of(source, options.slices, options.mean, options.std, options.trust)
    check_segments(given)
    volume = volume_of(volume)
    truth = None if labels is None else whole(volume_of(labels))
    if truth is not None:
        check_same_shape(volume, truth)
    elif options.region == "truth":
        raise BadInputError(
            "the region is truth but there are no labels, expected both; give --labels"
        )
    opened = normalised_by(given, volume, options.seed)
    windows = _windows(opened, volume, truth, options)
    device = device_of(options.device)
    subject = model_on_volume(opened, volume, windows[0], device, options.seed, truth, label)
    methods = options.methods
    if methods is None:
        methods = default_methods(subject.slices, subject.differentiable)
    methods = check_methods(methods, subject.slices, subject.differentiable)
    options = options.model_copy(update={"methods": methods})
    fixed = options.windows if isinstance(options.windows, int) else None
    looks = planned_looks(len(windows), fixed)
    provenance = provenance_of(options.seed, model=given, volume=volume, labels=truth)
    with ExitStack() as stack:
        stack.enter_context(explaining(subject.module))
        write = None
        if maps is not None:
            store = writing_maps(Path(maps), looks[-1], volume.voxel_nm, force, provenance)
            write = stack.enter_context(store)
        step = stack.enter_context(progress(f"auditing {label}", looks[-1]))
        measured = _measure_until_decided(subject, options, windows, looks, views, step, write)
        first = read_windows(volume, subject.slices, windows[:CHECK_WINDOWS])
        checks = run_checks(subject, [raw for _, raw in first])
    return replace(
        _result(opened, subject, options, measured, checks, looks),
        provenance=provenance,
        warnings=() if truth is None else voxel_warning(volume, truth),
    )


def _windows(
    model: Model, volume: Volume, truth: Volume | None, options: AuditOptions
) -> list[SampledWindow]:
    """Draw the windows, with ground truth in proportion to their foreground."""
    target = target_of(model)

    def foreground(window: SampledWindow) -> float:
        assert truth is not None
        labels = truth.read((slice(window.z, window.z + 1), window.y, window.x))
        return float((target.apply(labels) > 0).mean())

    return draw_windows(
        volume,
        model.slices,
        options.tile,
        options.windows if isinstance(options.windows, int) else MOST_WINDOWS,
        options.seed,
        model.stride,
        model.size,
        None if options.roi is None else parse_roi(options.roi, volume.shape),
        None if truth is None else foreground,
    )


@dataclass
class _Measured:
    """The windows measured so far, and the results at the last look."""

    windows: list[SampledWindow] = field(default_factory=list)
    results: list[WindowResult] = field(default_factory=list)
    views: list[WindowView] = field(default_factory=list)
    methods: dict[str, MethodResult] = field(default_factory=dict)

    @property
    def clusters(self) -> NDArray[np.intp]:
        return np.array([window.cluster for window in self.windows], np.intp)

    @property
    def verdicts(self) -> list[str]:
        return [method.verdict for method in self.methods.values()]

    def importance(self, name: str) -> Floats:
        return np.stack([result.importance[name] for result in self.results])


def _measure_until_decided(
    subject: ModelOnVolume,
    options: AuditOptions,
    windows: Sequence[SampledWindow],
    looks: Sequence[int],
    views: int,
    step: Step,
    write: Callable[[WindowView], None] | None,
) -> _Measured:
    """Measure windows until a look decides, or the planned looks end."""
    measured, each = _Measured(), confidence_each(options.confidence, len(looks))
    for end in looks:
        part = windows[len(measured.windows) : end]
        for result in measure(subject, options, part, step, write):
            if len(measured.views) < views and result.view is not None:
                measured.views.append(result.view)
            measured.results.append(replace(result, view=None))
        measured.windows.extend(part)
        clusters = measured.clusters
        measured.methods = apply_abstention(
            {
                name: method_result(
                    measured.importance(name)[:, :2], clusters, options.margin, each, options.seed
                )
                for name in options.methods or ()
            }
        )
        if is_decided(measured.verdicts):
            break
    return measured


def _result(
    model: Model,
    subject: ModelOnVolume,
    options: AuditOptions,
    measured: _Measured,
    checks: dict[str, Check],
    looks: tuple[int, ...],
) -> Audit:
    results, clusters = measured.results, measured.clusters
    margin, confidence, seed = options.margin, options.confidence, options.seed
    used = np.array(
        [all(slots.sum(axis=1).min() > 0 for slots in one.importance.values()) for one in results]
    )
    latin: dict[str, Latin] = {}
    if options.design == "latin" and model.slices > 1:
        latin = {
            name: latin_result(measured.importance(name), clusters, margin, confidence, seed)
            for name in measured.methods
        }
    incompleteness = {
        name: [one.incompleteness[name] for one in results] for name in results[0].incompleteness
    }
    sequential, decided = options.windows == "auto", is_decided(measured.verdicts)
    trained = trained_slices(model, subject.volume)
    y, x = measured.windows[0].y, measured.windows[0].x
    return Audit(
        slices=model.slices,
        windows=int(used.sum()),
        clusters=len(set(clusters[used].tolist())),
        dropped=int((~used).sum()),
        seed=seed,
        margin=margin,
        confidence=confidence,
        tile=(y.stop - y.start, x.stop - x.start),
        stems=_stems(model),
        normalisation=subject.normalisation,
        methods=measured.methods,
        probability_change=float(np.mean([one.change for one in results])),
        flipped_fraction=float(np.mean([one.flipped for one in results])),
        checks={
            **completeness_checks(incompleteness),
            "agreement": agreement_check(measured.methods),
            **checks,
        },
        verdict=overall_verdict(measured.verdicts, subject.normalisation.uniform),
        trained_on=sum(one.z in trained for one in measured.windows) if model.training else None,
        sampling=Sampling(
            "sequential" if sequential else "fixed",
            looks,
            confidence_each(confidence, len(looks)),
            decided if sequential else None,
        ),
        design=options.design,
        region=options.region,
        lag=lag_result([one.lag for one in results], clusters, confidence, seed),
        latin=latin,
        views=tuple(measured.views),
    )


def _stems(model: Model) -> tuple[JsonObject, ...]:
    """Describe the stems; none where the network shows none."""
    try:
        return tuple(stem_record(model))
    except BadInputError:
        return ()
