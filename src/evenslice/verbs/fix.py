"""Fix: load, make the stem even on a copy, measure what changed, save."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from evenslice.errors import BadInputError
from evenslice.evidence.certificate import Certificate, certify
from evenslice.evidence.change import Windows, output_change, predict_windows, window_scores
from evenslice.evidence.measure import read_sites
from evenslice.evidence.recalibrate import recalibrate
from evenslice.evidence.result import Audit
from evenslice.evidence.sites import plan_sites
from evenslice.labels.targets import Target
from evenslice.model.checkpoint import check_model_name, save_model, stem_record
from evenslice.model.spec import Model
from evenslice.model.stem import Init, Tie, bake_stem, mirror_stem, uniform_stem
from evenslice.model.streaming import normalisation_of
from evenslice.progress import Progress, silent
from evenslice.verbs.audit import audit as run_audit
from evenslice.verbs.choices import ModelLike, VolumeLike, check_same_shape, model_of, volume_of
from evenslice.volume.writing import check_writable

TILE, WINDOWS, CERTIFIED = 256, 16, 4


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
        What the fix did to the output on windows of the volume: ``probability_change``, ``batch_norms`` measured anew, and with
        labels ``dice_before`` and ``dice_after``; None without a volume.
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
            "stems_before": self.before,
            "stems_after": self.after,
            "certificate": self.certificate.to_dict(),
            "change": self.change,
            "audit_before": self.audits and self.audits[0].to_dict(),
            "audit_after": self.audits and self.audits[1].to_dict(),
            "warnings": list(self.warnings),
        }


def fix(
    model: ModelLike,
    out: str | Path,
    *,
    tie: Tie = "none",
    init: Init | None = None,
    volume: VolumeLike | None = None,
    labels: VolumeLike | None = None,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
    progress: Progress = silent,
) -> Fixed:
    """Make the stem of a trained model even and save the result; the model given is left as it is.

    Parameters
    ----------
    model
        A model or the path of a model file.
    out
        Name ending in ``.safetensors``.
    tie
        ``mirror`` or ``uniform`` to keep the stem so when training goes on; recorded in the file.
    init
        None for the mirror average w_s <- (w_s + w_{S-1-s}) / 2. An init treats the three slots as R, G, B, which
        removes the centre's identity from a model trained on slices: it needs retraining.
    volume, labels
        Volume to audit before and after on the same windows, and its truth. After the mirror average the batch norms are
        measured anew on windows of this volume; the change of the output is measured on them, and of Dice with labels.
    seed, device, force, progress
        Of the audit; whether to overwrite; how to show the progress.

    Raises
    ------
    BadInputError
        If something given cannot be used; nothing is written then.
    """
    out = Path(out)
    check_model_name(out)
    check_writable(out, force)
    model = model_of(model)
    source = None if volume is None else volume_of(volume)
    truth = None if labels is None else volume_of(labels)
    if truth is not None:
        if source is None:
            raise BadInputError("labels were given without a volume, expected both; add --audit VOLUME")
        check_same_shape(source, truth)
    network, notes = _even(model, tie, init)
    done = "mirror average" if init is None else f"init {init}"
    fixed = model.with_facts(
        module=network,
        spec=replace(model.spec, tie=tie, init=init or model.spec.init),
        training=model.training | {"fixed": done},
        scores={"before_fix": model.scores},
    )
    sites, windows, change = [], [], None
    if source is not None:
        sites = plan_sites(source.shape, model.slices, TILE, WINDOWS, seed, model.stride)
        windows = [raw for _, raw in read_sites(source, model.slices, sites)]
        truths = None if truth is None else [truth.read((slice(s.z, s.z + 1), s.y, s.x))[0] for s in sites]
        change = _change(model, fixed, windows, truths, init)
    certificate = certify(fixed, windows[:CERTIFIED], seed)
    fixed = fixed.with_facts(certificate=certificate.to_dict())
    audits = None
    if source is not None:
        options: dict[str, Any] = {"labels": truth, "seed": seed, "device": device, "progress": progress}
        audits = (
            run_audit(model, source, label="before", **options),
            run_audit(fixed, source, label="after", **options),
        )
    save_model(out, fixed)
    return Fixed(fixed, stem_record(model), stem_record(fixed), certificate, audits, change, notes)


def _even(model: Model, tie: Tie, init: Init | None) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a copy of the network with an even stem, its tie worked in, and what the user should know."""
    network = copy.deepcopy(model.module)
    if init is None:
        even = bake_stem(mirror_stem(network, model.slices, "mirror" if tie == "none" else tie))
        note = (
            "--tie uniform on a model trained on slices removes what it knew of the centre slice: retrain it before use"
        )
        return even, (note,) if tie == "uniform" and model.slices > 1 else ()
    if model.slices != 3:
        raise BadInputError(
            f"the model sees {model.slices} slices, expected 3 for an init from R, G and B; leave --init out for the mirror average"
        )
    note = f"--init {init} on a model trained on slices removes what it knew of the centre slice: retrain it before use"
    return uniform_stem(network, 3, init), (note,)


def _change(model: Model, fixed: Model, windows: Windows, truths: Windows | None, init: Init | None) -> dict[str, Any]:
    """Measure the batch norms anew (not after an init, which needs training anyway), and the change of output and Dice."""
    norm, classes = normalisation_of(model), model.spec.classes
    measured = recalibrate(fixed.module, model.stride, norm, windows) if init is None else 0
    before, after = (predict_windows(m, norm, windows) for m in (model, fixed))
    change: dict[str, Any] = {"probability_change": output_change(before, after), "batch_norms": measured}
    if truths is not None:  # labels mean what they meant in training
        target = Target(model.training.get("target", "classes" if classes > 1 else "foreground"), classes)
        for name, predictions in (("dice_before", before), ("dice_after", after)):
            change[name] = window_scores(predictions, truths, target).dice
    return change
