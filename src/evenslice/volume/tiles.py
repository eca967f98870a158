"""Tiles and blocks: how a volume is cut so that every voxel is written once, with its halo."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.volume.array import Roi

Area = tuple[slice, slice]
CHUNK = 256


@dataclass(frozen=True)
class Tile:
    """A part of a slice that goes through the network at once; places (y, x) are in the volume.

    ``weights`` say along y and along x of the core how much this tile counts where tiles are
    blended: those of all tiles sum to 1 at every pixel. None: it alone is responsible.
    """

    core: Area  # what this tile contributes to
    read: Area  # the core and its surroundings
    weights: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    @property
    def inside(self) -> Area:
        """Where the core lies in what was read."""
        return within(self.core, self.read)


@dataclass(frozen=True)
class Block:
    """A box that is computed and written as one, by whoever it falls to."""

    core: Roi  # (z, y, x) in the volume; the cores of a plan cover its box exactly once
    tiles: tuple[Tile, ...]  # what its slices are computed from

    @cached_property
    def read(self) -> Area:
        """(y, x) of all that is read of each slice."""
        ys, xs = ([tile.read[axis] for tile in self.tiles] for axis in (0, 1))
        return _hull(ys), _hull(xs)


@dataclass(frozen=True)
class TileLayout:
    """How slices are cut: chosen once for a run."""

    tile: tuple[int, int]  # largest (y, x) of what goes through the network at once, pixels
    halo: int  # pixels read around each core and discarded; a multiple of ``stride``
    overlap: int  # pixels over which neighbours are blended; 0 where the halo makes tiles exact
    stride: int  # reading starts at multiples of it: a tile is sampled like the whole slice

    def __post_init__(self) -> None:
        """Refuse tiles with nothing left in them."""
        low = min(self.tile)
        if low - 2 * self.halo < 1 or low - self.overlap < 1:
            lost = f"halo of {self.halo}" if self.halo else f"overlap of {self.overlap}"
            raise BadInputError(
                f"a tile of {low} pixels has nothing left inside its {lost}; expected more than "
                f"{2 * self.halo or self.overlap}, use a larger --tile"
            )


def within(inner: Area, outer: Area) -> Area:
    """Return where ``inner`` lies in ``outer``."""
    y, x = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
    return y, x


def plan_blocks(
    shape: tuple[int, int, int], roi: Roi, cut: TileLayout, depth: int, side: int
) -> list[Block]:
    """Cut a box of a volume into blocks, and each into tiles, in reading order.

    What is read around the box lies in the volume of ``shape`` (z, y, x). A block has at most
    ``depth`` slices; where tiles are blended its largest side is ``side`` pixels, elsewhere it is
    one tile. Blocks start at multiples of ``depth`` and ``block_side`` from the start of the box.
    """
    z, y, x = roi
    axes = [
        _axis(size, part, cut, n, side)
        for size, part, n in zip(shape[1:], (y, x), cut.tile, strict=True)
    ]
    areas = [
        ((cy, cx), tuple(_tile(a, b) for a in row for b in column))
        for cy, row in axes[0]
        for cx, column in axes[1]
    ]
    return [
        Block((slice(start, min(z.stop, start + depth)), *core), tiles)
        for start in range(z.start, z.stop, depth)
        for core, tiles in areas
    ]


def count_blocks(
    shape: tuple[int, int, int], roi: Roi, cut: TileLayout, depth: int, side: int
) -> int:
    """Return how many blocks ``plan_blocks`` would make, without making them."""
    z, *plane = roi
    layers = -(-(z.stop - z.start) // depth)
    for size, part, tile in zip(shape[1:], plane, cut.tile, strict=True):
        layers *= -(-(part.stop - part.start) // block_side(size, part, cut, tile, side))
    return int(layers)


def block_side(size: int, span: slice, cut: TileLayout, tile: int, side: int) -> int:
    """Return the step between blocks along y or x, pixels; the whole span if one block is enough.

    ``size`` is that of the axis, ``span`` what is computed of it; see ``plan_blocks``.
    """
    length = int(span.stop - span.start)
    if cut.overlap:
        return min(length, side)
    if size <= tile or length + 2 * cut.halo <= tile:
        return length
    step = tile - 2 * cut.halo
    chunk = step // _chunks_along(step)
    unit = max(16, cut.stride)
    return (chunk // unit * unit if chunk >= unit else chunk) * _chunks_along(step)


def chunk_side(step: int) -> int:
    """Return the side of chunks, about 256 pixels; blocks at multiples of ``step`` share none."""
    return step // next(count for count in range(_chunks_along(step), 0, -1) if step % count == 0)


def _chunks_along(step: int) -> int:
    return max(1, round(step / CHUNK))


Piece = tuple[slice, slice, NDArray[np.float32] | None]  # core, read, weights along one axis


def _axis(
    size: int, span: slice, cut: TileLayout, tile: int, side: int
) -> list[tuple[slice, list[Piece]]]:
    """Cut one axis into the spans of blocks, each with the pieces that it is computed from."""
    step = block_side(size, span, cut, tile, side)
    starts = range(span.start, span.stop, step)
    cores = [slice(start, min(span.stop, start + step)) for start in starts]
    if not cut.overlap:
        return [(core, [(core, _around(core, size, cut), None)]) for core in cores]
    if size <= tile:  # one run sees all of the axis
        return [(core, [(core, slice(0, size), None)]) for core in cores]
    reads, weights = _ramps(size, tile, cut.overlap)
    blocks = []
    for core in cores:
        pieces: list[Piece] = []
        for read, weight in zip(reads, weights, strict=True):
            low, high = max(read.start, core.start), min(read.stop, core.stop)
            if low < high:
                pieces.append(
                    (slice(low, high), read, weight[low - read.start : high - read.start])
                )
        blocks.append((core, pieces))
    return blocks


def _around(core: slice, size: int, cut: TileLayout) -> slice:
    """Return a core with its halo, between multiples of the stride, cut at the volume's edges."""
    low = max(0, core.start - cut.halo) // cut.stride * cut.stride
    high = -(-(core.stop + cut.halo) // cut.stride) * cut.stride
    return slice(low, min(size, high))


def _ramps(size: int, tile: int, overlap: int) -> tuple[list[slice], list[NDArray[np.float32]]]:
    """Return evenly spread tiles of one axis and weights, ramps that sum to 1 at every pixel."""
    count = -(-(size - overlap) // (tile - overlap))
    starts = np.linspace(0, size - tile, count).round().astype(int)
    inner = np.minimum(np.arange(tile) + 0.5, tile - np.arange(tile) - 0.5)
    ramp = np.minimum(inner / overlap, 1.0)
    total = np.zeros(size)
    for start in starts:
        total[start : start + tile] += ramp
    reads = [slice(int(s), int(s) + tile) for s in starts]
    return reads, [(ramp / total[read]).astype(np.float32) for read in reads]


def _tile(row: Piece, column: Piece) -> Tile:
    (cy, ry, wy), (cx, rx, wx) = row, column
    if wy is None and wx is None:
        return Tile((cy, cx), (ry, rx))
    ones = [
        np.ones(c.stop - c.start, np.float32) if w is None else w for c, w in ((cy, wy), (cx, wx))
    ]
    return Tile((cy, cx), (ry, rx), (ones[0], ones[1]))


def _hull(spans: list[slice]) -> slice:
    return slice(min(s.start for s in spans), max(s.stop for s in spans))
