"""Writing OME-Zarr 0.5 images (https://ngff.openmicroscopy.org/0.5)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evenslice.volume.array import VoxelSize

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
) -> Any:
    """Create an OME-Zarr image of one resolution, and return its array to be filled.

    Parameters
    ----------
    group
        Folder of the image; made if need be.
    shape, dtype
        Of the array. It is stored in chunks of one plane (the last two axes).
    axes
        One letter an axis, of ``tczyx`` in this order.
    voxel_nm
        (z, y, x) in nm, written as the scale with the unit; None writes a scale of 1 without unit.
    name
        Of the image.
    channels
        Labels of the channels, shown by viewers.
    attributes
        More to note in the group, under ``evenslice``.

    Returns
    -------
    zarr.Array
        Zero where nothing is written.
    """
    import zarr
    from yaozarrs import v05

    size = dict(zip("zyx", voxel_nm or (1.0, 1.0, 1.0), strict=True))
    unit = None if voxel_nm is None else "nanometer"
    kinds = [{"name": a, "type": _KINDS[a]} | ({"unit": unit} if unit and a in size else {}) for a in axes]
    scale = [{"type": "scale", "scale": [float(size.get(axis, 1.0)) for axis in axes]}]
    image: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": kinds, "datasets": [{"path": "0", "coordinateTransformations": scale}]}],
    }
    if channels:
        window = {"start": 0.0, "end": 1.0, "min": 0.0, "max": 1.0}
        image["omero"] = {
            "channels": [{"label": c, "color": "FFFFFF", "active": True, "window": window} for c in channels]
        }
    v05.Image.model_validate(image)
    made = zarr.open_group(str(group), mode="a", zarr_format=3)
    made.attrs.update({"ome": json.loads(json.dumps(image))} | ({"evenslice": attributes} if attributes else {}))
    chunks = (1,) * (len(shape) - 2) + tuple(shape[-2:])
    return made.create_array("0", shape=tuple(shape), dtype=dtype, chunks=chunks, dimension_names=list(axes))
