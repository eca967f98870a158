"""Fix: load, make the stem even on a copy, measure what changed, save."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from evenslice.errors import BadInputError
from evenslice.evidence.certificate import Certificate, certify
from evenslice.evidence.change import Windows, output_change, predict_windows, window_scores
from evenslice.evidence.network import read_sites
from evenslice.evidence.recalibrate import recalibrate
from evenslice.evidence.result import Audit
from evenslice.evidence.sampling import plan_sites
from evenslice.labels.targets import Target
from evenslice.model.checkpoint import normalisation_record, stem_record
from evenslice.model.inputs import (
    ModelLike,
    VolumeLike,
    check_apart,
    check_name,
    check_same_shape,
    check_segments,
    model_of,
    normalised_by,
    save,
    volume_of,
)
from evenslice.model.logits import plain
from evenslice.model.provenance import provenance_of
from evenslice.model.spec import Model
from evenslice.model.stem.adapt import bake_stem, mirror_stem, uniform_stem
from evenslice.model.streaming import normalisation_of
from evenslice.options import Init, Tie
from evenslice.progress import Progress, silent
from evenslice.verbs.audit import audit as run_audit
from evenslice.volume.array import Volume
from evenslice.volume.atomic import check_writable
from evenslice.volume.normalisation import Normalisation
from evenslice.volume.windows import check_slices

TILE, WINDOWS, CERTIFIED, AUDITED = 256, 16, 4, 40


@dataclass(frozen=True)
class Fixed:
    """What ``fix`` did.

    Attributes
    ----------
    model
        The fixed model, as saved.
    before, after
        Stems before and after: module, kind, norm per slot.
    certificate
        The fixed model's largest response to the reversal, as saved with it.
    audits
        Audit before and after on the same windows, or None without a volume.
    change
        What the fix did to the output on windows of the volume: ``probability_change``, ``batch_norms`` measured anew,
        ``normalisation_change`` (the part of it that comes from one mean and std for all slots; None where that was so
        already), and with labels ``dice_before`` and ``dice_after``; None without a volume.
    warnings
        What the user should know.
    """

    model: Model
    before: list[dict[str, Any]]
    after: list[dict[str, Any]]
    certificate: Certificate
    audits: tuple[Audit, Audit] | None
    change: dict[str, Any] | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
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


def fix(
    model: ModelLike,
    out: str | Path,
    *,
    tie: Tie = "none",
    init: Init | None = None,
    tta: str = "none",
    slices: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    trust: bool = False,
    volume: VolumeLike | None = None,
    labels: VolumeLike | None = None,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
    progress: Progress = silent,
) -> Fixed:
    """Make a trained model even without retraining and save the result; the model given is left as it is.

    Parameters
    ----------
    model
        A model in any form: of ours, ``package.module:callable``, ``.pt2`` or ``.onnx``.
    out
        Name ending in ``.safetensors``; in ``.pt2`` or ``.onnx`` for such a model.
    tie
        ``mirror`` or ``uniform`` to keep the stem so when training goes on; recorded in the file.
    init
        None for the mirror average w_s <- (w_s + w_{S-1-s}) / 2. An init treats the three slots as R, G, B, which
        removes the centre's identity from a model trained on slices: it needs retraining.
    tta
        ``reversal``: leave the weights alone and let the model answer, from now on, as the mean over each window and its
        reversal; twice the time, and recorded in the file.
    slices
        S of the fixed model: with an init it may differ from the three slots there are; else what a foreign model sees.
    mean, std
        Normalisation in raw intensity units, in place of the model's. Different ones per slot are replaced by their mean.
    trust
        Whether a ``.pt2``, which can run code when it is opened, may be opened.
    volume, labels
        Volume to audit before and after, and its truth. After the mirror average the batch norms are measured anew on
        windows of this volume; the change of the output is measured on them, and of Dice with labels.
    seed, device, force, progress
        Of the audit; whether to overwrite; how to show the progress.

    Raises
    ------
    BadInputError
        If something given cannot be used; nothing is written then.
    """
    out = Path(out)
    if tta != "none" and (init is not None or tie != "none"):
        raise BadInputError(
            f"--tta {tta} was given with --init or --tie, expected one way to make the model even; choose one"
        )
    if slices is not None:
        check_slices(slices)
    check_writable(out, force)
    check_apart(out, model, volume, labels)
    before = model_of(model, slices if init is None else None, mean, std, trust)
    check_name(before, out)
    given = before
    if tta != "none":
        check_segments(before)
    source = None if volume is None else volume_of(volume)
    truth = _truth(source, labels)
    if source is not None:
        check_segments(before)
        before = normalised_by(before, source, seed)
    fixed, notes = _fixed(before, tie, init, tta, slices)
    windows, change = [], None
    if source is not None:
        sites = plan_sites(
            source.shape,
            fixed.slices,
            TILE,
            WINDOWS,
            seed,
            fixed.stride,
            fixed.size,
            source=source.source,
        )
        windows = [raw for _, raw in read_sites(source, fixed.slices, sites)]
        truths = (
            None
            if truth is None
            else [truth.read((slice(s.z, s.z + 1), s.y, s.x))[0] for s in sites]
        )
        _check_classes(truths or [], before.spec.classes)
        change = _change(
            before, fixed, windows, truths, recalibrated=init is None and tta == "none"
        )
    certificate = certify(fixed, windows[:CERTIFIED], seed, progress=progress)
    made = provenance_of(seed, model=given, volume=source, labels=truth)
    fixed = fixed.with_facts(certificate=certificate.to_dict(), provenance=made, file=None)
    audits = None
    if source is not None:
        options: dict[str, Any] = {
            "labels": truth,
            "methods": ("gradient",)
            if getattr(before.network, "differentiable", True)
            else ("ablation",),
            "windows": AUDITED,
            "seed": seed,
            "device": device,
            "progress": progress,
        }
        audits = (
            run_audit(before, source, label="before", **options),
            run_audit(fixed, source, label="after", **options),
        )
    save(out, fixed, force)
    if not certificate.symmetric:
        notes = (*notes, _uneven(certificate))
    return Fixed(fixed, stem_record(before), stem_record(fixed), certificate, audits, change, notes)


def _truth(source: Volume | None, labels: VolumeLike | None) -> Volume | None:
    if labels is None:
        return None
    if source is None:
        raise BadInputError("labels were given without a volume, expected both; add --audit VOLUME")
    truth = volume_of(labels)
    check_same_shape(source, truth)
    return truth


def _check_classes(truths: Windows, classes: int) -> None:
    """Refuse fractions, and classes that the model does not predict; a model of one class takes any above 0 as that."""
    if any(
        labels.dtype.kind == "f" and bool((labels != np.floor(labels)).any()) for labels in truths
    ):
        raise BadInputError(
            "the labels hold fractions, expected whole numbers; threshold them first"
        )
    found = [(int(labels.min()), int(labels.max())) for labels in truths if classes > 1]
    if found and (min(low for low, _ in found) < 0 or max(high for _, high in found) >= classes):
        low, high = min(low for low, _ in found), max(high for _, high in found)
        raise BadInputError(
            f"the labels hold the classes {low} to {high}, expected 0 to {classes - 1} as the model predicts; give labels of these"
        )


def _uneven(certificate: Certificate) -> str:
    return (
        f"the saved model is not even: its largest response to the reversal is {certificate.float32:.2g} in float32"
        + ("" if certificate.float64 is None else f" and {certificate.float64:.2g} in float64")
        + "; see the certificate"
    )


def _fixed(
    model: Model, tie: Tie, init: Init | None, tta: str, slices: int | None
) -> tuple[Model, tuple[str, ...]]:
    """Make an even copy of a model; return it with what the user should know."""
    done = f"tta {tta}" if tta != "none" else "mirror average" if init is None else f"init {init}"
    facts = {"training": model.training | {"fixed": done}, "scores": {"before_fix": model.scores}}
    if tta != "none":
        return model.with_facts(**facts).with_tta(tta), (
            "--tta reversal takes twice the time of the model alone",
        )
    single = model.with_tta("none")
    module = copy.deepcopy(single.module)
    _even(plain(module), model.slices, tie, init, slices or 3)
    made: dict[str, Any] = (
        {"tie": tie} if init is None else {"tie": tie, "init": init, "slices": slices or 3}
    )
    spec = replace(model.spec, **made)
    norm, norm_notes = _one_normalisation(model.normalisation)
    fixed = single.with_facts(module=module, spec=spec, normalisation=norm, **facts)
    return fixed, (*_warnings(tie, init, model.slices), *norm_notes)


def _even(network: nn.Module, slices: int, tie: Tie, init: Init | None, wanted: int) -> None:
    """Make the stem of a network even, in place, its tie worked in."""
    if init is None:
        mirror_stem(network, slices, tie)
        bake_stem(network)
        return
    if slices != 3:
        raise BadInputError(
            f"the model sees {slices} slices, expected 3 for an init from R, G and B; leave --init out for the mirror average"
        )
    uniform_stem(network, wanted, init)
    if tie != "none":
        bake_stem(mirror_stem(network, wanted, tie))


def _warnings(tie: Tie, init: Init | None, slices: int) -> tuple[str, ...]:
    what = (
        f"--init {init}"
        if init is not None
        else "--tie uniform"
        if tie == "uniform" and slices > 1
        else ""
    )
    advice = "on a model trained on slices removes what it knew of the centre slice: retrain it before use"
    return (f"{what} {advice}",) if what else ()


def _one_normalisation(norm: Normalisation | None) -> tuple[Normalisation | None, tuple[str, ...]]:
    """Return one mean and std for all slots, and a note if they were not so: behind different ones no stem is even."""
    if norm is None or norm.uniform:
        return norm, ()
    one = Normalisation((float(np.mean(norm.mean)),), (float(np.mean(norm.std)),), norm.source)
    note = (
        f"the slots were normalised by different numbers (mean {norm.mean}, std {norm.std}); now all by mean {one.mean[0]:g} "
        f"and std {one.std[0]:g}"
    )
    return one, (note,)


def _change(
    before: Model, fixed: Model, windows: Windows, truths: Windows | None, recalibrated: bool
) -> dict[str, Any]:
    """Measure the batch norms anew (not after an init, which needs training anyway), and the change of output and Dice."""
    old, norm, classes = normalisation_of(before), normalisation_of(fixed), fixed.spec.classes
    margin = (fixed.slices - before.slices) // 2
    centred = [raw[margin : margin + before.slices] for raw in windows] if margin >= 0 else None
    measured = recalibrate(fixed.module, fixed.stride, norm, windows) if recalibrated else 0
    after = predict_windows(fixed, norm, windows)
    change: dict[str, Any] = {
        "probability_change": None,
        "batch_norms": measured,
        "normalisation_change": None,
    }
    predictions = {"dice_after": after}
    if centred is not None:
        first = predict_windows(before, old, centred)
        predictions = {"dice_before": first, **predictions}
        change["probability_change"] = output_change(first, after)
        if old != norm:
            change["normalisation_change"] = output_change(
                first, predict_windows(before, norm, centred)
            )
    if truths is not None:  # labels mean what they meant in training
        target = Target(
            before.training.get("target", "classes" if classes > 1 else "foreground"), classes
        )
        for name, predicted in predictions.items():
            change[name] = window_scores(predicted, truths, target).dice
    return change
