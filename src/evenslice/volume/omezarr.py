"""Writing OME-Zarr 0.5 images and labels (https://ngff.openmicroscopy.org/0.5)."""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from evenslice.volume.array import Volume, VoxelSize
from evenslice.volume.pyramid import build_pyramid
from evenslice.volume.writing import store_written_beside

__all__ = ["CHUNK", "build_pyramid", "create_image", "create_labels", "write_image"]

CHUNK = (16, 256, 256)
STRIP_BYTES = 256 * 2**20
_KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def create_image(
    group: Path,
    shape: Sequence[int],
    dtype: str,
    axes: str,
    voxel_nm: VoxelSize | None,
    name: str,
    channels: Sequence[str] = (),
    attributes: dict[str, Any] | None = None,
    chunks: Sequence[int] | None = None,
    compressors: Any = None,
) -> Any:
    """Create an OME-Zarr image of one resolution, and return its array to be filled.

    Parameters
    ----------
    group
        Folder of the image; made if need be.
    shape, dtype
        Of the array.
    axes
        One letter an axis, of ``tczyx`` in this order.
    voxel_nm
        (z, y, x) in nm, written as the scale with the unit; None writes a scale of 1 without unit.
    name
        Of the image.
    channels
        Labels of the channels, shown by viewers.
    attributes
        More to note in the group, under ``evenslice``; ``meaning`` is read again by ``open_volume``.
    chunks
        Sizes of a chunk, one an axis; None: one plane (the last two axes).
    compressors
        What zarr takes; None: ``default_compressor``.

    Returns
    -------
    zarr.Array
        Zero where nothing is written.
    """
    from yaozarrs import v05

    image = _image(axes, voxel_nm, name)
    if channels:
        window = {"start": 0.0, "end": 1.0, "min": 0.0, "max": 1.0}
        image["omero"] = {
            "channels": [{"label": c, "color": "FFFFFF", "active": True, "window": window} for c in channels]
        }
    v05.Image.model_validate(image)
    planes = (1,) * (len(shape) - 2) + tuple(shape[-2:])
    return _create(group, image, attributes, shape, dtype, axes, chunks or planes, compressors)


def create_labels(
    image_group: Path,
    shape: Sequence[int],
    dtype: str,
    voxel_nm: VoxelSize | None,
    chunks: Sequence[int] = CHUNK,
    name: str = "segmentation",
    attributes: dict[str, Any] | None = None,
    compressors: Any = None,
) -> Any:
    """Create the labels ``labels/NAME`` (z, y, x) inside an image, and return their array to be filled.

    Parameters
    ----------
    image_group
        Folder of the image they belong to.
    shape, dtype
        Of the labels; whole numbers.
    voxel_nm, chunks, compressors
        As of an image.
    name
        Of these labels; other labels of the image stay.
    attributes
        More to note in the group, under ``evenslice``, beside the meaning.

    Returns
    -------
    zarr.Array
        Zero where nothing is written.
    """
    import zarr
    from yaozarrs import v05

    image = _image("zyx", voxel_nm, name) | {"image-label": {"source": {"image": "../../"}}}
    v05.LabelImage.model_validate(image)
    folder = image_group / "labels"
    group = zarr.open_group(str(folder), mode="a", zarr_format=3)
    known: Any = group.attrs.get("ome", {})
    group.attrs["ome"] = {"version": "0.5", "labels": sorted({*known.get("labels", ()), name})}
    noted = {"meaning": "labels"} | (attributes or {})
    return _create(folder / name, image, noted, shape, dtype, "zyx", chunks, compressors)


def default_compressor(dtype: Any) -> Any:
    """Return the compressor of what we write: Blosc, LZ4 for real numbers and Zstandard at level 1 for whole ones.

    Probabilities in float32 hardly shrink whatever the effort, so speed decides; labels shrink twice as much with Zstandard.
    """
    from zarr.codecs import BloscCodec

    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return BloscCodec(typesize=dtype.itemsize, cname="lz4", clevel=5, shuffle="shuffle")
    return BloscCodec(typesize=dtype.itemsize, cname="zstd", clevel=1, shuffle="shuffle")


def write_image(path: Path, volume: Volume, dtype: np.dtype[Any]) -> None:
    """Write a volume as a store with its pyramid; it appears under its name only when it is complete."""
    with store_written_beside(path, force=True) as part:
        noted = {"meaning": volume.meaning}
        array = create_image(
            part, volume.shape, dtype.name, "zyx", volume.voxel_nm, path.stem, attributes=noted, chunks=CHUNK
        )
        deep, high, _ = CHUNK
        depth, height, width = volume.shape
        rows = max(1, STRIP_BYTES // (deep * high * width * dtype.itemsize)) * high
        for z, y in product(range(0, depth, deep), range(0, height, rows)):
            box = slice(z, min(z + deep, depth)), slice(y, min(y + rows, height)), slice(0, width)
            array[box] = volume.read(box).astype(dtype, copy=False)
        build_pyramid(part, labels=volume.meaning == "labels")


def _image(axes: str, voxel_nm: VoxelSize | None, name: str) -> dict[str, Any]:
    """Describe an image of one resolution, as OME-Zarr does."""
    size = dict(zip("zyx", voxel_nm or (1.0, 1.0, 1.0), strict=True))
    unit = None if voxel_nm is None else "nanometer"
    kinds = [{"name": a, "type": _KINDS[a]} | ({"unit": unit} if unit and a in size else {}) for a in axes]
    scale = [{"type": "scale", "scale": [float(size.get(axis, 1.0)) for axis in axes]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    return {"version": "0.5", "multiscales": [{"name": name, "axes": kinds, "datasets": datasets}]}


def _create(
    group: Path,
    image: dict[str, Any],
    attributes: dict[str, Any] | None,
    shape: Sequence[int],
    dtype: str,
    axes: str,
    chunks: Sequence[int],
    compressors: Any,
) -> Any:
    import zarr

    made = zarr.open_group(str(group), mode="a", zarr_format=3)
    made.attrs.update({"ome": json.loads(json.dumps(image))} | ({"evenslice": attributes} if attributes else {}))
    return made.create_array(
        "0",
        shape=tuple(shape),
        dtype=dtype,
        chunks=tuple(min(chunk, max(1, size)) for chunk, size in zip(chunks, shape, strict=True)),
        compressors=default_compressor(dtype) if compressors is None else compressors,
        dimension_names=list(axes),
    )
