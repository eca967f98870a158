"""Audit: open, draw windows, arrange, normalise, explain, shares, intervals, verdict."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from evenslice.errors import BadInputError, give_warnings, keeps_warnings
from evenslice.evidence.attribution import EXPENSIVE, STAGES, check_methods, default_methods
from evenslice.evidence.causes import causes_of
from evenslice.evidence.checks import agreement_check, completeness_checks, run_checks
from evenslice.evidence.measure import Measurement, WindowFacts
from evenslice.evidence.model_on_volume import ModelOnVolume, explaining, model_on_volume, target_of
from evenslice.evidence.result import Audit, Check, Latin, Sampling
from evenslice.evidence.sampling import SampledWindow, draw_windows, read_windows
from evenslice.evidence.stats import (
    MOST_WINDOWS,
    confidence_each,
    is_decided,
    overall_verdict,
    planned_looks,
)
from evenslice.evidence.summary import apply_abstention, lag_result, latin_result
from evenslice.evidence.window_view import writing_maps
from evenslice.labels.targets import whole
from evenslice.model.checkpoint import stem_record
from evenslice.model.opening import (
    ModelLike,
    check_segments,
    intensity_warning,
    model_of,
    normalised_by,
    trained_slices,
)
from evenslice.model.predict import device_named
from evenslice.model.provenance import provenance_of
from evenslice.model.spec import Model
from evenslice.options import AuditOptions, JsonObject
from evenslice.progress import Progress, silent
from evenslice.volume.array import Roi, Volume, crop, reorder_axes, swap_axis
from evenslice.volume.inputs import (
    VolumeLike,
    check_same_shape,
    parse_roi,
    volume_of,
    voxel_warning,
)

CHECK_WINDOWS = 4
NAMED = 8  # slices in a message


@keeps_warnings
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
    given = model_of(model, options)
    check_segments(given)
    source = volume_of(volume)
    volume = swap_axis(source, options.axis)
    truth = None if labels is None else whole(swap_axis(volume_of(labels), options.axis))
    if truth is not None:
        check_same_shape(volume, truth)
    elif options.region == "truth":
        raise BadInputError(
            "the region is truth but there are no labels, expected both; give --labels"
        )
    if maps is not None and options.axis != "z":
        raise BadInputError(
            f"--maps was given with --axis {options.axis}, expected z: maps lie on the volume; "
            "leave one of them out"
        )
    with progress("reading", 0):
        opened = normalised_by(given, volume, options.seed)
        if truth is not None:
            give_warnings(voxel_warning(volume, truth))
        windows = _windows(opened, volume, truth, options)
        device = device_named(options.device)
        subject = model_on_volume(opened, volume, windows[0], device, options.seed, truth, label)
        give_warnings(intensity_warning(given, crop(volume, _box(volume, options))))
    methods = options.methods
    if methods is None:
        methods = default_methods(subject.slices, subject.differentiable)
    methods = check_methods(methods, subject.slices, subject.differentiable)
    fixed = options.windows if isinstance(options.windows, int) else None
    looks = planned_looks(len(windows), fixed)
    provenance = provenance_of(options.seed, model=given, volume=source, labels=truth)
    measured = Measurement(subject, options, windows, looks, views)
    stages = [[name for name in stage if name in methods] for stage in STAGES]
    stages = [stage for stage in stages if stage] or [[]]  # the reversal alone
    mapped = next((name for name in ("gradient", "integrated-gradients") if name in methods), "")
    with ExitStack() as stack:
        stack.enter_context(explaining(subject.module))
        write = None
        if maps is not None:
            store = writing_maps(Path(maps), looks[-1], volume.voxel_nm, force, provenance)
            write = stack.enter_context(store)
        for stage in stages:
            if options.methods is None and stage[0] in EXPENSIVE and measured.asymmetric:
                continue
            name = ", ".join(stage) or "reversal"
            with progress(f"auditing {label}, {name}", looks[-1]) as step:
                mapping = mapped in stage or (not mapped and not measured.facts)
                measured.run(stage, step, write if mapping else None)
        first = read_windows(volume, subject.slices, windows[:CHECK_WINDOWS])
        with progress("sanity checks", 0):
            checks = run_checks(subject, [raw for _, raw in first])
            found = _result(opened, subject, options, measured, checks, looks, methods)
    warnings = _blank_warning(volume, measured.facts)
    return replace(found, provenance=provenance, warnings=warnings)


def _box(volume: Volume, options: AuditOptions) -> Roi:
    """Return the box to draw windows from, in a volume that is sliced along the axis asked for."""
    shape = reorder_axes(volume.shape, options.axis)
    return reorder_axes(parse_roi(options.roi, shape), options.axis)


def _blank_warning(volume: Volume, facts: Sequence[WindowFacts]) -> tuple[str, ...]:
    """Say so when windows hold blank slices."""
    count, zs = sum(bool(one.blank) for one in facts), {z for one in facts for z in one.blank}
    if not zs:
        return ()
    named = ", ".join(map(str, sorted(zs)[:NAMED])) + (", ..." if len(zs) > NAMED else "")
    return (
        f"{count} of {len(facts)} windows of {volume.source} hold a slice of one value (z "
        f"{named}: lost sections?); they are not used",
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
        None if options.roi is None else _box(volume, options),
        None if truth is None else foreground,
    )


def _result(
    model: Model,
    subject: ModelOnVolume,
    options: AuditOptions,
    measured: Measurement,
    checks: dict[str, Check],
    looks: tuple[int, ...],
    asked: Sequence[str],
) -> Audit:
    margin, confidence, seed = options.margin, options.confidence, options.seed
    found = apply_abstention(measured.methods)
    methods = {name: found[name] for name in asked if name in found}
    verdict = overall_verdict(
        [one.verdict for one in methods.values()], subject.normalisation.uniform
    )
    used = max((one.windows for one in methods.values()), default=len(measured.facts))
    if not used:
        raise BadInputError(
            "no window has any importance, expected a picture in the windows and an output that "
            "depends on it; check the volume and the model"
        )
    shown = [one for one in measured.facts if not one.blank] or measured.facts
    latin: dict[str, Latin] = {}
    if options.design == "latin" and model.slices > 1:
        latin = {
            name: latin_result(*measured.importance(name), margin, confidence, seed)
            for name, one in methods.items()
            if one.windows
        }
    facts, windows = measured.facts, measured.windows
    sequential = options.windows == "auto"
    decided = measured.asymmetric or all(is_decided(one.verdict) for one in methods.values())
    trained = trained_slices(model, subject.volume)
    y, x = windows[0].y, windows[0].x
    clusters = np.array([window.cluster for window in windows], np.intp)
    return Audit(
        slices=model.slices,
        windows=used,
        clusters=max((one.blocks for one in methods.values()), default=len(set(clusters))),
        dropped=len(windows) - used,
        seed=seed,
        margin=margin,
        confidence=confidence,
        tile=(y.stop - y.start, x.stop - x.start),
        stems=_stems(model),
        normalisation=subject.normalisation,
        methods=methods,
        probability_change=float(np.mean([one.change for one in shown])),
        flipped_fraction=float(np.mean([one.flipped for one in shown])),
        checks={
            "agreement": agreement_check(methods),
            **completeness_checks(measured.incompleteness),
            **checks,
        },
        verdict=verdict,
        trained_on=sum(one.z in trained for one in windows) if model.training else None,
        sampling=Sampling(
            "sequential" if sequential else "fixed",
            looks,
            confidence_each(confidence, len(looks)),
            decided if sequential else None,
            tuple(name for name in asked if name not in methods),
        ),
        design=options.design,
        region=options.region,
        lag=lag_result([one.lag for one in facts], clusters, confidence, seed),
        causes=causes_of(model.training, verdict),
        latin=latin,
        views=tuple(measured.views),
    )


def _stems(model: Model) -> tuple[JsonObject, ...]:
    """Describe the stems; none where the network shows none."""
    try:
        return tuple(stem_record(model))
    except BadInputError:
        return ()
