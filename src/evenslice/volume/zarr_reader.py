"""Zarr v2 and v3 arrays, and OME-Zarr 0.4 and 0.5 images with their sizes and units."""

import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import ValidationError
from yaozarrs import v04, v05

from evenslice.errors import BadInputError, one_line
from evenslice.options import JsonObject
from evenslice.volume.array import (
    MEANINGS,
    ORIGIN,
    UNITLESS,
    Place,
    Volume,
    VoxelSize,
    first_line,
    sizes,
)
from evenslice.volume.attributes import (
    agreed_axes,
    kept_axes,
    named_axes,
    stated_origin,
    stated_size,
    warn_of_scaling,
)
from evenslice.volume.cache import ChunkedPixels, box_reader
from evenslice.volume.voxel_size import checked, nm_of

Attributes = JsonObject
MOST_NAMED = 8
MOST_COUNTED = 2**20
METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")


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
    origin
        Place (z, y, x) of its first voxel, in voxels.
    sides
        Its scale (z, y, x) as it is stated, whatever the unit.
    """

    path: Path
    name: str
    axes: tuple[str, ...]
    voxel_nm: VoxelSize | None
    origin: Place
    sides: Place


def is_node(folder: Path) -> bool:
    """Whether a folder is an array or a group of a Zarr store."""
    return any((folder / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))


def in_store(path: Path) -> bool:
    """Whether a path is, or would be, inside a Zarr store."""
    return any(is_node(folder) for folder in (path, *path.parents))


def is_array(folder: Path) -> bool:
    """Whether a folder is a Zarr array."""
    return (folder / ".zarray").is_file() or _json(folder / "zarr.json").get("node_type") == "array"


def attributes_of(folder: Path) -> Attributes:
    """Return the attributes of an array or group; empty where there are none."""
    return _json(folder / "zarr.json").get("attributes") or _json(folder / ".zattrs")


def _json(file: Path) -> Attributes:
    try:
        found = json.loads(file.read_bytes()) if file.is_file() else {}
    except ValueError as error:
        raise BadInputError(
            f"{file} is not JSON ({error}), expected Zarr metadata; copy or download the store "
            "again"
        ) from error
    return found if isinstance(found, dict) else {}


def image_of(folder: Path) -> v04.Image | v05.Image | None:
    """Return the OME-Zarr metadata of a group, None if it is no image.

    Raises
    ------
    BadInputError
        If they are not as OME-Zarr 0.4 or 0.5 asks.
    """
    attributes = attributes_of(folder)
    ome = attributes.get("ome", attributes)
    if not isinstance(ome, dict) or "multiscales" not in ome:
        return None
    form: type[v04.Image | v05.Image] = v05.Image if "ome" in attributes else v04.Image
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of units that the specification does not name
            return form.model_validate(ome)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadInputError(
            f"{folder} has broken OME-Zarr metadata ({place}: {one_line(first['msg'])}), "
            "expected version 0.4 or 0.5; correct it, or choose one of its arrays by its path"
        ) from error


def levels_of(folder: Path) -> list[Level]:
    """Return the levels of the multiscale images of a group; empty if it is no image."""
    image = image_of(folder)
    levels = []
    for multiscale in () if image is None else image.multiscales:
        axes = tuple(axis.name.lower() for axis in multiscale.axes)
        units = [nm_of(getattr(axis, "unit", None)) for axis in multiscale.axes]
        scale, shift = _changes(multiscale.coordinateTransformations, len(axes))
        for dataset in multiscale.datasets:
            own, place = _changes(dataset.coordinateTransformations, len(axes))
            sides = dict(zip(axes, own * scale, strict=True))
            places = dict(zip(axes, place * scale + shift, strict=True))
            nm = dict(zip(axes, own * scale * units, strict=True))
            voxel = checked(nm.get(axis, 0) for axis in "zyx")
            stated = checked(sides.get(axis, 0) for axis in "zyx")
            origin = ORIGIN
            if stated is not None:
                z, y, x = (float(places[axis] / sides[axis]) for axis in "zyx")
                origin = z, y, x
            where = folder / dataset.path
            levels.append(Level(where, dataset.path, axes, voxel, origin, stated or UNITLESS))
    return levels


def _changes(found: Sequence[Any] | None, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the scale and the translation that are stated, along each axis."""
    scale, shift = np.ones(count), np.zeros(count)
    for change in found or ():
        if change.type == "scale":
            scale = np.asarray(change.scale, np.float64)
        elif change.type == "translation":
            shift = np.asarray(change.translation, np.float64)
    return scale, shift


