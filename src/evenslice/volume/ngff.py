"""What the metadata of a Zarr store say: which folders are arrays and images, their axes, units and levels."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError
from evenslice.volume.array import VoxelSize, sizes
from evenslice.volume.units import UNIT_NM, checked

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
    units = [UNIT_NM.get(str(a.get("unit", "")).lower()) if isinstance(a, dict) else None for a in stated]
    ours = attributes.get("evenslice")
    meaning = ours.get("meaning") if isinstance(ours, dict) else None
    if "image-label" in ome:
        meaning = "labels"
    siblings = tuple((str(d["path"]), _inside(folder, str(d["path"]))) for d in scale["datasets"])
    whole = _factors(scale, len(axes)) or [1.0] * len(axes)
    levels = []
    for dataset, (name, place) in zip(scale["datasets"], siblings, strict=True):
        own = _factors(dataset, len(axes))
        levels.append(Level(place, name, axes, _voxel(axes, units, own, whole), meaning, version, siblings))
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
