"""What N5 says of an array (Janelia's COSEM, BigDataViewer, n5-viewer), as Zarr would say it."""

from typing import Any

from evenslice.errors import BadInputError
from evenslice.options import JsonObject
from evenslice.volume.address import Folder, TensorPixels, open_tensor, reason
from evenslice.volume.array import Volume, sizes
from evenslice.volume.attributes import (
    agreed_axes,
    kept_axes,
    named_axes,
    stated_origin,
    stated_size,
)
from evenslice.volume.zarr_reader import json_of, only_below

UNSTATED = [1.0, 1.0, 1.0]
SCALES = 100


def n5_attributes(own: JsonObject, around: list[JsonObject], name: str) -> JsonObject:
    """Return ``axes``, ``resolution``, ``units`` and ``offset``, in the order z, y, x.

    Parameters
    ----------
    own
        The attributes of the array, whose sizes are its own.
    around
        Those of the groups around it, the nearest first, whose sizes are those of level ``s0``.
    name
        Of the array: ``s2`` is level 2.
    """
    found: JsonObject = {}
    if (axes := own.get("axes")) and isinstance(axes, list):
        found["axes"] = axes[::-1]
    transform = own.get("transform")
    if isinstance(transform, dict) and {"axes", "scale"} <= transform.keys():
        found["axes"] = _in_order(transform, transform["axes"])
        found["resolution"] = _in_order(transform, transform["scale"])
        found["offset"] = _in_order(transform, transform.get("translate", [0.0] * 3))
        found["units"] = _in_order(transform, transform.get("units", ["nm"] * 3))
        return found
    size, units = _size(own)
    factors = own.get("downsamplingFactors")
    if not size:
        level = int(name[1:]) if name[:1] == "s" and name[1:].isdecimal() else 0
        for group in around:
            levels = group.get("scales", group.get("downsamplingFactors"))
            if factors is None and isinstance(levels, list) and level < len(levels):
                factors = levels[level]
            if not size:
                size, units = _size(group)
        if size and isinstance(factors, list) and len(factors) == len(size):
            size = [side * factor for side, factor in zip(size, factors, strict=True)]
        elif level and not isinstance(factors, list):
            size = []
    if size and (units is not None or size != UNSTATED):
        found["resolution"] = size[::-1]
        found["units"] = units[::-1] if isinstance(units, list) else units or "nm"
    return found


def _size(attributes: JsonObject) -> tuple[list[Any], Any]:
    """Return the voxel size (x, y, z) that one place states, and its unit or units."""
    pixel = attributes.get("pixelResolution")
    if isinstance(pixel, dict):
        return list(pixel.get("dimensions", [])), pixel.get("unit")
    size = attributes.get("resolution", pixel)
    if not isinstance(size, list) or not all(isinstance(side, int | float) for side in size):
        return [], None
    return size, attributes.get("units")


def _in_order(transform: JsonObject, values: list[Any]) -> list[Any]:
    """Return values as z, y, x: they are so but where they are said to be in Fortran order."""
    return values[::-1] if transform.get("ordering", "C") == "F" else values


def open_n5(folder: Folder) -> Volume:
    """Open an array, level ``s0`` of a group, or the only array below a group.

    Raises ``BadInputError`` if there is none, more than one, or no volume of one channel.
    """
    if not _shape(folder):
        if not _shape(folder / "s0"):
            return open_n5(only_below(folder, _is_volume))
        levels = {"s0": _shape(folder / "s0")}
        while len(levels) < SCALES and (shape := _shape(folder / f"s{len(levels)}")):
            levels[f"s{len(levels)}"] = shape
        return _open_array(folder / "s0", folder, levels)
    return _open_array(folder, folder, {})


def _is_volume(folder: Folder) -> bool:
    return bool(_shape(folder) or _shape(folder / "s0"))


def _shape(folder: Folder) -> list[int]:
    """Return the sizes (z, y, x) of an array; empty for anything else."""
    return list(json_of(folder, "attributes.json").get("dimensions", ()))[::-1]


def _open_array(folder: Folder, source: Folder, levels: dict[str, list[int]]) -> Volume:
    own = json_of(folder, "attributes.json")
    try:
        array = open_tensor(folder, "n5").T
    except Exception as error:  # of many kinds
        raise BadInputError(
            f"{folder} cannot be read as N5 ({reason(error)}), expected whole metadata and a known "
            "compression; check the address, or export it again"
        ) from error
    around = [json_of(group, "attributes.json") for group in folder.parents[:2]]
    attributes = n5_attributes(own, around, folder.name)
    axes = kept_axes(agreed_axes(named_axes(attributes), array.shape, folder), array.shape, folder)
    facts = {
        "format": "N5",
        "dataset": folder.name,
        "chunks": sizes(array.chunk_layout.read_chunk.shape),
        "compression": str(own.get("compression", {}).get("type", own.get("compressionType"))),
    }
    if levels:
        facts["levels"] = "; ".join(f"{name}: {sizes(shape)}" for name, shape in levels.items())
    voxel = stated_size(attributes, axes, folder)
    origin = stated_origin(attributes, axes, voxel)
    return Volume(TensorPixels(array, axes, folder), voxel, str(source), "intensity", facts, origin)
