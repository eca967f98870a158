"""TIFF stacks written for Fiji: with voxel size, meaning, place and provenance."""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from evenslice.errors import BadInputError
from evenslice.options import JsonObject
from evenslice.volume.array import ORIGIN, Place, Voxels, VoxelSize
from evenslice.volume.atomic import written_beside

BIG = 2**32 - 2**25
WIDEST = 65535
WRITABLE = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")


def write_tiff(
    path: Path,
    slices: Iterable[Voxels],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    voxel_nm: VoxelSize | None = None,
    meaning: str = "intensity",
    provenance: JsonObject | None = None,
    origin: Place = ORIGIN,
) -> None:
    """Write slices (y, x) as a deflate-compressed TIFF stack that Fiji opens with its voxel size.

    The file appears under its name only when it is complete. ImageJ layout for uint8, uint16 and
    float32 below 4 GB, else OME-TIFF. How it was made is noted as a line of JSON in the
    description; the place of the first voxel (z, y, x), in voxels, as ImageJ's origin or OME's
    positions of planes. Labels are shown from 0 to the largest.

    Raises
    ------
    BadInputError
        If neither layout can hold voxels of this type.
    """
    dtype = dtype.newbyteorder("=")
    if dtype.name not in WRITABLE:
        raise BadInputError(
            f"{path} cannot hold voxels of type {dtype}, expected one of {', '.join(WRITABLE)}; "
            "convert them, labels for example to uint32"
        )
    size = math.prod(shape) * dtype.itemsize
    imagej = dtype in (np.uint8, np.uint16, np.float32) and size < BIG
    options: JsonObject = {"imagej": True} if imagej else {"ome": True, "bigtiff": size >= BIG}
    metadata: JsonObject = {"axes": "ZYX"}
    resolution: JsonObject = {}
    if imagej and voxel_nm:
        metadata |= {"spacing": voxel_nm[0] / 1e3, "unit": "um"}
        resolution = {"resolution": (1e3 / voxel_nm[2], 1e3 / voxel_nm[1])}
    elif voxel_nm:
        for name, value in zip("ZYX", voxel_nm, strict=True):
            metadata |= {f"PhysicalSize{name}": value, f"PhysicalSize{name}Unit": "nm"}
    if any(origin):
        metadata |= _imagej_origin(origin) if imagej else _ome_places(origin, voxel_nm, shape[0])
    shown = imagej and meaning == "labels"
    if shown:
        metadata |= {"min": 0, "max": WIDEST}  # is replaced when the largest label is known
    notes = {"evenslice": meaning}
    if any(origin):
        notes["origin"] = ",".join(map(repr, origin))
    if provenance is not None:
        notes["provenance"] = json.dumps(provenance)
    metadata |= (
        notes
        if imagej
        else {"Description": "\n".join(f"{key}={value}" for key, value in notes.items())}
    )
    largest = 1

    def planes() -> Iterator[Voxels]:
        nonlocal largest
        for one in slices:
            plane = np.ascontiguousarray(one, dtype)
            largest = max(largest, int(plane.max())) if shown else largest
            yield plane

    with written_beside(path) as part:
        with tifffile.TiffWriter(part, **options) as writer:
            writer.write(
                planes(),
                shape=shape,
                dtype=dtype,
                compression="zlib",
                photometric="minisblack",
                metadata=metadata,
                **resolution,
            )
        if shown:
            with tifffile.TiffFile(part, mode="r+") as file:
                description = file.pages.first.tags["ImageDescription"]
                text = description.value.replace(f"max={WIDEST}", f"max={largest}", 1)
                description.overwrite(text)


def _imagej_origin(origin: Place) -> JsonObject:
    """Return which pixel ImageJ is to give the coordinates 0."""
    return {f"{axis}origin": -place for axis, place in zip("zyx", origin, strict=True)}


def _ome_places(origin: Place, voxel_nm: VoxelSize | None, depth: int) -> JsonObject:
    """Return the position of each plane for OME, in nm; empty where the voxel size is unknown."""
    if voxel_nm is None:
        return {}
    z, y, x = (place * side for place, side in zip(origin, voxel_nm, strict=True))
    places = {"X": [x] * depth, "Y": [y] * depth, "Z": [z + n * voxel_nm[0] for n in range(depth)]}
    units = {f"Position{axis}Unit": ["nm"] * depth for axis in places}
    return {"Plane": {f"Position{axis}": place for axis, place in places.items()} | units}
