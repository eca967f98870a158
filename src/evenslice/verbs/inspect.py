"""Inspect: what a model's stem is; what a volume is, and which slices its labels fit."""

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evenslice.errors import BadInputError
from evenslice.evidence.label_asymmetry import LabelAsymmetry, label_asymmetry
from evenslice.labels.targets import resolve_target
from evenslice.model.provenance import pretrained_weights, provenance_of
from evenslice.model.source import form_of
from evenslice.options import InspectOptions, JsonObject
from evenslice.progress import Progress, silent
from evenslice.volume.address import is_remote, parse_address
from evenslice.volume.array import Volume
from evenslice.volume.files import READ, open_volume, split_container
from evenslice.volume.inputs import VolumeLike, check_same_shape, volume_of
from evenslice.volume.windows import middle
from evenslice.volume.zarr_reader import chunks_there, in_store

if TYPE_CHECKING:  # what needs torch is imported where a model is opened
    from torch import nn

    from evenslice.evidence.certificate import Certificate
    from evenslice.model.spec import Model

RANGE_SIDE, REMOTE_SIDE = 2048, 256  # pixels


@dataclass(frozen=True)
class Inspected:
    """What was found: a model with its stems, or a volume."""

    model: "Model | None"
    stems: tuple[JsonObject, ...]  # of the model: module, kind and norm per slot
    volume: Volume | None
    certificate: "Certificate | None"  # measured now; None: not asked for
    values: tuple[float, float] | None = None  # lowest and highest finite one of the middle slice
    provenance: JsonObject = field(default_factory=dict)
    labels: LabelAsymmetry | None = None  # how they fit the slices before and after

    def to_dict(self) -> JsonObject:
        """Return it as JSON can hold it (schema evenslice.inspect/1)."""
        schema = {"schema": "evenslice.inspect/1"}
        if self.volume is not None:
            volume = self.volume
            return schema | {
                "kind": "volume",
                "shape": list(volume.shape),
                "dtype": str(volume.dtype),
                "voxel_nm": volume.voxel_nm and list(volume.voxel_nm),
                "meaning": volume.meaning,
                "range": self.values and list(self.values),
                "size_bytes": math.prod(volume.shape) * volume.dtype.itemsize,
                "facts": dict(volume.facts),
                "source": self.provenance.get("inputs", {}).get("volume"),
                **({"labels": self.labels.to_dict()} if self.labels is not None else {}),
            }
        from evenslice.model.spec import ExternalSpec

        assert self.model is not None
        model, norm = self.model, self.model.normalisation
        return schema | {
            "kind": "model",
            "slices": model.slices,
            "form": model.spec.form if isinstance(model.spec, ExternalSpec) else "evenslice",
            "library_call": guess_library_call(model),
            "spec": model.spec.to_dict(),
            "tta": model.tta,
            "size": model.size,
            "stems": list(self.stems),
            "normalisation": norm and {"uniform": norm.uniform, **asdict(norm)},
            "certificate": model.certificate,
            "verified": self.certificate and self.certificate.to_dict(),
            "training": model.training,
            "scores": model.scores,
            "weights": pretrained_weights(model),
        }


def guess_library_call(model: "Model") -> str | None:
    """Return the library call that makes a network like this one, or None if nothing says it."""
    from evenslice.model.spec import Spec

    spec = model.spec
    if isinstance(spec, Spec):
        depth = "" if spec.encoder_depth is None else f", encoder_depth={spec.encoder_depth}"
        own = spec.encoder.startswith("smp:")
        name = spec.encoder.removeprefix("smp:") if own else f"tu-{spec.encoder}"
        return (
            f"segmentation_models_pytorch.create_model({spec.arch!r}, {name!r}{depth}, "
            f"classes={spec.classes})"
        )
    calls = (_library_call(module) for module in model.network.modules())
    return next((call for call in calls if call is not None), None)


def _library_call(module: "nn.Module") -> str | None:
    library, kind = type(module).__module__.partition(".")[0], type(module).__name__
    cfg = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if isinstance(cfg, dict) and cfg.get("architecture"):
        tag = f".{cfg['tag']}" if cfg.get("tag") else ""
        return f"timm.create_model('{cfg['architecture']}{tag}')"
    if library == "segmentation_models_pytorch":
        name = getattr(module, "name", None)
        return f"{library}.{kind}()" + (f" named {name!r}" if isinstance(name, str) else "")
    if library == "transformers":
        path = getattr(getattr(module, "config", None), "_name_or_path", "")
        return f"{library}.{kind}" + (f".from_pretrained({path!r})" if path else "(config)")
    return f"{type(module).__module__}.{kind}" if library in ("torchvision", "monai") else None


def inspect(
    source: str | Path,
    options: InspectOptions | None = None,
    *,
    labels: VolumeLike | None = None,
    progress: Progress = silent,
    **changes: Any,
) -> Inspected:
    """Describe a model in any form, or a volume.

    Parameters
    ----------
    source
        A model (``.safetensors`` of ours, ``package.module:callable``, ``.pt2``, ``.onnx``), or
        anything ``open_volume`` reads; else ``BadInputError`` is raised.
    options, changes
        The options of ``InspectOptions``, as an object, as keyword arguments, or both.
    labels
        Of the same shape as the volume: how well they fit the slices before and after is measured
        (``label_asymmetry``).
    progress
        Shows the progress.
    """
    options = InspectOptions.of(options, changes)
    if form_of(source) is None:
        remote, file = is_remote(source), split_container(source)[0]
        if not remote and not file.exists() and not in_store(parse_address(source)[1]):
            raise BadInputError(
                f"{source} does not exist, expected a model (.safetensors, .pt2, .onnx or "
                f"package.module:callable) or a volume ({READ}); check the name"
            )
        volume = open_volume(source)
        is_zarr = "Zarr" in volume.facts.get("format", "") and not remote
        missing = chunks_there(parse_address(source)[1]) if is_zarr else None
        if missing is not None:  # legal, and rarely intended
            volume = replace(volume, facts={**volume.facts, "missing": missing})
        fit, read = None, {"volume": volume}
        if labels is not None:
            marks = read["labels"] = volume_of(labels)
            check_same_shape(volume, marks)
            target = resolve_target(marks, options.target, options.ignore_label)
            fit = label_asymmetry(volume, marks, target, seed=options.seed)
        provenance = provenance_of(options.seed if labels is not None else None, **read)
        return Inspected(None, (), volume, None, _middle_range(volume), provenance, fit)
    if labels is not None:
        raise BadInputError(
            f"--labels was given for the model {source}, expected a volume with it; name the raw "
            "volume, or leave it out"
        )
    from evenslice.evidence.certificate import certify
    from evenslice.model.checkpoint import stem_record
    from evenslice.model.opening import model_of

    model = model_of(source, options)
    certificate = None
    if options.verify:
        certificate = certify(model, seed=options.seed, progress=progress)
    provenance = provenance_of(options.seed, model=model)
    return Inspected(model, tuple(stem_record(model)), None, certificate, None, provenance)


def _middle_range(volume: Volume) -> tuple[float, float] | None:
    """Return the lowest and highest finite value of the middle slice; whole numbers stay whole."""
    z = volume.shape[0] // 2
    side = REMOTE_SIDE if is_remote(volume.source) else RANGE_SIDE
    y, x = (middle(slice(0, n), side) for n in volume.shape[1:])
    plane = volume.read((slice(z, z + 1), y, x))
    finite = plane[np.isfinite(plane)]
    return (finite.min().item(), finite.max().item()) if finite.size else None
