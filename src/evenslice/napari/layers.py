"""Volumes as layers and layers as volumes: what napari shows, and what the verbs read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume, sizes

LayerData = tuple[Any, dict[str, Any], str]
RESULT = "evenslice_result"
LOOKED_AT = 1024


class LazyArray:
    """The voxels of a volume (z, y, x) as napari asks for them: whole numbers and slices, read when asked for.

    Parameters
    ----------
    volume
        What is read. Booleans are handed over as uint8.
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.shape = volume.shape
        self.ndim = 3
        self.dtype = np.dtype(np.uint8) if volume.dtype == np.bool_ else volume.dtype
        self.size = int(np.prod(self.shape))

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read what a key of whole numbers and slices, with steps if need be, names."""
        parts = list(key) if isinstance(key, tuple) else [key]
        at = next((n for n, part in enumerate(parts) if part is Ellipsis), len(parts))
        parts[at : at + 1] = [slice(None)] * (self.ndim - len(parts) + (at < len(parts)))
        chosen = [range(size)[part] for part, size in zip(parts, self.shape, strict=True)]
        spans = [range(one, one + 1) if isinstance(one, int) else one for one in chosen]
        low = [min(span, default=0) for span in spans]
        high = [max(span, default=-1) + 1 for span in spans]
        z, y, x = (slice(a, b) for a, b in zip(low, high, strict=True))
        box = self.volume.read((z, y, x)).astype(self.dtype, copy=False)
        inner = tuple(
            one - a
            if isinstance(one, int)
            else [n - a for n in one]
            if one.step != 1
            else slice(None)
            for one, a in zip(chosen, low, strict=True)
        )
        for axis in reversed(
            range(self.ndim)
        ):  # one axis after the other: lists are outer, not paired
            box = box[(slice(None),) * axis + (inner[axis],)]
        return box

    def __len__(self) -> int:
        """Return how many slices there are."""
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all of it."""
        return np.asarray(self[:], dtype)


def layer_of(volume: Volume, name: str, levels: Sequence[Volume] = ()) -> LayerData:
    """Return a volume as napari takes a layer: data, facts, kind.

    Parameters
    ----------
    volume
        Axes (z, y, x); its voxel size in nm becomes the scale.
    name
        Of the layer.
    levels
        The same at smaller and smaller sizes, where there are such.
    """
    pyramid = [volume, *levels]
    data: Any = [LazyArray(level) for level in pyramid] if levels else LazyArray(volume)
    facts: dict[str, Any] = {
        "name": name,
        "multiscale": bool(levels),
        "axis_labels": ("z", "y", "x"),
    }
    if volume.voxel_nm is not None:
        facts |= {"scale": volume.voxel_nm, "units": ("nm",) * 3}
    if volume.meaning == "labels" and volume.dtype.kind in "bui":
        return data, facts, "labels"
    return data, facts | {"contrast_limits": contrast_of(volume), "rgb": False}, "image"


def contrast_of(volume: Volume) -> tuple[float, float]:
    """Choose what is black and white: nearly all values in the middle of the middle slice lie between; probabilities 0 and 1."""
    if volume.meaning == "probabilities":
        return 0.0, 1.0 if volume.dtype.kind == "f" else 255.0
    z, y, x = (size // 2 for size in volume.shape)
    half = LOOKED_AT // 2
    seen = volume.read(
        (slice(z, z + 1), slice(max(0, y - half), y + half), slice(max(0, x - half), x + half))
    )
    known = seen[np.isfinite(seen)] if seen.dtype.kind == "f" else seen.astype(np.float64)
    low, high = np.percentile(known, (0.1, 99.9)) if known.size else (0.0, 1.0)
    return float(low), float(high) if high > low else float(low) + 1.0


def volume_of_layer(layer: Any) -> Volume:
    """Return the volume that a layer shows, at full size and still lazy.

    Raises
    ------
    BadInputError
        If the layer is not a greyscale volume (z, y, x).
    """
    name = f"the layer {layer.name!r}"
    if getattr(layer, "rgb", False):
        raise BadInputError(
            f"{name} is in colour, expected greyscale; convert it, or split its channels"
        )
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    shape = tuple(getattr(data, "shape", ()))
    if len(shape) != 3:
        raise BadInputError(
            f"{name} has the shape {sizes(shape)}, expected a volume with axes z, y, x; choose another"
        )
    voxel = voxel_of(layer)
    if isinstance(data, LazyArray):
        volume = data.volume
        return Volume(
            volume.pixels, voxel or volume.voxel_nm, volume.source, volume.meaning, volume.facts
        )
    return Volume(data, voxel, name)


def file_of(layer: Any) -> str | None:
    """Return the path behind a layer that evenslice opened, as ``open_volume`` takes it; None for any other layer."""
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    return (
        data.volume.source
        if isinstance(data, LazyArray) and data.volume.source != "array"
        else None
    )


def voxel_of(layer: Any) -> tuple[float, float, float] | None:
    """Return the voxel size (z, y, x) in nm that a layer states: its scale, where its units are lengths."""
    units = getattr(layer, "units", None)
    if units is None or len(units) != 3:
        return None
    try:
        z, y, x = (
            abs(float((1 * unit).to("nm").magnitude)) * abs(float(s))
            for unit, s in zip(units, layer.scale, strict=True)
        )
    except Exception:  # pint raises types of its own for what is no length, such as pixels
        return None
    return z, y, x


def placed_like(layer: Any, origin: Sequence[float] = (0, 0, 0)) -> dict[str, Any]:
    """Return where a layer lies, as facts for another one whose first voxel lies on the voxel ``origin`` (z, y, x) of it."""
    moved = np.asarray(layer.data_to_world(origin)) - np.asarray(
        layer.data_to_world((0,) * len(origin))
    )
    outer = np.asarray(layer.affine.linear_matrix)
    return {
        "scale": tuple(layer.scale),
        "translate": tuple(np.asarray(layer.translate) + np.linalg.solve(outer, moved)),
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": layer.affine,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def is_result(layer: Any) -> bool:
    """Whether a layer is something that evenslice made of another one."""
    return bool(layer.metadata.get(RESULT))
