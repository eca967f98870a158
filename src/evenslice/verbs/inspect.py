"""Inspect: what a model's stem is, or what was understood of a volume."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError
from evenslice.evidence.certificate import Certificate, certify
from evenslice.model.checkpoint import stem_record
from evenslice.model.foreign import form_of
from evenslice.model.origin import library_call
from evenslice.model.spec import Foreign, Model
from evenslice.verbs.models import model_of
from evenslice.volume.array import Volume
from evenslice.volume.files import open_volume


@dataclass(frozen=True)
class Inspected:
    """What was found: a model with its stems, or a volume.

    Attributes
    ----------
    model, stems
        The model and for each stem its module, kind and norm per slot; None and empty for a volume.
    volume
        The volume, or None.
    certificate
        The response to the reversal as measured now, or None if that was not asked for.
    """

    model: Model | None
    stems: tuple[dict[str, Any], ...]
    volume: Volume | None
    certificate: Certificate | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it (schema evenslice.inspect/1)."""
        if self.volume is not None:
            about: dict[str, Any] = {
                "kind": "volume",
                "shape": list(self.volume.shape),
                "dtype": str(self.volume.dtype),
                "voxel_nm": None if self.volume.voxel_nm is None else list(self.volume.voxel_nm),
                "meaning": self.volume.meaning,
            }
        else:
            assert self.model is not None
            norm = self.model.normalisation
            about = {
                "kind": "model",
                "slices": self.model.slices,
                "form": self.model.spec.form if isinstance(self.model.spec, Foreign) else "evenslice",
                "library_call": library_call(self.model),
                "spec": self.model.spec.to_dict(),
                "tta": self.model.tta,
                "size": self.model.size,
                "stems": list(self.stems),
                "normalisation": None
                if norm is None
                else {"uniform": norm.uniform, "mean": list(norm.mean), "std": list(norm.std), "source": norm.source},
                "certificate": self.model.certificate,
                "verified": None if self.certificate is None else self.certificate.to_dict(),
                "training": self.model.training,
                "scores": self.model.scores,
            }
        return {"schema": "evenslice.inspect/1", **about}


def inspect(
    source: str | Path,
    *,
    verify: bool = False,
    slices: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
) -> Inspected:
    """Look at a model in any form, or at a volume.

    Parameters
    ----------
    source
        A model (``.safetensors`` of ours, ``package.module:callable``, ``.pt2``, ``.onnx``), or anything ``open_volume`` reads.
    verify
        Measure a model's response to the reversal again, on windows of noise.
    slices, mean, std
        Of a foreign model, as ``audit`` takes them.
    seed
        Of the noise.

    Raises
    ------
    BadInputError
        If it is neither.
    """
    if form_of(source) is None:
        if not Path(source).exists() and not Path(str(source).partition(":")[0] or " ").exists():
            raise BadInputError(
                f"{source} does not exist, expected a model (.safetensors, .pt2, .onnx or package.module:callable) or a volume (a TIFF "
                "stack or a folder of images); check the name"
            )
        return Inspected(None, (), open_volume(source), None)
    model = model_of(source, slices, mean, std)
    return Inspected(model, tuple(stem_record(model)), None, certify(model, seed=seed) if verify else None)
