"""Voxel sizes as files state them, in nanometres, and numbers as people write them."""

import contextlib
import math
import unicodedata
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from evenslice.errors import BadInputError, InputWarning
from evenslice.volume.array import VoxelSize

UNIT_NM = {
    **{"nm": 1.0, "nanometer": 1.0, "pm": 1e-3, "picometer": 1e-3, "å": 0.1, "angstrom": 0.1},
    **{"um": 1e3, "micron": 1e3, "micrometer": 1e3, "mm": 1e6, "millimeter": 1e6},
    **{"cm": 1e7, "centimeter": 1e7, "m": 1e9, "meter": 1e9},
}
_LARGE = ("Mm", "Pm")  # mega and peta: not milli and pico


def checked(size: Any) -> VoxelSize | None:
    """Return three finite numbers above 0 as a voxel size (z, y, x), None for anything else."""
    with contextlib.suppress(TypeError, ValueError):
        z, y, x = (float(side) for side in size)
        if all(0 < side < math.inf for side in (z, y, x)):
            return z, y, x
    return None


def nm_of(unit: object) -> float:
    """Return how many nm a unit of length is; NaN for one that is unknown, such as pixels.

    Also in plural, in any case, with either character for micro and for angstrom.
    """
    word = unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit)
    word = unicodedata.normalize("NFKC", word.strip())
    name = word.lower().replace("\\u00b5", "u").replace("μ", "u").replace("metre", "meter")
    known = next((n for n in (name, name.removesuffix("s")) if n in UNIT_NM), None)
    return math.nan if known is None or word in _LARGE else UNIT_NM[known]


def agreed(stated: Mapping[str, VoxelSize | None], source: object) -> VoxelSize | None:
    """Return the voxel size that several places state; None, and a warning, where they differ."""
    found = {place: size for place, size in stated.items() if size is not None}
    first = next(iter(found.values()), None)
    if first is None or all(np.allclose(size, first, rtol=1e-3) for size in found.values()):
        return first
    both = " but ".join(
        f"{place} {' x '.join(f'{side:g}' for side in size)} nm" for place, size in found.items()
    )
    warnings.warn(
        f"{source} states {both} (z, y, x), so its voxel size counts as not stated; give it with "
        "--voxel-size",
        InputWarning,
        stacklevel=4,
    )
    return None


def numbers_of(text: str, name: str) -> list[float]:
    """Read one number or several, separated by commas.

    Raises
    ------
    BadInputError
        If it is something else; ``name`` says what was read.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise BadInputError(
            f"{name} is {text!r}, expected one number or one per slot, separated by commas; write "
            "it so"
        ) from error
