"""Fix: load, make the stem even on a copy, measure what changed, save."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError
from evenslice.evidence.result import Audit
from evenslice.model.checkpoint import check_model_name, save_model, stem_record
from evenslice.model.spec import Model
from evenslice.model.stem import Init, Tie, bake_stem, mirror_stem, uniform_stem
from evenslice.progress import Progress, silent
from evenslice.verbs.audit import audit as run_audit
from evenslice.verbs.choices import ModelLike, VolumeLike, model_of
from evenslice.volume.writing import check_writable


@dataclass(frozen=True)
class Fixed:
    """What ``fix`` did.

    Attributes
    ----------
    model
        The fixed model, as saved.
    before, after
        Stems before and after: module, kind, norm per slot.
    audits
        Audit before and after on the same windows, or None without a volume.
    warnings
        What the user should know.
    """

    model: Model
    before: list[dict[str, Any]]
    after: list[dict[str, Any]]
    audits: tuple[Audit, Audit] | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it (schema evenslice.fix/1)."""
        return {
            "schema": "evenslice.fix/1",
            "stems_before": self.before,
            "stems_after": self.after,
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
        Volume to audit before and after on the same windows, and its truth to show beside.
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
    network = copy.deepcopy(model.module)
    notes: tuple[str, ...] = ()
    if init is None:
        bake_stem(mirror_stem(network, model.slices, "mirror" if tie == "none" else tie))
    else:
        if model.slices != 3:
            raise BadInputError(
                f"the model sees {model.slices} slices, expected 3 for an init from R, G and B; leave --init out for the mirror average"
            )
        uniform_stem(network, 3, init)
        notes = (
            f"--init {init} on a model trained on slices removes what it knew of the centre slice: retrain it before use",
        )
    spec = replace(model.spec, tie=tie, init=init or model.spec.init)
    fixed = model.with_facts(module=network, spec=spec)
    audits = None
    if volume is not None:
        options: dict[str, Any] = {"labels": labels, "seed": seed, "device": device, "progress": progress}
        audits = (
            run_audit(model, volume, label="before", **options),
            run_audit(fixed, volume, label="after", **options),
        )
    save_model(out, fixed)
    return Fixed(fixed, stem_record(model), stem_record(fixed), audits, notes)
