"""What was decoded last is kept, so that overlapping windows do not decode it again."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from evenslice.errors import BadInputError
from evenslice.volume.array import Voxels, first_line, spans

CACHE_BYTES = 256 * 2**20
SLABS_BYTES = 64 * 2**20
Span = tuple[int, int]
Read = Callable[[slice, slice, slice], Voxels]


class LastUsed:
    """Decoded pieces by key; those used longest ago are dropped. Safe to use from several threads.

    ``load`` decodes the piece of a key, one at a time. At most ``limit`` bytes are kept (256 MiB),
    and at least so many pieces whatever their size.
    """

    def __init__(
        self, load: Callable[[Any], Voxels], limit: int | None = None, least: int = 1
    ) -> None:
        self._load, self._least = load, least
        self._limit = CACHE_BYTES if limit is None else limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Voxels] = OrderedDict()

    def get(self, key: Hashable) -> Voxels:
        """Return the piece of a key: the kept one, not to be changed, or decoded now."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            piece = self._kept[key] = self._load(key)
            while len(self._kept) > self._least and self._limit < sum(
                kept.nbytes for kept in self._kept.values()
            ):
                self._kept.popitem(last=False)
            return piece

    def kept_keys(self) -> list[Any]:
        """Return the keys of what is kept."""
        with self._lock:
            return list(self._kept)


class ChunkedPixels:
    """Lazy pixels (z, y, x) of a file in chunks; a row of chunks is decoded once for its slices.

    ``chunk`` is the sizes (z, y, x) of one, None for a file that need not be decoded; ``read``
    reads a box of the file.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        chunk: tuple[int, int, int] | None,
        read: Read,
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self._chunk = chunk
        self._read = read
        self._slabs = LastUsed(self._slab, SLABS_BYTES, least=2)

    def __getitem__(self, key: Any) -> Voxels:
        """Read a box of contiguous slices."""
        z, y, x = spans(key, self.shape)
        box = np.empty((z.stop - z.start, y.stop - y.start, x.stop - x.start), self.dtype)
        if not box.size:
            return box
        if self._chunk is None:
            return self._decoded(z, y, x)
        deep, high, wide = self._chunk
        area = (_aligned(y, high, self.shape[1]), _aligned(x, wide, self.shape[2]))
        row_size = deep * math.prod(part.stop - part.start for part in area)
        if row_size * self.dtype.itemsize > CACHE_BYTES // 2:  # a window can need two rows
            return self._decoded(z, y, x)
        for row in range(z.start // deep, -(-z.stop // deep)):
            low = row * deep
            (y0, _), (x0, _) = key = self._kept_area(low, *area)
            slab = self._slabs.get((low, *key))
            first, last = max(low, z.start), min(low + deep, z.stop)
            box[first - z.start : last - z.start] = slab[
                first - low : last - low, y.start - y0 : y.stop - y0, x.start - x0 : x.stop - x0
            ]
        return box

    def _kept_area(self, low: int, y: slice, x: slice) -> tuple[Span, Span]:
        """Return a kept area of this row of chunks that holds a box, else the box itself."""
        for row, (y0, y1), (x0, x1) in self._slabs.kept_keys():
            if row == low and y0 <= y.start and y.stop <= y1 and x0 <= x.start and x.stop <= x1:
                return (y0, y1), (x0, x1)
        return (y.start, y.stop), (x.start, x.stop)

    def _slab(self, key: tuple[int, Span, Span]) -> Voxels:
        assert self._chunk is not None
        low, y, x = key
        last = min(low + self._chunk[0], self.shape[0])
        return self._decoded(slice(low, last), slice(*y), slice(*x))

    def _decoded(self, z: slice, y: slice, x: slice) -> Voxels:
        return np.ascontiguousarray(self._read(z, y, x), self.dtype)


def box_reader(array: Any, axes: Sequence[int], source: object) -> Read:
    """Return what reads a box of an array of a file along three of its axes; the others are 0."""

    def read(*box: slice) -> Voxels:
        key: list[int | slice] = [0] * len(array.shape)
        for axis, part in zip(axes, box, strict=True):
            key[axis] = part
        try:
            return np.asarray(array[tuple(key)])
        except Exception as error:  # each codec raises types of its own
            where = ", ".join(f"{part.start}:{part.stop}" for part in box)
            raise BadInputError(
                f"{source} cannot be decoded at [{where}] ({first_line(error)}), expected whole "
                "chunks; copy or download it again"
            ) from error

    return read


def _aligned(part: slice, chunk: int, size: int) -> slice:
    """Widen a span to whole chunks."""
    return slice(part.start // chunk * chunk, min(-(-part.stop // chunk) * chunk, size))
