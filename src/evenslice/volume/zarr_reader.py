"""Zarr v2 and v3 arrays and OME-Zarr 0.4 and 0.5 images, with the sizes and units that their metadata state."""

import json
import math
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume, VoxelSize, check_chunk, sizes
from evenslice.volume.cache import ChunkedPixels
from evenslice.volume.voxel_size import UNIT_NM, checked, stated_size

MOST_NAMED = 8
MOST_LOOKED_AT = 500
MOST_TEXT = 2**26
METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
LONGEST = 255  # bytes of a name, on most file systems


@dataclass(frozen=True)
class Level:
    """One resolution of an OME-Zarr image.

    Attributes
    ----------
    path, name
        Its array, and its path inside the image.
    axes
        Names in order.
    voxel_nm
        (z, y, x), or None when the units are not stated.
    meaning
        ``labels``, what evenslice noted, or None.
    version
        Of OME-Zarr.
    siblings
        Name and array of every level of the image.
    """

    path: Path
    name: str
    axes: tuple[str, ...]
    voxel_nm: VoxelSize | None
    meaning: str | None
    version: str
    siblings: tuple[tuple[str, Path], ...]


def is_node(folder: Path) -> bool:
    """Whether a folder is an array or a group of a Zarr store."""
    return any((folder / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))


def in_store(path: Path) -> bool:
    """Whether a path is, or would be, inside a Zarr store."""
    return is_node(path) or any(is_node(parent) for parent in path.parents)


def is_array(folder: Path) -> bool:
    """Whether a folder is a Zarr array."""
    return (folder / ".zarray").is_file() or _json(folder / "zarr.json").get("node_type") == "array"


def attributes_of(folder: Path) -> dict[str, Any]:
    """Return the attributes of an array or group; empty where there are none."""
    found = _json(folder / "zarr.json").get("attributes") or _json(folder / ".zattrs")
    return found if isinstance(found, dict) else {}


def check_metadata(folder: Path) -> None:
    """Raise ``BadInputError`` that names the file if metadata of an array or group are no JSON, or state chunks of no voxels.

    From 3.4 on zarr reads a chunk size of 0 as 1 (and so the array as empty).
    """
    for name in METADATA[:-1]:
        found = _json(folder / name)
        grid = found.get("chunk_grid")
        stated = grid.get("configuration") if isinstance(grid, dict) else None
        chunks = stated.get("chunk_shape") if isinstance(stated, dict) else found.get("chunks")
        if isinstance(chunks, list) and 0 in chunks:
            raise BadInputError(
                f"{folder / name} states chunks of {sizes(chunks)[:60]} voxels, expected at least one voxel a chunk; copy or "
                "export it again"
            )


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    if file.stat().st_size > MOST_TEXT:
        raise BadInputError(
            f"{file} has {file.stat().st_size} bytes, expected Zarr metadata of at most {MOST_TEXT}; copy or download the store again"
        )
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInputError(
            f"{file} is not JSON ({error}), expected Zarr metadata; copy or download the store again"
        ) from error
    return found if isinstance(found, dict) else {}


def levels_of(folder: Path) -> list[Level]:
    """Return the levels of the first multiscale image that a group describes; empty if it is no image.

    Raises
    ------
    BadInputError
        If the description is broken.
    """
    attributes = attributes_of(folder)
    ome = attributes.get("ome", attributes)
    if not isinstance(ome, dict) or not ome.get("multiscales"):
        return []
    try:
        return _read_levels(folder, ome, attributes)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BadInputError(
            f"{folder} has broken OME-Zarr metadata ({type(error).__name__}: {error}), expected version 0.4 or 0.5; "
            "correct it, or choose one of its arrays by its path"
        ) from error


def _read_levels(folder: Path, ome: dict[str, Any], attributes: dict[str, Any]) -> list[Level]:
    scale = ome["multiscales"][0]
    version = str(ome.get("version") or scale.get("version") or "0.4")
    stated = scale.get("axes") or list("tczyx")  # as versions before 0.3 imply
    axes = tuple(str(a["name"] if isinstance(a, dict) else a).lower() for a in stated)
    units = [
        UNIT_NM.get(str(a.get("unit", "")).lower()) if isinstance(a, dict) else None for a in stated
    ]
    ours = attributes.get("evenslice")
    meaning = ours.get("meaning") if isinstance(ours, dict) else None
    if "image-label" in ome:
        meaning = "labels"
    siblings = tuple((str(d["path"]), _inside(folder, str(d["path"]))) for d in scale["datasets"])
    whole = _factors(scale, len(axes)) or [1.0] * len(axes)
    levels = []
    for dataset, (name, place) in zip(scale["datasets"], siblings, strict=True):
        own = _factors(dataset, len(axes))
        levels.append(
            Level(place, name, axes, _voxel(axes, units, own, whole), meaning, version, siblings)
        )
    return levels


