"""What a run of ``segment`` is to do: equal for all who take part in it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from evenslice.errors import BadInputError
from evenslice.model.spec import Model
from evenslice.verbs.choices import check_threshold
from evenslice.volume.array import Roi

Output = Literal["labels", "probabilities"]
Instances = Literal["none", "components", "watershed"]
CHOICES = {
    "output": ("labels", "probabilities"),
    "instances": ("none", "components", "watershed"),
    "normalisation": ("model", "volume"),
}


@dataclass(frozen=True)
class Job:
    """The options of a run, and what they apply to.

    Attributes
    ----------
    model, volume
        Hashes, to recognise them.
    to
        ``zarr`` or ``tif``.
    roi
        The box (z, y, x) of the volume: start and stop along each axis.
    axis, output, threshold, tile, precision, memory, tta, normalisation, instances, min_size, voxel_nm
        The options, as given.

    Raises
    ------
    BadInputError
        If an option is not one of those known, or they contradict each other.
    """

    model: str
    volume: str
    to: Literal["zarr", "tif"]
    roi: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    axis: str = "z"
    output: Output = "labels"
    threshold: float = 0.5
    tile: int | None = None
    precision: str = "auto"
    memory: float | None = None
    tta: str = "none"
    normalisation: str = "model"
    instances: Instances = "none"
    min_size: int = 1
    voxel_nm: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise BadInputError(
                    f"the {name} {getattr(self, name)!r} is unknown, expected {' or '.join(known)}; choose one"
                )
        check_threshold(self.threshold)
        if self.min_size < 1:
            raise BadInputError(
                f"--min-size is {self.min_size}, expected 1 voxel or more; leave it out to keep all objects"
            )
        if self.min_size > 1 and self.instances == "none":
            raise BadInputError(
                "--min-size was given without objects, expected --instances with it; add it, or leave it out"
            )
        if self.to == "tif" and self.output == "probabilities" and self.instances != "none":
            raise BadInputError(
                "objects and --output probabilities were asked for in one TIFF, expected one of them; write OUT.zarr, which holds both"
            )

    def check_model(self, model: Model) -> None:
        """Raise ``BadInputError`` unless a model's classes fit the options."""
        classes = model.spec.classes
        if classes > 1 and self.to == "tif" and self.output == "probabilities":
            raise BadInputError(
                f"the model has {classes} classes, expected one for probabilities in a TIFF; write OUT.zarr, or use --output labels"
            )
        if classes > 1 and self.instances == "watershed":
            raise BadInputError(
                f"the model has {classes} classes, expected one, the boundary, for a watershed; use --instances components"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @staticmethod
    def from_dict(found: dict[str, Any]) -> "Job":
        """Return the job that a manifest holds."""
        z, y, x = ((int(low), int(high)) for low, high in found["roi"])
        voxel = found["voxel_nm"]
        return Job(
            **(found | {"roi": (z, y, x), "voxel_nm": None if voxel is None else (voxel[0], voxel[1], voxel[2])})
        )

    @property
    def box(self) -> Roi:
        """The box (z, y, x) of the volume."""
        z, y, x = (slice(*part) for part in self.roi)
        return z, y, x

    @property
    def shape(self) -> tuple[int, int, int]:
        """Sizes of the box."""
        z, y, x = (part[1] - part[0] for part in self.roi)
        return z, y, x

    @property
    def keeps_probabilities(self) -> bool:
        """Whether the run stores probabilities: they are asked for, or objects are made of them."""
        return self.to == "zarr" or self.output == "probabilities" or self.instances != "none"

    @property
    def keeps_labels(self) -> bool:
        """Whether the run stores labels."""
        return self.to == "zarr" or self.output == "labels"


def work_folder(out: Path) -> Path:
    """Return where a run keeps its state until it ends."""
    return out.with_name(out.name + ".run")