def _level_of(array: Path) -> tuple[Level | None, Path]:
    """Return the level that an array is, and its image; None if it belongs to no readable one."""
    for folder in islice(array.parents, 3):
        try:
            levels = levels_of(folder)
        except BadInputError:  # an array asked for by its path needs no image
            return None, array
        for level in levels:
            if os.path.normpath(level.path) == os.path.normpath(array):
                return level, folder
    return None, array


def _arrays_below(folder: Path) -> Iterator[Path]:
    """Yield the arrays and images in a group at any depth; levels of an image are not listed."""
    for inner in sorted(f for f in folder.iterdir() if f.is_dir() and not f.is_symlink()):
        if is_array(inner) or image_of(inner) is not None:
            yield inner
        else:
            yield from _arrays_below(inner)


def _listed(folder: Path) -> str:
    """Name what a store or group holds, for a message."""
    levels = levels_of(folder)
    inside = [f for f in _arrays_below(folder) if f not in [level.path for level in levels]]
    names = [level.name for level in levels] + [str(f.relative_to(folder)) for f in inside]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return (", ".join(names[:MOST_NAMED]) or "nothing") + more


def open_zarr(path: Path) -> Volume:
    """Open a Zarr array, or level 0 of an OME-Zarr image, lazily as a volume (z, y, x).

    Parameters
    ----------
    path
        An array, an image, one of its levels, or a group that holds exactly one of these.

    Raises
    ------
    BadInputError
        If there is nothing at this path of the store, more than one array, or no volume of one
        channel and time.
    """
    if not path.exists():
        store = next(parent for parent in path.parents if is_node(parent))
        raise BadInputError(
            f"{path} does not exist, expected an array or group of the store {store}; choose one "
            f"of: {_listed(store)}"
        )
    if is_array(path):
        level, group = _level_of(path)
        return _open_array(path, level, group, path)
    image, levels = image_of(path), levels_of(path)
    if image is not None and len(image.multiscales) > 1:
        raise BadInputError(
            f"{path} holds {len(image.multiscales)} images, expected exactly one volume; choose "
            f"one of: {_listed(path)}"
        )
    if levels:
        return _open_array(levels[0].path, levels[0], path, path)
    below = list(_arrays_below(path))
    if not below:
        raise BadInputError(
            f"{path} holds no array, expected a Zarr array or OME-Zarr image; check the path"
        )
    if len(below) > 1:
        raise BadInputError(
            f"{path} holds {len(below)} arrays, expected exactly one volume; choose one of: "
            f"{_listed(path)}"
        )
    return open_zarr(below[0])


