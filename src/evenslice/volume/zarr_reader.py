"""Zarr v2 and v3 arrays, and OME-Zarr 0.4 and 0.5 images with their sizes and units."""

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from yaozarrs import v04, v05

from evenslice.errors import BadInputError, one_line
from evenslice.options import JsonObject
from evenslice.volume.address import Folder, TensorPixels, open_tensor, read_file, reason
from evenslice.volume.array import MEANINGS, ORIGIN, UNITLESS, Place, Volume, VoxelSize, sizes
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
MOST_PARENTS = 6  # of a folder on a server that are looked at
ORDERING = ("bytes", "transpose", "crc32c")
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

    path: Folder
    name: str
    axes: tuple[str, ...]
    voxel_nm: VoxelSize | None
    origin: Place
    sides: Place


def store_of(path: Folder) -> str | None:
    """Return the kind of store that a path is, or would be, inside: zarr, n5 or precomputed."""
    parents = path.parents if isinstance(path, Path) else path.parents[:MOST_PARENTS]
    for folder in (path, *parents):
        if is_node(folder):
            return "zarr"
        if read_file(folder, "attributes.json") is not None:
            return "n5"
        if b'"scales"' in (read_file(folder, "info") or b""):
            return "precomputed"
    return None


def is_node(folder: Folder) -> bool:
    """Whether a folder is an array or a group of a Zarr store."""
    return any(read_file(folder, name) is not None for name in METADATA[:4])


def in_store(path: Folder) -> bool:
    """Whether a path is, or would be, inside a store of chunks."""
    return store_of(path) is not None


def is_array(folder: Folder) -> bool:
    """Whether a folder is a Zarr array."""
    return bool(_metadata(folder))


def _metadata(folder: Folder) -> JsonObject:
    """Return the metadata of an array, of version 3 or 2; empty for anything else."""
    found = json_of(folder, "zarr.json")
    return found if found.get("node_type") == "array" else json_of(folder, ".zarray")


def attributes_of(folder: Folder) -> Attributes:
    """Return the attributes of an array or group; empty where there are none."""
    return json_of(folder, "zarr.json").get("attributes") or json_of(folder, ".zattrs")


def json_of(folder: Folder, name: str) -> JsonObject:
    """Return the table in a JSON file of a folder; empty if it is not there, or holds no table."""
    try:
        found = json.loads(read_file(folder, name) or b"{}")
    except ValueError as error:
        raise BadInputError(
            f"{folder / name} is not JSON ({error}), expected metadata of a store; copy or "
            "download it again"
        ) from error
    return found if isinstance(found, dict) else {}


def image_of(folder: Folder) -> v04.Image | v05.Image | None:
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


def levels_of(folder: Folder) -> list[Level]:
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


def _level_of(array: Folder) -> tuple[Level | None, Folder]:
    """Return the level that an array is, and its image; None if it belongs to no readable one."""
    for folder in list[Folder](array.parents)[:3]:
        try:
            levels = levels_of(folder)
        except BadInputError:  # an array asked for by its path needs no image
            return None, array
        for level in levels:
            if os.path.normpath(str(level.path)) == os.path.normpath(str(array)):
                return level, folder
    return None, array


def volumes_below(folder: Folder, is_volume: Callable[[Folder], bool]) -> Iterator[Path]:
    """Yield the volumes in a group at any depth; levels of an image are not listed.

    Servers are not asked for what they hold.
    """
    inside = sorted(folder.iterdir()) if isinstance(folder, Path) and folder.is_dir() else []
    for inner in inside:
        if inner.is_dir() and not inner.is_symlink():
            if is_volume(inner):
                yield inner
            else:
                yield from volumes_below(inner, is_volume)


