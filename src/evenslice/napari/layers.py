"""Volumes as layers and layers as volumes: what napari shows, and what the verbs read."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from evenslice.errors import BadInputError
from evenslice.options import JsonObject
from evenslice.volume.array import Volume, Voxels, VoxelSize, sizes

if TYPE_CHECKING:
    from napari.layers import Layer

LayerData = tuple[Any, JsonObject, str]
RESULT = "evenslice_result"
CONTRAST_SIDE = 1024  # pixels of the middle slice that contrast is chosen from


class LazyArray:
    """The voxels of a volume (z, y, x), read on demand by integers and slices as napari asks.

    Booleans are handed over as uint8.
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.shape = volume.shape
        self.ndim = 3
        self.dtype = np.dtype(np.uint8) if volume.dtype == np.bool_ else volume.dtype
        self.size = int(np.prod(self.shape))

    def __getitem__(self, key: Any) -> Voxels:
        """Read what integers and slices, with steps if need be, select."""
        parts = list(key) if isinstance(key, tuple) else [key]
        start = next((n for n, part in enumerate(parts) if part is Ellipsis), len(parts))
        missing = self.ndim - len(parts) + (start < len(parts))
        parts[start : start + 1] = [slice(None)] * missing
        chosen = [range(size)[part] for part, size in zip(parts, self.shape, strict=True)]
        spans = [range(one, one + 1) if isinstance(one, int) else one for one in chosen]
        z, y, x = (slice(min(span, default=0), max(span, default=-1) + 1) for span in spans)
        inner = tuple(0 if isinstance(one, int) else slice(None, None, one.step) for one in chosen)
        return self.volume.read((z, y, x))[inner].astype(self.dtype, copy=False)

    def __len__(self) -> int:
        """Return how many slices there are."""
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Voxels:
        """Read all of it."""
        return np.asarray(self[:], dtype)


def layer_of(volume: Volume, name: str, levels: Sequence[Volume] = ()) -> LayerData:
    """Return a volume (z, y, x) as napari takes a layer: data, attributes, kind.

    Its voxel size in nm becomes the scale, its origin the translation; ``levels`` are the same at
    smaller and smaller sizes.
    """
    data: Any = [LazyArray(level) for level in (volume, *levels)] if levels else LazyArray(volume)
    attributes: JsonObject = {"name": name, "multiscale": bool(levels)}
    attributes["axis_labels"] = ("z", "y", "x")
    if volume.voxel_nm is not None:
        attributes |= {"scale": volume.voxel_nm, "units": ("nm",) * 3}
    if any(volume.origin):
        sides = zip(volume.origin, volume.voxel_nm or (1.0, 1.0, 1.0), strict=True)
        attributes["translate"] = tuple(place * side for place, side in sides)
    if volume.meaning == "labels" and volume.dtype.kind in "bui":
        return data, attributes, "labels"
    return data, attributes | {"contrast_limits": contrast_of(volume), "rgb": False}, "image"


def contrast_of(volume: Volume) -> tuple[float, float]:
    """Return black and white: 99.8 % of the middle slice lie between; probabilities: 0 and 1."""
    if volume.meaning == "probabilities":
        return 0.0, 1.0 if volume.dtype.kind == "f" else 255.0
    z, y, x = (size // 2 for size in volume.shape)
    half = CONTRAST_SIDE // 2
    rows, columns = (slice(max(0, middle - half), middle + half) for middle in (y, x))
    values = volume.read((slice(z, z + 1), rows, columns)).astype(np.float64)
    values = values[np.isfinite(values)]
    low, high = map(float, np.percentile(values, (0.1, 99.9))) if values.size else (0.0, 1.0)
    return low, high if high > low else low + 1.0


def volume_of_layer(layer: "Layer | None") -> Volume:
    """Return the volume that a layer shows, at full size and still lazy.

    Raises
    ------
    BadInputError
        If there is no layer, or it is not a greyscale volume (z, y, x).
    """
    if layer is None:
        raise BadInputError("there is no image layer, expected a greyscale volume; open one")
    name = f"the layer {layer.name!r}"
    if getattr(layer, "rgb", False):
        raise BadInputError(
            f"{name} is in colour, expected greyscale; convert it, or split its channels"
        )
    data = _full_size(layer)
    shape = tuple(getattr(data, "shape", ()))
    if len(shape) != 3:
        raise BadInputError(
            f"{name} has the shape {sizes(shape)}, expected a volume with axes z, y, x; choose "
            "another"
        )
    voxel = voxel_of(layer)
    if isinstance(data, LazyArray):
        return replace(data.volume, voxel_nm=voxel or data.volume.voxel_nm)
    sides, place = np.asarray(layer.scale[-3:]), np.asarray(layer.translate[-3:])
    z, y, x = map(float, place / sides)
    return Volume(data, voxel, name, origin=(z, y, x))


def file_of(layer: "Layer") -> str | None:
    """Return the path behind a layer that evenslice opened; None for any other layer."""
    data = _full_size(layer)
    source = data.volume.source if isinstance(data, LazyArray) else "array"
    return None if source == "array" else source


def _full_size(layer: "Layer") -> Any:
    return layer.data[0] if getattr(layer, "multiscale", False) else layer.data


def voxel_of(layer: "Layer") -> VoxelSize | None:
    """Return the voxel size (z, y, x) in nm of a layer, None if its units are no lengths."""
    units = getattr(layer, "units", None)
    if units is None or len(units) != 3:
        return None
    try:
        z, y, x = (
            abs(float((1 * unit).to("nm").magnitude)) * abs(float(side))
            for unit, side in zip(units, layer.scale, strict=True)
        )
    except Exception:  # pint raises types of its own for what is no length, such as pixels
        return None
    return z, y, x


def placed_like(layer: "Layer", origin: Sequence[float] = (0, 0, 0)) -> JsonObject:
    """Return attributes that place another layer with its first voxel on the voxel ``origin``."""
    start = np.asarray(layer.data_to_world((0,) * len(origin)))
    moved = np.asarray(layer.data_to_world(origin)) - start
    outer = np.asarray(layer.affine.linear_matrix)
    names = ("rotate", "shear", "affine", "units", "axis_labels")
    return {
        "scale": tuple(layer.scale),
        "translate": tuple(np.asarray(layer.translate) + np.linalg.solve(outer, moved)),
        **{name: getattr(layer, name) for name in names},
    }


def is_result(layer: "Layer") -> bool:
    """Whether a layer is something that evenslice made of another one."""
    return bool(layer.metadata.get(RESULT))