def _open_array(folder: Path, level: Level | None, group: Path, source: Path) -> Volume:
    """Open an array; ``group`` is its image, or itself where it belongs to none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of types outside the specification, as float16
            array = zarr.open_array(str(folder), mode="r")
    except Exception as error:  # zarr raises types of its own
        raise BadInputError(
            f"{folder} cannot be read as a Zarr array ({first_line(error)}), expected whole "
            "metadata and known codecs; copy or export it again"
        ) from error
    _check_chunk_names(array, folder)
    attributes = dict(array.attrs)
    kept = kept_axes(_names(array, level, folder), array.shape, folder)
    warn_of_scaling(attributes, folder)
    chunk = tuple(array.chunks[axis] for axis in kept)
    pixels = ChunkedPixels(
        tuple(array.shape[axis] for axis in kept),
        np.dtype(array.dtype),
        (chunk[0], chunk[1], chunk[2]),
        box_reader(array, kept, folder),
    )
    voxel = level.voxel_nm if level else stated_size(attributes, kept, folder)
    origin, sides = stated_origin(attributes, kept, voxel), UNITLESS
    if level:
        origin, sides = level.origin, level.sides
    facts = _facts(array, level, group)
    return Volume(pixels, voxel, str(source), _meaning(group), facts, origin, sides)


def _described(group: Path) -> Attributes:
    """Return what OME-Zarr says of a group: version 0.5 under ``ome``, older ones beside others."""
    attributes = attributes_of(group)
    found = attributes.get("ome", attributes)
    return found if isinstance(found, dict) else {}


def _meaning(group: Path) -> str:
    listed = _described(group.parent).get("labels")
    if "image-label" in _described(group) or (isinstance(listed, list) and group.name in listed):
        return "labels"
    attributes = attributes_of(group)
    meaning = attributes.get("evenslice", {}).get("meaning")
    return meaning if meaning in MEANINGS else "intensity"


def _check_chunk_names(array: Any, folder: Path) -> None:
    """Raise if files lie there but no chunk under its stated name: all would be the fill value.

    A store in which no chunk at all was written is legal.
    """
    key = str(array.metadata.encode_chunk_key((0,) * max(1, array.ndim)))
    first, nested = key.split("/", maxsplit=1)[0], "/" in key
    pattern = re.compile(re.sub(r"\d+", r"\\d+", re.escape(first)))
    other = ""
    with os.scandir(folder) as entries:
        for entry in entries:
            if pattern.fullmatch(entry.name) and entry.is_dir() == nested:
                return
            if entry.name not in METADATA and not entry.name.startswith("."):
                other = entry.name
    if other:
        raise BadInputError(
            f"{folder} holds {other} but no chunk under a name such as {key}, expected chunks as "
            "its metadata name them; correct the separator of its chunks (dimension_separator, "
            "chunk_key_encoding), or copy it again"
        )


def chunks_there(path: Path) -> str | None:
    """Say how many chunks of an array, or of level 0, were written; None if all were.

    Arrays of more than a million chunks are not counted.
    """
    levels = [] if is_array(path) else levels_of(path)
    folder = path if is_array(path) else levels[0].path if levels else next(_arrays_below(path))
    array: Any = zarr.open_array(str(folder), mode="r")
    if array.nchunks > MOST_COUNTED or array.nchunks_initialized >= array.nchunks:
        return None
    return (
        f"{array.nchunks_initialized} of {array.nchunks} chunks are there, all else is the fill "
        f"value {array.fill_value}"
    )


def _names(array: Any, level: Level | None, folder: Path) -> tuple[str, ...] | None:
    """Return the names of the axes; those of an image that cannot be read count as well."""
    around = None if level else _described(folder.parent).get("multiscales")
    first = around[0] if isinstance(around, list) and around else None
    axes = first.get("axes") if isinstance(first, dict) else None
    named = [axis.get("name", "") if isinstance(axis, dict) else str(axis) for axis in axes or ()]
    dimensions = getattr(array.metadata, "dimension_names", None)
    stated = {
        "OME-Zarr metadata": level.axes if level else named or None,
        "dimension_names": dimensions and [str(name or "") for name in dimensions],
        **named_axes(dict(array.attrs)),
    }
    return agreed_axes(stated, array.shape, folder)


def _facts(array: Any, level: Level | None, group: Path) -> dict[str, str]:
    """Say in words what was understood of an array."""
    shards = f" in shards of {sizes(array.shards)}" if array.shards else ""
    facts = {
        "format": f"Zarr v{array.metadata.zarr_format}",
        "dataset": group.name,
        "chunks": sizes(array.chunks) + shards,
        "compression": ", ".join(map(_codec_name, array.compressors)) or "none",
    }
    if level:
        facts["format"] = f"OME-Zarr {'0.5' if 'ome' in attributes_of(group) else '0.4'}"
        facts["dataset"] = level.name
        facts["levels"] = "; ".join(f"{n.name}: {_shape(n.path)}" for n in levels_of(group))
    return facts


def _codec_name(codec: Any) -> str:
    name = type(codec).__name__.removesuffix("Codec").lower()
    inner = getattr(codec, "cname", None)
    return f"{name} {getattr(inner, 'value', inner)}" if inner else name


def _shape(folder: Path) -> str:
    try:
        return sizes(zarr.open_array(str(folder), mode="r").shape)
    except Exception:  # a level that is not there is no reason not to read another
        return "missing"