def only_below(folder: Folder, is_volume: Callable[[Folder], bool]) -> Path:
    """Return the one volume in a group; else raise ``BadInputError``."""
    below = list(volumes_below(folder, is_volume))
    if len(below) != 1:
        found = f"{len(below)} arrays" if below else "no array"
        listed = listed_names(folder, is_volume) if below else "its arrays, by path"
        raise BadInputError(
            f"{folder} holds {found}, expected exactly one volume; choose one of: {listed}"
        )
    return below[0]


def listed_names(
    folder: Folder, is_volume: Callable[[Folder], bool], levels: Sequence[str] = ()
) -> str:
    """Name what a store or group holds, for a message."""
    inside = [str(f.relative_to(str(folder))) for f in volumes_below(folder, is_volume)]
    names = [*levels, *(name for name in inside if name not in levels)]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return (", ".join(names[:MOST_NAMED]) or "nothing") + more


def _is_volume(folder: Folder) -> bool:
    return is_array(folder) or image_of(folder) is not None


def open_zarr(path: Folder) -> Volume:
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
    if not (path.exists() if isinstance(path, Path) else is_node(path)):
        store = next((parent for parent in path.parents if is_node(parent)), path)
        listed = listed_names(store, _is_volume, [level.name for level in levels_of(store)])
        raise BadInputError(
            f"{path} does not exist, expected an array or group of the store {store}; choose one "
            f"of: {listed}"
        )
    if is_array(path):
        level, group = _level_of(path)
        return _open_array(path, level, group, path)
    image, levels = image_of(path), levels_of(path)
    if image is not None and len(image.multiscales) > 1:
        raise BadInputError(
            f"{path} holds {len(image.multiscales)} images, expected exactly one volume; choose "
            f"one of: {listed_names(path, _is_volume, [level.name for level in levels])}"
        )
    if levels:
        return _open_array(levels[0].path, levels[0], path, path)
    return open_zarr(only_below(path, _is_volume))


def _open_array(folder: Folder, level: Level | None, group: Folder, source: Folder) -> Volume:
    """Open an array; ``group`` is its image, or itself where it belongs to none."""
    metadata = _metadata(folder)
    version = metadata.get("zarr_format")
    try:
        array = open_tensor(folder, "zarr" if version == 2 else "zarr3")
    except Exception as error:  # tensorstore and zarr raise types of their own
        array = _open_with_zarr(folder, error)
    if isinstance(folder, Path):
        _check_chunk_names(metadata, folder)
    attributes, shape = attributes_of(folder), tuple(array.shape)
    kept = kept_axes(_names(metadata, level, folder), shape, folder)
    warn_of_scaling(attributes, folder)
    if isinstance(array.dtype, np.dtype):
        chunk = tuple(array.chunks[axis] for axis in kept)
        pixels: Any = ChunkedPixels(
            tuple(shape[axis] for axis in kept),
            array.dtype,
            (chunk[0], chunk[1], chunk[2]),
            box_reader(array, kept, folder),
        )
    else:
        pixels = TensorPixels(array, kept, folder)
    voxel = level.voxel_nm if level else stated_size(attributes, kept, folder)
    origin, sides = stated_origin(attributes, kept, voxel), UNITLESS
    if level:
        origin, sides = level.origin, level.sides
    facts = _facts(metadata, level, group)
    return Volume(pixels, voxel, str(source), _meaning(group), facts, origin, sides)


def _open_with_zarr(folder: Folder, error: Exception) -> Any:
    """Open an array of a disk that tensorstore does not decode: filters, rare compressions."""
    if isinstance(folder, Path):
        import zarr

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of types outside the specification
                return zarr.open_array(str(folder), mode="r")
        except Exception as second:  # zarr raises types of its own
            error = second
    raise BadInputError(
        f"{folder} cannot be read as a Zarr array ({reason(error)}), expected whole metadata and "
        "known codecs; copy or export it again"
    ) from error


def _described(group: Folder) -> Attributes:
    """Return what OME-Zarr says of a group: version 0.5 under ``ome``, older ones beside others."""
    attributes = attributes_of(group)
    found = attributes.get("ome", attributes)
    return found if isinstance(found, dict) else {}