def _inside(folder: Path, name: str) -> Path:
    """Return the folder of a level, which must lie in the image."""
    if any(len(part.encode("utf-8", "surrogatepass")) > LONGEST for part in name.split("/")):
        raise BadInputError(
            f"{folder} names a level of {len(name)} characters, expected names of at most {LONGEST} bytes; correct its metadata, or copy it again"
        )
    if os.path.isabs(name) or os.path.normpath(name).startswith(".."):  # noqa: PTH117 (a Path would follow links)
        raise BadInputError(
            f"{folder} names the level {name}, which lies outside of it, expected a path inside; give that array by its own path"
        )
    return folder / name


def _factors(part: dict[str, Any], count: int) -> list[float] | None:
    """Return the scale among the transformations of a level or image, None if there is none."""
    for change in part.get("coordinateTransformations") or ():
        if change.get("type") == "scale" and "scale" in change:
            scale = [float(factor) for factor in change["scale"]]
            if len(scale) != count:
                raise ValueError(f"a scale of {len(scale)} numbers for {count} axes")
            return scale
    return None


def _voxel(
    axes: tuple[str, ...], units: list[float | None], own: list[float] | None, whole: list[float]
) -> VoxelSize | None:
    if own is None or not set("zyx") <= set(axes):
        return None
    found = []
    for axis in "zyx":
        at = axes.index(axis)
        unit = units[at]
        if unit is None:
            return None
        found.append(own[at] * whole[at] * unit)
    return checked(found)


def image_above(array: Path) -> Level | None:
    """Return the level of an image that an array is, None if it belongs to none."""
    for folder in islice(array.parents, 3):
        if not is_node(folder):
            continue
        for level in levels_of(folder):
            if os.path.normpath(level.path) == os.path.normpath(array):
                return level
    return None


def arrays_below(folder: Path) -> list[Path]:
    """Return the arrays and images in a group at any depth, in order; levels of an image are not listed apart."""
    return list(islice(_walk(folder, [MOST_LOOKED_AT]), MOST_LOOKED_AT))


def _walk(folder: Path, left: list[int]) -> Iterator[Path]:
    for inner in sorted(f for f in folder.iterdir() if f.is_dir() and not f.is_symlink()):
        left[0] -= 1
        if left[0] < 0:
            return
        if is_array(inner) or (is_node(inner) and levels_of(inner)):
            yield inner
        else:
            yield from _walk(inner, left)


def listed(folder: Path) -> str:
    """Name what a store or group holds, for a message."""
    levels = levels_of(folder)
    names = [name for name, _ in levels[0].siblings] if levels else []
    inside = [f for f in arrays_below(folder) if f not in [level.path for level in levels]]
    names += [str(f.relative_to(folder)) for f in inside]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return (", ".join(names[:MOST_NAMED]) or "nothing") + more


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
        for (
            one
        ) in said:  # numpy before 2 takes a fill value that does not fit, changed, with a warning
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
    pixels = ChunkedPixels(
        volume_shape, dtype, (chunk[0], chunk[1], chunk[2]), _reader(array, kept, folder)
    )
    voxel = level.voxel_nm if level else stated_size(attributes)
    meaning = level.meaning if level else _noted_meaning(attributes)
    return Volume(
        pixels,
        voxel,
        str(source),
        meaning if meaning in MEANINGS else "intensity",
        _facts(array, level, folder),
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
    folder = (
        path if is_array(path) else levels[0].path if levels else (arrays_below(path) or [path])[0]
    )
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
        kept = (
            list(range(3))
            if len(shape) == 3
            else [axis for axis, size in enumerate(shape) if size > 1]
        )
        if len(kept) == 3:
            return kept
        raise BadInputError(
            f"{folder} has the shape {sizes(shape)}, expected a volume with axes z, y, x; save one channel and time"
        )
    found = ", ".join(f"{name} {size}" for name, size in zip(names, shape, strict=True))
    several = [
        name for name, size in zip(names, shape, strict=True) if name not in "zyx" and size > 1
    ]
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
        "chunks": sizes(array.chunks)
        + (f" in shards of {sizes(array.shards)}" if array.shards else ""),
        "compression": ", ".join(
            _codec_name(codec, name) for codec, name in zip(array.compressors, codecs, strict=True)
        )
        or "none",
    }
    if level:
        facts["levels"] = "; ".join(
            f"{name}: {_shape(place)}" for name, place in level.siblings[:MOST_LEVELS]
        )
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
