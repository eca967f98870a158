"""Neuroglancer precomputed volumes: images and segmentations, axes x, y, z and a channel."""

import math
from typing import Any

from evenslice.errors import BadInputError
from evenslice.options import JsonObject
from evenslice.volume.address import Folder, TensorPixels, open_tensor, reason
from evenslice.volume.array import Volume, sizes
from evenslice.volume.attributes import kept_axes
from evenslice.volume.voxel_size import checked
from evenslice.volume.zarr_reader import json_of


def scales_of(folder: Folder) -> list[JsonObject]:
    """Return the levels that the file ``info`` of a folder lists, the finest first."""
    found = json_of(folder, "info").get("scales")
    whole = isinstance(found, list) and all(isinstance(s, dict) and "key" in s for s in found)
    return found if whole and isinstance(found, list) else []


def open_precomputed(folder: Folder) -> Volume:
    """Open level 0, or the level whose key follows the folder that holds ``info``.

    Raises ``BadInputError`` if there is no such level, or it cannot be read as a volume.
    """
    root = next((one for one in (folder, *folder.parents) if scales_of(one)), folder)
    scales = scales_of(root)
    names = [str(scale["key"]) for scale in scales]
    asked = str(folder)[len(str(root)) :].replace("\\", "/").strip("/")
    if not scales or (asked and asked not in names):
        listed = ", ".join(names) or "a file info with its scales"
        raise BadInputError(
            f"{folder} is no level of a neuroglancer precomputed volume, expected one of: {listed}"
            "; check the address"
        )
    index = names.index(asked) if asked else 0
    scale = scales[index]
    try:
        array = open_tensor(root, "neuroglancer_precomputed", scale_index=index)
        described = array.spec().to_json()
    except Exception as error:  # of many kinds
        raise BadInputError(
            f"{root} cannot be read as neuroglancer precomputed ({reason(error)}), expected whole "
            "metadata and known encodings; check the address, or export it again"
        ) from error
    axes = kept_axes(("c", "z", "y", "x"), array.shape[::-1], folder)
    pixels = TensorPixels(array, [3 - axis for axis in axes], folder)
    facts = {
        "format": "neuroglancer precomputed",
        "dataset": names[index],
        "levels": "; ".join(f"{s['key']}: {sizes(s.get('size', ())[::-1])}" for s in scales),
        "chunks": sizes(array.chunk_layout.read_chunk.shape[2::-1])
        + (" in shards" if scale.get("sharding") else ""),
        "compression": str(described["scale_metadata"]["encoding"]),
    }
    kind = json_of(root, "info").get("type")
    x, y, z = (float(place) for place in scale.get("voxel_offset", (0, 0, 0)))
    return Volume(
        pixels,
        _voxel_nm(scale),
        str(folder),
        "labels" if kind == "segmentation" else "intensity",
        facts,
        (z, y, x),
    )


def _voxel_nm(scale: JsonObject) -> Any:
    sides = scale.get("resolution")
    known = isinstance(sides, list) and all(isinstance(s, int | float) for s in sides)
    return checked(sides[::-1] if known and isinstance(sides, list) else (math.nan,) * 3)
