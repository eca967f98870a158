"""Zarr v2 and v3 arrays and OME-Zarr 0.4 and 0.5 images, with the sizes and units that their metadata state."""

import math
import os
import re
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume, check_chunk, sizes
from evenslice.volume.cache import ChunkedPixels
from evenslice.volume.ngff import (
    METADATA,
    Level,
    arrays_below,
    check_metadata,
    image_above,
    is_array,
    is_node,
    levels_of,
    listed,
)
from evenslice.volume.units import stated_size

MEANINGS = ("intensity", "labels", "probabilities")
MOST_LEVELS = 32
MOST_COUNTED = 2**20


def open_zarr(path: Path) -> Volume:
    """Open a Zarr array, or level 0 of an OME-Zarr image, lazily as a volume (z, y, x).

    Parameters
    ----------
    path
        An array, an image, one of its levels, or a group that holds exactly one of these.

    Raises
    ------
    BadInputError
        If there is nothing at this path of the store, more than one array, or no volume of one channel and time.
    """
    if not path.exists():
        store = next(parent for parent in path.parents if is_node(parent))
        raise BadInputError(
            f"{path} does not exist, expected an array or group of the store {store}; choose one of: {listed(store)}"
        )
    if is_array(path):
        return _open_array(path, image_above(path), path)
    levels = levels_of(path)
    if levels:
        return _open_array(levels[0].path, levels[0], path)
    below = arrays_below(path)
    if len(below) != 1:
        what = f"{len(below)} arrays" if below else "no array"
        raise BadInputError(
            f"{path} holds {what}, expected exactly one volume; choose one of: {listed(path)}"
            if below
            else f"{path} holds {what}, expected a Zarr array or OME-Zarr image; check the path"
        )
    return open_zarr(below[0])


def _open_array(folder: Path, level: Level | None, source: Path) -> Volume:
    check_metadata(folder)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            array = zarr.open_array(str(folder), mode="r")
            attributes: dict[str, Any] = dict(array.attrs)
            shape, dtype = tuple(array.shape), np.dtype(array.dtype)
        for one in said:  # numpy before 2 takes a fill value that does not fit, changed, with a warning
            if "out-of-bound" in str(one.message):
                raise ValueError(str(one.message))
    except Exception as error:  # zarr raises types of its own
        raise BadInputError(
            f"{folder} cannot be read as a Zarr array ({_first_line(error)}), expected whole metadata and known codecs; copy or export it again"
        ) from error
    check_chunk(array.chunks, dtype.itemsize, folder)
    _check_layout(array, folder)
    names = level.axes if level else _stated_axes(array, attributes)
    kept = _kept_axes(names, shape, folder)
    volume_shape = tuple(shape[axis] for axis in kept)
    chunk = tuple(array.chunks[axis] for axis in kept)
    pixels = ChunkedPixels(volume_shape, dtype, (chunk[0], chunk[1], chunk[2]), _reader(array, kept, folder))
    voxel = level.voxel_nm if level else stated_size(attributes)
    meaning = level.meaning if level else _noted_meaning(attributes)
    return Volume(
        pixels, voxel, str(source), meaning if meaning in MEANINGS else "intensity", _facts(array, level, folder)
    )


def _check_layout(array: Any, folder: Path) -> None:
    """Raise if files lie beside the metadata but no chunk under the names that these state: all would be the fill value.

    A store in which no chunk at all was written is legal.
    """
    key = str(array.metadata.encode_chunk_key((0,) * max(1, array.ndim)))
    first, nested = key.split("/", maxsplit=1)[0], "/" in key
    name = re.compile(re.sub(r"\d+", r"\\d+", re.escape(first)))
    others = ""
    with os.scandir(folder) as entries:
        for entry in entries:
            if name.fullmatch(entry.name) and entry.is_dir() == nested:
                return
            if entry.name not in METADATA and not entry.name.startswith("."):
                others = entry.name
    if others:
        raise BadInputError(
            f"{folder} holds {others} but no chunk under a name such as {key}, expected chunks as its metadata name them; correct the "
            "separator of its chunks (dimension_separator, chunk_key_encoding), or copy it again"
        )


