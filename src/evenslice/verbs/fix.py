"""Fix: open, make the stem of a copy symmetric, measure what changed, save."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evenslice.errors import BadInputError, keeps_warnings
from evenslice.evidence.certificate import Certificate, certify
from evenslice.evidence.model_on_volume import target_of
from evenslice.evidence.result import Audit
from evenslice.evidence.sampling import Raw, draw_windows, read_windows
from evenslice.labels.metrics import Scores, confusion, scores_of
from evenslice.labels.targets import Target, whole
from evenslice.model.checkpoint import check_model_name, normalisation_record, stem_record
from evenslice.model.logits import duplicate, plain
from evenslice.model.opening import (
    ModelLike,
    check_segments,
    ending_of,
    model_of,
    normalised_by,
    save,
)
from evenslice.model.predict import classes_of, device_of, logits_of, probabilities_of
from evenslice.model.provenance import provenance_of
from evenslice.model.spec import Model
from evenslice.model.stem.adapt import bake_stem, mirror_stem, widen_stem
from evenslice.model.stem.probe import evaluating
from evenslice.options import AuditOptions, FixOptions, JsonObject
from evenslice.progress import Progress, silent
from evenslice.verbs.audit import audit
from evenslice.volume.atomic import check_writable
from evenslice.volume.inputs import VolumeLike, check_apart, check_same_shape, volume_of
from evenslice.volume.normalisation import Normalisation
from evenslice.volume.windows import check_slices, reverse

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def recalibrate(
    module: nn.Module, stride: int, normalisation: Normalisation, windows: Sequence[Raw]
) -> int:
    """Recalibrate the running mean and variance of every BatchNorm, in place; weights stay.

    The statistics are plain averages over the batches, one of a raw window (S, y, x) and its
    reversal each, so that the two directions weigh alike. Return how many were recalibrated.
    """
    norms = [
        m
        for m in module.modules()
        if isinstance(m, _NORMS) and m.track_running_stats and m.running_mean is not None
    ]
    if not norms or not windows:
        return 0
    momenta = [norm.momentum for norm in norms]
    device = device_of(module)
    with evaluating(module), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch: a plain average over all batches
            norm.train()
        for raw in windows:
            pair = normalisation.apply(np.stack([raw, reverse(raw)]))
            logits_of(module, torch.from_numpy(pair).to(device), stride)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return len(norms)


def predict_windows(
    model: Model, normalisation: Normalisation, windows: Sequence[Raw]
) -> list[Tensor]:
    """Return the probabilities (C, y, x) of raw windows (S, y, x), run on the model's device."""
    device = device_of(model.module)
    found = []
    with evaluating(model.module), torch.inference_mode():
        for raw in windows:
            x = torch.from_numpy(normalisation.apply(raw[None])).to(device)
            found.append(probabilities_of(logits_of(model.module, x, model.stride))[0].cpu())
    return found


