"""A volume sliced along another axis: isotropic data may be looked at along y or x."""

import threading
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.volume.array import Pixels, Volume

T = TypeVar("T")
SLAB_BYTES = 64 * 2**20
ORDERS = {"z": (0, 1, 2), "y": (1, 0, 2), "x": (2, 1, 0)}


def along(volume: Volume, axis: str) -> Volume:
    """Return the volume with ``axis`` in the place of z, still lazy; done twice, it is the volume again.

    Parameters
    ----------
    volume
        Axes (z, y, x).
    axis
        ``z``, ``y`` or ``x``: the one to slice along.

    Raises
    ------
    BadInputError
        If there is no such axis.
    """
    if axis not in ORDERS:
        raise BadInputError(f"the axis {axis!r} is unknown, expected z, y or x; choose one")
    if axis == "z":
        return volume
    order = ORDERS[axis]
    voxel = volume.voxel_nm and (volume.voxel_nm[order[0]], volume.voxel_nm[order[1]], volume.voxel_nm[order[2]])
    return Volume(_Turned(volume.pixels, order), voxel, volume.source, volume.meaning)


def turned(values: tuple[T, T, T], axis: str) -> tuple[T, T, T]:
    """Reorder a (z, y, x) triple for a volume sliced along ``axis``, or back: it is its own inverse."""
    a, b, c = ORDERS[axis]
    return values[a], values[b], values[c]


class _Turned:
    """Lazy pixels with two axes exchanged; a slab of several slices is read at once, as they lie across the file."""

    def __init__(self, pixels: Pixels, order: tuple[int, int, int]) -> None:
        self._pixels, self._order = pixels, order
        self.shape = tuple(pixels.shape[n] for n in order)
        self.dtype = np.dtype(pixels.dtype)
        self._lock = threading.Lock()
        self._at: tuple[slice, ...] = (slice(0, 0),) * 3
        self._slab = np.empty((0, 0, 0), self.dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read with plain slices along the turned axes."""
        parts = (*(key if isinstance(key, tuple) else (key,)), slice(None), slice(None))[:3]
        z, y, x = (slice(*part.indices(n)[:2]) for part, n in zip(parts, self.shape, strict=True))
        with self._lock:
            if self._at[1:] != (y, x) or not self._at[0].start <= z.start <= z.stop <= self._at[0].stop:
                plane = max(1, (y.stop - y.start) * (x.stop - x.start) * self.dtype.itemsize)
                stop = min(self.shape[0], max(z.stop, z.start + SLAB_BYTES // plane))
                self._at = (slice(z.start, stop), y, x)
                box = tuple(self._at[n] for n in self._order)  # exchanging two axes is its own inverse
                self._slab = np.asarray(self._pixels[box]).transpose(self._order)
            low = self._at[0].start
            return np.ascontiguousarray(self._slab[z.start - low : z.stop - low])
