"""Inspect: what a model's stem is, or what was understood of a volume."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from evenslice.errors import BadInputError
from evenslice.evidence.certificate import Certificate, certify
from evenslice.model.checkpoint import stem_record
from evenslice.model.external import form_of, guess_library_call
from evenslice.model.inputs import model_of
from evenslice.model.provenance import provenance_of
from evenslice.model.spec import ExternalSpec, Model
from evenslice.progress import Progress, silent
from evenslice.volume.array import Volume
from evenslice.volume.files import READ, open_volume, split_container
from evenslice.volume.zarr_reader import in_store

LOOKED_AT = 2048  # pixels a side


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
    values
        Lowest and highest value of the middle slice of a volume; None for a model, or where no value is a number.
    provenance
        Command, seed, versions, and the hash of what was read.
    """

    model: Model | None
    stems: tuple[dict[str, Any], ...]
    volume: Volume | None
    certificate: Certificate | None
    values: tuple[float, float] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it (schema evenslice.inspect/1)."""
        if self.volume is not None:
            about: dict[str, Any] = {
                "kind": "volume",
                "shape": list(self.volume.shape),
                "dtype": str(self.volume.dtype),
                "voxel_nm": None if self.volume.voxel_nm is None else list(self.volume.voxel_nm),
                "meaning": self.volume.meaning,
                "range": None if self.values is None else list(self.values),
                "size_bytes": math.prod(self.volume.shape) * self.volume.dtype.itemsize,
                "facts": dict(self.volume.facts),
            }
        else:
            assert self.model is not None
            norm = self.model.normalisation
            about = {
                "kind": "model",
                "slices": self.model.slices,
                "form": self.model.spec.form
                if isinstance(self.model.spec, ExternalSpec)
                else "evenslice",
                "library_call": guess_library_call(self.model),
                "spec": self.model.spec.to_dict(),
                "tta": self.model.tta,
                "size": self.model.size,
                "stems": list(self.stems),
                "normalisation": None
                if norm is None
                else {
                    "uniform": norm.uniform,
                    "mean": list(norm.mean),
                    "std": list(norm.std),
                    "source": norm.source,
                },
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
    trust: bool = False,
    seed: int = 0,
    progress: Progress = silent,
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
    trust
        Whether a ``.pt2``, which can run code when it is opened, may be opened.
    seed
        Of the noise.
    progress
        How to show the progress.

    Raises
    ------
    BadInputError
        If it is neither.
    """
    if form_of(source) is None:
        file = split_container(source)[0]
        if not file.exists() and not in_store(file):
            raise BadInputError(
                f"{source} does not exist, expected a model (.safetensors, .pt2, .onnx or package.module:callable) or a volume "
                f"({READ}); check the name"
            )
        volume = _with_missing_chunks(open_volume(source), Path(source))
        return Inspected(
            None, (), volume, None, _middle_range(volume), provenance_of(None, volume=volume)
        )
    model = model_of(source, slices, mean, std, trust)
    certificate = certify(model, seed=seed, progress=progress) if verify else None
    return Inspected(
        model, tuple(stem_record(model)), None, certificate, None, provenance_of(seed, model=model)
    )


def _with_missing_chunks(volume: Volume, path: Path) -> Volume:
    """Add to the facts of a Zarr store that chunks are missing, which is legal, and rarely what was meant."""
    if "Zarr" not in volume.facts.get("format", ""):
        return volume
    from evenslice.volume.zarr_reader import chunks_there

    missing = chunks_there(path)
    return (
        volume if missing is None else replace(volume, facts={**volume.facts, "missing": missing})
    )


def _middle_range(volume: Volume) -> tuple[float, float] | None:
    """Return the lowest and highest finite value of the middle of the middle slice: whole numbers stay whole."""
    z = volume.shape[0] // 2
    y, x = (slice(max(0, (n - LOOKED_AT) // 2), (n + LOOKED_AT) // 2) for n in volume.shape[1:])
    plane = volume.read((slice(z, z + 1), y, x))
    finite = plane[np.isfinite(plane)]
    return (finite.min().item(), finite.max().item()) if finite.size else None