def _meaning(group: Folder) -> str:
    listed = _described(group.parent).get("labels")
    if "image-label" in _described(group) or (isinstance(listed, list) and group.name in listed):
        return "labels"
    attributes = attributes_of(group)
    meaning = attributes.get("evenslice", {}).get("meaning")
    return meaning if meaning in MEANINGS else "intensity"


def _check_chunk_names(metadata: JsonObject, folder: Path) -> None:
    """Raise if files lie there but no chunk under its stated name: all would be the fill value.

    A store in which no chunk at all was written is legal.
    """
    naming = metadata.get("chunk_key_encoding", {"name": "v2"})
    old = naming["name"] == "v2"
    stated = metadata.get("dimension_separator") or "."
    between = naming.get("configuration", {}).get("separator", stated if old else "/")
    key = between.join([*([] if old else ["c"]), *"0" * max(1, len(metadata["shape"]))])
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


def chunks_there(path: Folder) -> str | None:
    """Say how many chunks of an array, or of level 0, were written; None if all were.

    Arrays of more than a million chunks are not counted.
    """
    import zarr

    levels = [] if is_array(path) else levels_of(path)
    folder = path if is_array(path) or not levels else levels[0].path
    folder = folder if is_array(folder) else next(volumes_below(path, is_array))
    array: Any = zarr.open_array(str(folder), mode="r")
    if array.nchunks > MOST_COUNTED or array.nchunks_initialized >= array.nchunks:
        return None
    return (
        f"{array.nchunks_initialized} of {array.nchunks} chunks are there, all else is the fill "
        f"value {array.fill_value}"
    )


def _names(metadata: JsonObject, level: Level | None, folder: Folder) -> tuple[str, ...] | None:
    """Return the names of the axes; those of an image that cannot be read count as well."""
    around = None if level else _described(folder.parent).get("multiscales")
    first = around[0] if isinstance(around, list) and around else None
    axes = first.get("axes") if isinstance(first, dict) else None
    named = [axis.get("name", "") if isinstance(axis, dict) else str(axis) for axis in axes or ()]
    dimensions = metadata.get("dimension_names")
    stated = {
        "OME-Zarr metadata": level.axes if level else named or None,
        "dimension_names": dimensions and [str(name or "") for name in dimensions],
        **named_axes(attributes_of(folder)),
    }
    return agreed_axes(stated, metadata["shape"], folder)


def _facts(metadata: JsonObject, level: Level | None, group: Folder) -> dict[str, str]:
    """Say in words what was understood of an array."""
    codecs = metadata.get("codecs", [metadata.get("compressor") or {}])
    chunk = metadata.get("chunks") or metadata["chunk_grid"]["configuration"]["chunk_shape"]
    inner = [c["configuration"] for c in codecs if c.get("name") == "sharding_indexed"]
    chunks = f"{sizes(inner[0]['chunk_shape'])} in shards of {sizes(chunk)}" if inner else ""
    named = map(_codec_name, inner[0]["codecs"] if inner else codecs)
    facts = {
        "format": f"Zarr v{metadata['zarr_format']}",
        "dataset": group.name,
        "chunks": chunks or sizes(chunk),
        "compression": ", ".join(filter(None, named)) or "none",
    }
    if level:
        facts["format"] = f"OME-Zarr {'0.5' if 'ome' in attributes_of(group) else '0.4'}"
        facts["dataset"] = level.name
        facts["levels"] = "; ".join(
            f"{n.name}: {sizes(_metadata(n.path).get('shape', ())) or 'missing'}"
            for n in levels_of(group)
        )
    return facts


def _codec_name(codec: JsonObject) -> str:
    """Return the name of a compression; empty for other codecs."""
    name = str(codec.get("name", codec.get("id", "")))
    inner = codec.get("cname", codec.get("configuration", {}).get("cname"))
    return "" if name in ORDERING else f"{name} {inner}" if inner else name