def chunks_there(path: Path) -> str | None:
    """Say how many chunks of an array, or of level 0 of an image, were written and what the others hold; None if all were.

    Arrays of more than a million chunks are not counted.
    """
    levels = [] if is_array(path) else levels_of(path)
    folder = path if is_array(path) else levels[0].path if levels else (arrays_below(path) or [path])[0]
    array: Any = zarr.open_array(str(folder), mode="r")
    sides = array.shards or array.chunks
    total = math.prod(-(-size // side) for size, side in zip(array.shape, sides, strict=True))
    found = sum(
        len([name for name in files if name not in METADATA and not name.startswith(".")])
        for _, _, files in islice(os.walk(folder), MOST_COUNTED if total <= MOST_COUNTED else 0)
    )
    if found >= total or total > MOST_COUNTED:
        return None
    kind = "shards" if array.shards else "chunks"
    return f"{found} of {total} {kind} are there, all else is the fill value {array.fill_value}"


def _noted_meaning(attributes: Any) -> Any:
    noted = attributes.get("evenslice")
    return noted.get("meaning") if isinstance(noted, dict) else None


def _reader(array: Any, kept: list[int], folder: Path) -> Any:
    def read(*box: slice) -> NDArray[Any]:
        key: list[Any] = [0] * len(array.shape)
        for axis, part in zip(kept, box, strict=True):
            key[axis] = part
        try:
            return np.asarray(array[tuple(key)])
        except Exception as error:  # each codec raises types of its own
            where = ", ".join(f"{part.start}:{part.stop}" for part in box)
            raise BadInputError(
                f"{folder} cannot be decoded at [{where}] ({_first_line(error)}), expected whole chunks; copy or download it again"
            ) from error

    return read


def _stated_axes(array: Any, attributes: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the names of the axes of an array outside any image (Zarr v3, xarray or funlib), None if not stated."""
    names = getattr(array.metadata, "dimension_names", None) or attributes.get("_ARRAY_DIMENSIONS")
    names = names or attributes.get("axis_names")
    return tuple(str(name).lower() for name in names) if names else None


def _kept_axes(names: tuple[str, ...] | None, shape: tuple[int, ...], folder: Path) -> list[int]:
    """Return which axes of an array are z, y and x; raise unless the others are of size 1 and these in that order."""
    if names is not None and len(names) != len(shape):
        raise BadInputError(
            f"{folder} has {len(shape)} axes but its metadata name {len(names)} ({', '.join(names)}), expected as many; correct the metadata"
        )
    if names is None or not set(names) & set("zyx"):
        kept = list(range(3)) if len(shape) == 3 else [axis for axis, size in enumerate(shape) if size > 1]
        if len(kept) == 3:
            return kept
        raise BadInputError(
            f"{folder} has the shape {sizes(shape)}, expected a volume with axes z, y, x; save one channel and time"
        )
    found = ", ".join(f"{name} {size}" for name, size in zip(names, shape, strict=True))
    several = [name for name, size in zip(names, shape, strict=True) if name not in "zyx" and size > 1]
    if several:
        raise BadInputError(
            f"{folder} has more than one value along {' and '.join(several)} (axes {found}), expected one volume z, y, x; "
            "save one channel and time as an array of its own"
        )
    kept = [axis for axis, name in enumerate(names) if name in "zyx"]
    if "".join(names[axis] for axis in kept) != "zyx":
        raise BadInputError(
            f"{folder} has the axes {found}, expected z, y, x in this order; transpose and save it again"
        )
    return kept


def _facts(array: Any, level: Level | None, folder: Path) -> dict[str, str]:
    """Say in words what was understood of an array."""
    codecs = [type(codec).__name__.removesuffix("Codec") for codec in array.compressors]
    facts = {
        "format": f"OME-Zarr {level.version}" if level else f"Zarr v{array.metadata.zarr_format}",
        "dataset": level.name if level else folder.name,
        "chunks": sizes(array.chunks) + (f" in shards of {sizes(array.shards)}" if array.shards else ""),
        "compression": ", ".join(
            _codec_name(codec, name) for codec, name in zip(array.compressors, codecs, strict=True)
        )
        or "none",
    }
    if level:
        facts["levels"] = "; ".join(f"{name}: {_shape(place)}" for name, place in level.siblings[:MOST_LEVELS])
    return facts


def _codec_name(codec: Any, name: str) -> str:
    inner = getattr(codec, "cname", None)
    return f"{name.lower()} {getattr(inner, 'value', inner)}" if inner else name.lower()


def _shape(folder: Path) -> str:
    try:
        return sizes(zarr.open_array(str(folder), mode="r").shape)
    except Exception:  # a level that is not there is no reason not to read another
        return "missing"


def _first_line(error: Exception) -> str:
    if isinstance(error, KeyError) and error.args:
        text = str(error.args[0])
        return text.splitlines()[0][:200] if " " in text else f"it states no {text}"
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