def output_change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Return the mean absolute change of probability between predictions of the same windows."""
    changes = [float((a - b).abs().double().mean()) for a, b in zip(before, after, strict=True)]
    return float(np.mean(changes))


def window_scores(predictions: Sequence[Tensor], truths: Sequence[Raw], target: Target) -> Scores:
    """Compare predictions (C, y, x) with the labels (y, x) of their centre slices."""
    size = max(2, target.classes)
    table = np.zeros((size, size), np.int64)
    for probability, labels in zip(predictions, truths, strict=True):
        guess = classes_of(probability[None])[0].numpy()
        table += confusion(guess, target.known(labels), size, ignore=-1)
    return scores_of(table)


TILE, WINDOWS, CERTIFIED, AUDITED = 256, 16, 4, 40


@dataclass(frozen=True)
class Fixed:
    """What ``fix`` did.

    ``change`` is what happened to the output on windows of the volume: ``probability_change``,
    ``batch_norms`` recalibrated, ``normalisation_change`` (the part that comes from one mean and
    std for all slots; None where that was so already), with labels ``dice_before``, ``dice_after``.
    """

    model: Model  # as saved
    before: list[JsonObject]  # stems: module, kind, norm per slot
    after: list[JsonObject]
    certificate: Certificate  # the largest response to the reversal, as saved with the model
    audits: tuple[Audit, Audit] | None  # before and after, on the same windows of the volume
    change: JsonObject | None  # None without a volume
    warnings: tuple[str, ...]

    def to_dict(self) -> JsonObject:
        """Return it as JSON can hold it (schema evenslice.fix/1)."""
        return {
            "schema": "evenslice.fix/1",
            "slices": self.model.slices,
            "tta": self.model.tta,
            "normalisation": normalisation_record(self.model.normalisation),
            "stems_before": self.before,
            "stems_after": self.after,
            "certificate": self.certificate.to_dict(),
            "change": self.change,
            "audit_before": self.audits and self.audits[0].to_dict(),
            "audit_after": self.audits and self.audits[1].to_dict(),
            "warnings": list(self.warnings),
            "provenance": self.model.provenance,
        }


@keeps_warnings
def fix(
    model: ModelLike,
    out: str | Path,
    options: FixOptions | None = None,
    *,
    volume: VolumeLike | None = None,
    labels: VolumeLike | None = None,
    force: bool = False,
    progress: Progress = silent,
    **changes: Any,
) -> Fixed:
    """Make a trained model symmetric without retraining and save the result.

    By default each slot becomes the mirror average w_s <- (w_s + w_{S-1-s}) / 2; the model given is
    left as it is.

    Parameters
    ----------
    model
        A model in any form: of ours, ``package.module:callable``, ``.pt2`` or ``.onnx``.
    out
        Name ending in ``.safetensors``; in ``.pt2`` or ``.onnx`` for such a model.
    options, changes
        The options of ``FixOptions``, as an object, as keyword arguments, or both. An ``init``
        treats the three slots as R, G, B, which removes the centre's identity from a model trained
        on slices: it needs retraining. With it, ``slices`` may differ from the three there are.
    volume, labels
        Volume to audit before and after, and its ground truth. After the mirror average the
        BatchNorm statistics are recalibrated on windows of this volume, and the change of the
        output is measured on them, with labels also that of Dice.
    force, progress
        Whether to overwrite; shows the progress.

    Raises
    ------
    BadInputError
        If something given cannot be used; nothing is written then.
    """
    options = FixOptions.of(options, changes)
    out, seed = Path(out), options.seed
    _check_request(options, out, force, model, volume, labels)
    as_it_is = options if options.init is None else options.model_copy(update={"slices": None})
    given = model_of(model, as_it_is)
    check_model_name(out, ending_of(given))
    source = None if volume is None else volume_of(volume)
    truth = None if labels is None else whole(volume_of(labels))
    if source is not None and truth is not None:
        check_same_shape(source, truth)
    if options.tta != "none" or source is not None:
        check_segments(given)
    before = given if source is None else normalised_by(given, source, seed)
    fixed, warnings = _symmetric(before, options)
    windows: list[Raw] = []
    change = audits = None
    if source is not None:
        sampled = draw_windows(source, fixed.slices, TILE, WINDOWS, seed, fixed.stride, fixed.size)
        windows = [raw for _, raw in read_windows(source, fixed.slices, sampled)]
        truths = None
        if truth is not None:
            truths = [truth.read((slice(w.z, w.z + 1), w.y, w.x))[0] for w in sampled]
            _check_classes(truths, before.spec.classes)
        averaged = options.init is None and options.tta == "none"
        with progress("measuring the change", 0):
            change = _change(before, fixed, windows, truths, recalibrated=averaged)
    certificate = certify(fixed, windows[:CERTIFIED], seed, progress=progress)
    provenance = provenance_of(seed, model=given, volume=source, labels=truth)
    fixed = replace(fixed, certificate=certificate.to_dict(), provenance=provenance, file=None)
    if source is not None:
        methods = ("gradient" if getattr(before.network, "differentiable", True) else "ablation",)
        request = AuditOptions(methods=methods, windows=AUDITED, seed=seed, device=options.device)
        audits = (
            audit(before, source, request, labels=truth, label="before", progress=progress),
            audit(fixed, source, request, labels=truth, label="after", progress=progress),
        )
    save(out, fixed, force)
    if not certificate.symmetric:
        warnings.append(
            "the saved model is not symmetric: its largest response to the reversal is "
            f"{certificate.float32:.2g} in float32; see the certificate"
        )
    stems = stem_record(before), stem_record(fixed)
    return Fixed(fixed, *stems, certificate, audits, change, tuple(warnings))


def _check_request(
    options: FixOptions,
    out: Path,
    force: bool,
    model: ModelLike,
    volume: VolumeLike | None,
    labels: VolumeLike | None,
) -> None:
    if options.tta != "none" and (options.init is not None or options.tie != "none"):
        raise BadInputError(
            f"--tta {options.tta} was given with --init or --tie, expected one way to make the "
            "model symmetric; choose one"
        )
    if labels is not None and volume is None:
        raise BadInputError("labels were given without a volume, expected both; add --audit VOLUME")
    if options.slices is not None:
        check_slices(options.slices)
    check_writable(out, force)
    check_apart(out, model, volume, labels)


def _check_classes(truths: Sequence[Raw], classes: int) -> None:
    low, high = min(int(one.min()) for one in truths), max(int(one.max()) for one in truths)
    if classes > 1 and (low < 0 or high >= classes):
        raise BadInputError(
            f"the labels hold the classes {low} to {high}, expected 0 to {classes - 1} as the "
            "model predicts; give labels of these"
        )


def _symmetric(model: Model, options: FixOptions) -> tuple[Model, list[str]]:
    """Make a symmetric copy of a model; return it with what the user should know."""
    tta, init, tie = options.tta, options.init, options.tie
    done = f"tta {tta}" if tta != "none" else f"init {init}" if init else "mirror average"
    training, scores = model.training | {"fixed": done}, {"before_fix": model.scores}
    model = replace(model, training=training, scores=scores)
    if tta != "none":
        twice = "--tta reversal takes twice the time of the model alone"
        return model.with_tta(tta), [twice]
    single = model.with_tta("none")
    module = duplicate(single.module)
    wanted = options.slices or 3
    _symmetrise(plain(module), model.slices, wanted, options)
    spec = replace(model.spec, tie=tie)
    if init is not None:
        spec = replace(spec, init=init, slices=wanted)
    warnings = []
    if init is not None or (tie == "uniform" and model.slices > 1):
        warnings.append(
            f"{'--tie uniform' if init is None else f'--init {init}'} on a model trained on slices "
            "replaces the weights it learnt for each slot: retrain it before use"
        )
    norm = model.normalisation
    if norm is not None and not norm.uniform:  # behind different numbers no stem is symmetric
        one = Normalisation((float(np.mean(norm.mean)),), (float(np.mean(norm.std)),), norm.source)
        warnings.append(
            f"the slots were normalised by different numbers (mean {norm.mean}, std {norm.std}); "
            f"now all by mean {one.mean[0]:g} and std {one.std[0]:g}"
        )
        norm = one
    fixed = replace(single, module=module, spec=spec, normalisation=norm)
    return fixed, warnings


def _symmetrise(network: nn.Module, slices: int, wanted: int, options: FixOptions) -> None:
    """Make the stem of a network symmetric, in place, its tie baked in."""
    if options.init is None:
        bake_stem(mirror_stem(network, slices, options.tie))
        return
    if slices not in (1, 3):
        raise BadInputError(
            f"the model sees {slices} slices, expected 3 for an init from R, G and B, or 1 from a "
            "grey channel; leave --init out for the mirror average"
        )
    widen_stem(network, slices, wanted, options.init)
    if options.tie != "none":
        bake_stem(mirror_stem(network, wanted, options.tie))


def _change(
    before: Model,
    fixed: Model,
    windows: Sequence[Raw],
    truths: Sequence[Raw] | None,
    recalibrated: bool,
) -> JsonObject:
    """Recalibrate (not after an init, which needs training) and measure the change of output."""
    old, norm = before.normalisation, fixed.normalisation
    assert old is not None
    assert norm is not None
    count = recalibrate(fixed.module, fixed.stride, norm, windows) if recalibrated else 0
    predictions = {"dice_after": predict_windows(fixed, norm, windows)}
    names = ("probability_change", "batch_norms", "normalisation_change")
    change: JsonObject = dict.fromkeys(names) | {"batch_norms": count}
    margin = (fixed.slices - before.slices) // 2
    if margin >= 0:
        centred = [raw[margin : margin + before.slices] for raw in windows]
        first = predictions["dice_before"] = predict_windows(before, old, centred)
        change["probability_change"] = output_change(first, predictions["dice_after"])
        if old != norm:
            alone = predict_windows(before, norm, centred)
            change["normalisation_change"] = output_change(first, alone)
    if truths is not None:
        for name, predicted in predictions.items():
            change[name] = window_scores(predicted, truths, target_of(before)).dice
    return change
