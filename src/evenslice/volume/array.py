"""Volumes: greyscale arrays (z, y, x) read lazily, whole, cropped, or along another axis."""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError

MEANINGS = ("intensity", "labels", "probabilities")
SLAB_BYTES = 64 * 2**20
ORDERS = {"z": (0, 1, 2), "y": (1, 0, 2), "x": (2, 1, 0), "all": (0, 1, 2)}
Roi = tuple[slice, slice, slice]
VoxelSize = tuple[float, float, float]
Place = tuple[float, float, float]
ORIGIN: Place = (0.0, 0.0, 0.0)
UNITLESS: Place = (1.0, 1.0, 1.0)
Voxels = NDArray[Any]  # of any whole or real numbers
T = TypeVar("T")


class Pixels(Protocol):
    """What a file reader hands over: shape, dtype, and numpy's basic slicing along z, y, x."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes along z, y, x."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one voxel."""

    def __getitem__(self, key: Any, /) -> Any:
        """Read part of it."""


@dataclass(frozen=True)
class Volume:
    """Greyscale volume, axes (z, y, x), read lazily.

    Attributes
    ----------
    pixels
        The voxels; a numpy array or a lazy reader.
    voxel_nm
        Voxel size (z, y, x) in nanometres, or None when unknown.
    source
        Where it came from, for messages.
    meaning
        ``"intensity"`` or ``"labels"``, or ``"probabilities"`` when a file of ours says that 255
        stands for 1.
    facts
        What the reader understood of the file, in words: ``format``, ``dataset``, ``levels``,
        ``chunks``, ``compression``.
    origin
        Place (z, y, x) of the first voxel, in voxels: where a part lies in the whole.
    sides
        Scale (z, y, x) that the file states without a unit; what is written keeps it.

    Raises
    ------
    BadInputError
        If the pixels are not a non-empty array of three axes of real numbers, or the voxel size is
        not above 0.
    """

    pixels: Pixels
    voxel_nm: tuple[float, float, float] | None = None
    source: str = "array"
    meaning: str = "intensity"
    facts: Mapping[str, str] = field(default_factory=dict, compare=False)
    origin: Place = ORIGIN
    sides: Place = UNITLESS

    def __post_init__(self) -> None:
        """Refuse what is not a greyscale volume."""
        shape = tuple(self.pixels.shape)
        if len(shape) != 3:
            what = "a 2-D image" if len(shape) == 2 else f"an array of {len(shape)} axes"
            raise BadInputError(
                f"{self.source} holds {what} of shape {shape}, expected a volume with axes z, y, "
                "x; stack the slices into one file or give the folder that holds them"
            )
        if 0 in shape:
            raise BadInputError(
                f"{self.source} is empty (shape {shape}), expected at least one voxel; check the "
                "file"
            )
        if np.dtype(self.pixels.dtype).kind not in "buif":
            raise BadInputError(
                f"{self.source} has voxels of type {self.pixels.dtype}, expected whole or real "
                "numbers; convert it to uint8"
            )
        if self.voxel_nm is not None and not (
            len(self.voxel_nm) == 3 and all(0 < side < math.inf for side in self.voxel_nm)
        ):
            raise BadInputError(
                f"{self.source} has the voxel size {self.voxel_nm}, expected three numbers of nm "
                "(z, y, x) above 0; correct it"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Sizes along z, y, x."""
        z, y, x = self.pixels.shape
        return int(z), int(y), int(x)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one voxel."""
        return np.dtype(self.pixels.dtype)

    def read(self, roi: Roi) -> Voxels:
        """Read a box as a numpy array (z, y, x) of the volume's own type."""
        return np.asarray(self.pixels[roi])

    def fetch_ahead(self, roi: Roi) -> None:
        """Begin to fetch a box that is read soon, where it lies on a server."""
        fetch = getattr(self.pixels, "fetch_ahead", None)
        if fetch is not None:
            fetch(roi)

    def slice_at(self, z: int) -> Voxels:
        """Read one whole slice (y, x)."""
        block = self.read((slice(z, z + 1), slice(None), slice(None)))
        return block.reshape(block.shape[1:])


def as_volume(source: "Volume | Voxels") -> Volume:
    """Take a volume as it is, or wrap a numpy array (z, y, x)."""
    return source if isinstance(source, Volume) else Volume(np.asarray(source))


def crop(volume: Volume, roi: Roi) -> Volume:
    """Return the box ``roi`` of a volume as a volume of its own, still lazy."""
    origin = shifted(volume.origin, spans(roi, volume.shape))
    return replace(volume, pixels=_Crop(volume.pixels, roi), origin=origin)


def shifted(origin: Place, box: Roi) -> Place:
    """Return the place of the first voxel of a box."""
    z, y, x = (place + part.start for place, part in zip(origin, box, strict=True))
    return z, y, x


def read_planes(
    plane: Callable[[int], Voxels], shape: tuple[int, ...], dtype: np.dtype[Any], key: Any
) -> Voxels:
    """Read a box of lazy slices, one after the other, never more than one whole slice at once."""
    z, y, x = spans(key, shape)
    box = np.empty(tuple(part.stop - part.start for part in (z, y, x)), dtype)
    for i, number in enumerate(range(z.start, z.stop)):
        box[i] = plane(number)[y, x]
    return box


def sizes(shape: Sequence[int]) -> str:
    """Write a shape as people do: 30 x 512 x 512."""
    return " x ".join(map(str, shape))


def first_line(error: object) -> str:
    """Return the first line of an error of a library, or its type where it says nothing."""
    if isinstance(error, KeyError):
        return f"{error.args[0]} is not there" if error.args else "KeyError"
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def spans(key: Any, shape: tuple[int, ...]) -> Roi:
    """Turn plain slices, some of them left out, into starts and stops inside a shape."""
    parts = (*(key if isinstance(key, tuple) else (key,)), slice(None), slice(None))[:3]
    found = []
    for part, size in zip(parts, shape, strict=True):
        low, high, step = part.indices(size)
        if step != 1:
            raise ValueError(f"a box of a volume is contiguous, a step of {step} was asked for")
        found.append(slice(low, max(low, high)))
    z, y, x = found
    return z, y, x


class _Crop:
    """A box inside lazy pixels."""

    def __init__(self, pixels: Pixels, roi: Roi) -> None:
        box = spans(roi, pixels.shape)
        self._pixels = pixels
        self._starts = tuple(span.start for span in box)
        self.shape = tuple(span.stop - span.start for span in box)
        self.dtype = np.dtype(pixels.dtype)

    def __getitem__(self, key: Any) -> Voxels:
        """Read with plain slices, shifted into the parent."""
        shifted = (
            slice(start + part.start, start + part.stop)
            for part, start in zip(spans(key, self.shape), self._starts, strict=True)
        )
        return np.asarray(self._pixels[tuple(shifted)])


def swap_axis(volume: Volume, axis: str) -> Volume:
    """Return the volume with ``axis`` in the place of z, still lazy; twice, it is the volume again.

    Parameters
    ----------
    volume
        Axes (z, y, x).
    axis
        ``z``, ``y`` or ``x``: the one to slice along; ``all`` is the volume as it is.

    Raises
    ------
    BadInputError
        If there is no such axis.
    """
    if axis not in ORDERS:
        raise BadInputError(f"the axis {axis!r} is unknown, expected z, y or x; choose one")
    if axis in ("z", "all"):
        return volume
    voxel = volume.voxel_nm and reorder_axes(volume.voxel_nm, axis)
    pixels = _Reordered(volume.pixels, ORDERS[axis])
    origin = reorder_axes(volume.origin, axis)
    sides = reorder_axes(volume.sides, axis)
    return Volume(pixels, voxel, volume.source, volume.meaning, origin=origin, sides=sides)


def reorder_axes(values: tuple[T, T, T], axis: str) -> tuple[T, T, T]:
    """Reorder a (z, y, x) triple for a volume sliced along ``axis``; it is its own inverse."""
    a, b, c = ORDERS[axis]
    return values[a], values[b], values[c]


class _Reordered:
    """Lazy pixels with two axes exchanged; a slab of several slices is read at once."""

    def __init__(self, pixels: Pixels, order: tuple[int, int, int]) -> None:
        self._pixels, self._order = pixels, order
        self.shape = tuple(pixels.shape[n] for n in order)
        self.dtype = np.dtype(pixels.dtype)
        self._lock = threading.Lock()
        self._at: tuple[slice, ...] = (slice(0, 0),) * 3
        self._slab = np.empty((0, 0, 0), self.dtype)

    def __getitem__(self, key: Any) -> Voxels:
        """Read with plain slices along the reordered axes."""
        parts = (*(key if isinstance(key, tuple) else (key,)), slice(None), slice(None))[:3]
        z, y, x = (slice(*part.indices(n)[:2]) for part, n in zip(parts, self.shape, strict=True))
        with self._lock:
            if (
                self._at[1:] != (y, x)
                or not self._at[0].start <= z.start <= z.stop <= self._at[0].stop
            ):
                plane = max(1, (y.stop - y.start) * (x.stop - x.start) * self.dtype.itemsize)
                stop = min(self.shape[0], max(z.stop, z.start + SLAB_BYTES // plane))
                self._at = (slice(z.start, stop), y, x)
                box = tuple(self._at[n] for n in self._order)  # the exchange is its own inverse
                self._slab = np.asarray(self._pixels[box]).transpose(self._order)
            low = self._at[0].start
            return np.ascontiguousarray(self._slab[z.start - low : z.stop - low])
