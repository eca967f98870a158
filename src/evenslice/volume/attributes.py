"""What the attributes of an HDF5 dataset or Zarr array state: its axes, voxel size and scaling."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evenslice.errors import BadInputError, InputWarning
from evenslice.volume.array import ORIGIN, Place, VoxelSize, sizes
from evenslice.volume.voxel_size import agreed, checked, nm_of

_SIZES = ("resolution", "voxel_size", "element_size_um")
_UNITS = {"unit", "units"}
_NAMES = ("_ARRAY_DIMENSIONS", "axis_names", "axes")
_SAME = {"depth": "z", "height": "y", "width": "x", "channel": "c", "channels": "c", "time": "t"}
_KNOWN = set("tczyx")
MOST_COLOURS = 4
MOST_UNEQUAL = 1.5
SMALLEST_NM = 0.1


def named_axes(attributes: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of the axes as each attribute of xarray, funlib and others states them."""
    stated = {key: attributes[key] for key in _NAMES if key in attributes}
    return {
        key: [text_of(name) for name in value]
        for key, value in stated.items()
        if isinstance(value, str) or np.ndim(value) == 1
    }


def agreed_axes(
    stated: Mapping[str, Sequence[str] | None], shape: Sequence[int], source: object
) -> tuple[str, ...] | None:
    """Return the names of the axes, in lower case; None if nothing known is stated.

    Raises
    ------
    BadInputError
        If two places state different names, or not as many as there are axes.
    """
    found: dict[str, tuple[str, ...]] = {}
    for place, names in stated.items():
        if names is not None:
            lower = tuple(name.strip().lower() for name in names)
            found[place] = tuple(_SAME.get(name, name) for name in lower)
    found = {place: names for place, names in found.items() if _KNOWN & set(names)}
    for place, names in found.items():
        if len(names) != len(shape):
            raise BadInputError(
                f"{source} has {len(shape)} axes ({sizes(shape)}) but its {place} names "
                f"{len(names)} ({', '.join(names)}), expected as many; correct the metadata"
            )
    if len(set(found.values())) > 1:
        both = " but ".join(f"{place} {', '.join(names)}" for place, names in found.items())
        raise BadInputError(
            f"{source} names its axes twice: {both}, expected the same; correct the metadata"
        )
    return next(iter(found.values()), None)


def kept_axes(
    names: tuple[str, ...] | None, shape: tuple[int, ...], source: object
) -> tuple[int, int, int]:
    """Return which axes are z, y and x; without names, those of size above 1.

    Raises
    ------
    BadInputError
        If z, y, x do not come in this order, or another axis is larger than 1.
    """
    if names is None:
        large = [axis for axis, size in enumerate(shape) if size > 1]
        kept = [0, 1, 2] if len(shape) == 3 else large
        if len(shape) < 3 or len(kept) != 3:
            raise BadInputError(
                f"{source} has the shape {sizes(shape)}, expected a volume with axes z, y, x; save "
                "one channel and time"
            )
        if shape[kept[2]] <= MOST_COLOURS < min(shape[kept[0]], shape[kept[1]]):
            raise BadInputError(
                f"{source} has the shape {sizes(shape)}, which is that of an image with "
                f"{shape[kept[2]]} colours or channels, expected a volume with axes z, y, x; save "
                "one channel, or name the axes z, y, x if they are"
            )
        return kept[0], kept[1], kept[2]
    found = ", ".join(f"{name or '?'} {size}" for name, size in zip(names, shape, strict=True))
    others = [
        name or "?"
        for name, size in zip(names, shape, strict=True)
        if size > 1 and name not in ("z", "y", "x")
    ]
    if others:
        raise BadInputError(
            f"{source} has more than one value along {' and '.join(others)} (axes {found}), "
            "expected one volume z, y, x; save one channel and time as an array of its own"
        )
    kept = [axis for axis, name in enumerate(names) if name in ("z", "y", "x")]
    if "".join(names[axis] for axis in kept) != "zyx":
        raise BadInputError(
            f"{source} has the axes {found}, expected z, y, x in this order; transpose and save it "
            "again"
        )
    return kept[0], kept[1], kept[2]


