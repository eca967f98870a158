"""The options that the command line accepts, each named once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from evenslice.errors import BadInputError


class InitName(StrEnum):
    """How the stem gets its slots from R, G and B."""

    rgb = "rgb"
    green = "green"
    red = "red"
    blue = "blue"
    mean = "mean"
    green_matched = "green-matched"
    random = "random"


class TieName(StrEnum):
    """A constraint kept through training."""

    none = "none"
    mirror = "mirror"
    uniform = "uniform"


class TargetName(StrEnum):
    """What the labels mean."""

    auto = "auto"
    foreground = "foreground"
    boundary = "boundary"
    classes = "classes"


class DeviceName(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class OutputName(StrEnum):
    """What segment writes."""

    labels = "labels"
    probabilities = "probabilities"


class InstancesName(StrEnum):
    """How segment makes objects."""

    none = "none"
    components = "components"
    watershed = "watershed"


class PrecisionName(StrEnum):
    """In which numbers the network is run."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class AxisName(StrEnum):
    """Along which axis a volume is sliced."""

    z = "z"
    y = "y"
    x = "x"


class StatisticsName(StrEnum):
    """Whose mean and std normalise a volume."""

    model = "model"
    volume = "volume"


class AsName(StrEnum):
    """What evaluate takes labels for."""

    semantic = "semantic"
    instances = "instances"


class TtaName(StrEnum):
    """Test-time augmentation."""

    none = "none"
    reversal = "reversal"


class RegionName(StrEnum):
    """What an audit explains."""

    predicted = "predicted"
    truth = "truth"
    boundary = "boundary"
    all = "all"


class DesignName(StrEnum):
    """Which arrangements an audit measures."""

    reversal = "reversal"
    latin = "latin"


FAILED_CHECK = 1
ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A .safetensors of evenslice, package.module:callable, .pt2 or .onnx."
    ),
]
VolumePath = Annotated[
    Path,
    typer.Argument(
        metavar="VOLUME",
        help="TIFF, OME-Zarr, Zarr, HDF5, MRC, raw with .info, or a folder of images.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Device = Annotated[
    DeviceName, typer.Option("--device", help="Where to compute; auto is a GPU where there is one.")
]
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the result as JSON; - for standard output."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what exists.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where an error arose.")]
Roi = Annotated[
    str | None,
    typer.Option("--roi", metavar="Z0:Z1,Y0:Y1,X0:X1", help="Only this box of the volume."),
]

Slices = Annotated[
    int | None,
    typer.Option("--slices", help="What the model sees at once, where it does not say it."),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean", metavar="M", help="Normalisation in raw intensities; one number or one a slot."
    ),
]
Std = Annotated[str | None, typer.Option("--std", metavar="D", help="As --mean.")]


def numbers(text: str | None, name: str) -> list[float] | None:
    """Read one number or several, separated by commas."""
    from evenslice.volume.voxel_size import numbers_of

    return None if text is None else numbers_of(text, name)


def whole_number(text: str, name: str) -> int:
    """Read a whole number."""
    try:
        return int(text)
    except ValueError as error:
        raise BadInputError(
            f"{name} is {text!r}, expected a whole number; write for example 40"
        ) from error
