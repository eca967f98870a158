"""Inspect: what a model's stem is, or what was understood of a volume."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenslice.evidence.certificate import Certificate, certify
from evenslice.model.checkpoint import load_model, stem_record
from evenslice.model.spec import Model
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
                "spec": self.model.spec.to_dict(),
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


def inspect(source: str | Path, *, verify: bool = False, seed: int = 0) -> Inspected:
    """Look at a model file or a volume.

    Parameters
    ----------
    source
        A model file (``.safetensors``), or anything ``open_volume`` reads.
    verify
        Measure a model's response to the reversal again, on windows of noise.
    seed
        Of the noise.

    Raises
    ------
    BadInputError
        If it is neither.
    """
    source = Path(source)
    if source.suffix != ".safetensors":
        return Inspected(None, (), open_volume(source), None)
    model = load_model(source)
    return Inspected(model, tuple(stem_record(model)), None, certify(model, seed=seed) if verify else None)


def unevenness(norms: list[float]) -> tuple[float, float]:
    """Return how far norms per slot are from uniform and from mirror-symmetric.

    The spread of the norms relative to their mean, and the largest |(a - b) / (a + b)| over the mirror pairs; both 0 for an
    even stem. Norms can agree where filters do not, so 0 is necessary and the certificate is the proof.
    """
    mean = sum(norms) / len(norms)
    pairs = zip(norms, norms[::-1], strict=True)
    mirror = max((abs(a - b) / (a + b) for a, b in pairs if a + b > 0), default=0.0)
    return ((max(norms) - min(norms)) / mean if mean > 0 else 0.0), mirror