def stated_size(
    attributes: Mapping[str, Any],
    axes: Sequence[int],
    source: object,
    others: Mapping[str, VoxelSize | None] | None = None,
) -> VoxelSize | None:
    """Return the voxel size (z, y, x) in nm that attributes state, None if they do not.

    ``resolution`` (CREMI) and ``voxel_size`` (funlib) are in nm unless ``units`` says otherwise,
    or they would be smaller than an atom; ``element_size_um`` is in micrometres. ``axes`` are those
    that are z, y and x, ``others`` the sizes that other places state.
    """
    found = {name: _size(attributes, name, axes) for name in _SIZES if name in attributes}
    size = agreed({**found, **(others or {})}, source)
    if size is not None and max(size[1:]) > MOST_UNEQUAL * min(size[1:]):
        warnings.warn(
            f"{source} states voxels of {' x '.join(f'{side:g}' for side in size)} nm, expected z, "
            "y, x: if these are x, y, z, give them with --voxel-size; they count as not stated",
            InputWarning,
            stacklevel=4,
        )
        return None
    return size


def stated_origin(
    attributes: Mapping[str, Any], axes: Sequence[int], size: VoxelSize | None
) -> Place:
    """Return the place of the first voxel, in voxels: ``offset`` (CREMI, funlib) is in nm."""
    places = _times(_of_axes(attributes.get("offset", ()), axes), _units(attributes, axes))
    if size is None or len(places) != 3 or not np.isfinite(places).all():
        return ORIGIN
    z, y, x = (place / side for place, side in zip(places, size, strict=True))
    return z, y, x


def _size(attributes: Mapping[str, Any], name: str, axes: Sequence[int]) -> VoxelSize | None:
    micrometres = name == "element_size_um"
    factors = [1e3] * 3 if micrometres else _units(attributes, axes)
    size = checked(_times(_of_axes(attributes[name], axes), factors))
    stated = not micrometres and _UNITS & set(attributes)
    return size if size is None or stated or min(size) >= SMALLEST_NM else None


def _units(attributes: Mapping[str, Any], axes: Sequence[int]) -> list[float]:
    """Return how many nm the units of z, y and x are; 1 where none is stated."""
    units = attributes.get("units", attributes.get("unit", "nm"))
    return [nm_of(word) for word in _of_axes([units] * 3 if np.ndim(units) == 0 else units, axes)]


def _of_axes(values: Any, axes: Sequence[int]) -> list[Any]:
    """Return the values of z, y and x, where there is one for each axis of the array."""
    flat = list(np.ravel(values))
    return [flat[axis] for axis in axes] if len(flat) > max(2, *axes) else flat


def _times(sides: Sequence[Any], factors: Sequence[float]) -> list[float]:
    try:
        return [float(side) * factor for side, factor in zip(sides, factors, strict=True)]
    except (TypeError, ValueError):
        return []


def text_of(value: Any) -> str:
    """Return an attribute as text: HDF5 has bytes and strings."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def warn_of_scaling(attributes: Mapping[str, Any], source: object) -> None:
    """Say so where attributes (netCDF, xarray) ask for a scaling that is not applied."""
    stated = {"scale_factor": 1.0, "add_offset": 0.0}
    asked = {
        name: attributes[name]
        for name, neutral in stated.items()
        if name in attributes and not np.all(np.asarray(attributes[name]) == neutral)
    }
    if asked:
        words = " and ".join(f"{name} {value}" for name, value in asked.items())
        warnings.warn(
            f"{source} states {words}, which are not applied: the numbers are read as they are "
            "stored",
            InputWarning,
            stacklevel=4,
        )
