"""Windows that an audit samples: drawn in a seeded order from as many blocks as the volume has.

Blocks are drawn by number without listing them, so the cost does not grow with the volume.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.options import Design
from evenslice.volume.array import Roi, Volume
from evenslice.volume.normalisation import check_finite
from evenslice.volume.windows import inner_centres, read_window

STRATA = 4
CANDIDATES = 4
Raw = NDArray[np.generic]


def slice_orders(slices: int, design: Design = "reversal") -> NDArray[np.intp]:
    """Return the orders in which a window's slices are arranged, (arrangements, S).

    Entry [a, s] is the number of the slice in slot s. ``reversal``: the window and its reversal.
    ``latin``: the S cyclic shifts, each with its reversal; every slice then stands in every slot
    equally often.
    """
    shifts = range(slices if design == "latin" else 1)
    straight = [np.roll(np.arange(slices), shift) for shift in shifts]
    return np.stack([order for shift in straight for order in (shift, shift[::-1])])


@dataclass(frozen=True)
class SampledWindow:
    """One window of an audit."""

    z: int  # centre slice
    y: slice
    x: slice
    cluster: int  # number of the block of S x tile x tile that the centre lies in


def read_windows(
    volume: Volume, slices: int, windows: Sequence[SampledWindow]
) -> Iterator[tuple[SampledWindow, Raw]]:
    """Read raw windows (S, y, x), one after the other; NaN and infinity are refused."""
    for window in windows:
        raw = read_window(volume, window.z, slices, window.y, window.x)
        check_finite(raw, f"{volume.source} around slice {window.z}")
        yield window, raw


@dataclass(frozen=True)
class _Grid:
    """Blocks of S x tile x tile that cover the part of a volume in which windows lie wholly."""

    start: int
    centres: range
    slices: int
    ys: tuple[int, int, int]  # start of the first tile, side, number of tiles
    xs: tuple[int, int, int]

    @property
    def blocks(self) -> int:
        layers = (self.centres[-1] - self.start) // self.slices + 1
        return layers * self.ys[2] * self.xs[2]

    def centres_in(self, block: int) -> range:
        """Return the centre slices of a block."""
        first = self.start + block // (self.ys[2] * self.xs[2]) * self.slices
        return range(max(first, self.centres.start), min(first + self.slices, self.centres.stop))

    def window(self, block: int, z: int) -> SampledWindow:
        row, column = block // self.xs[2] % self.ys[2], block % self.xs[2]
        y, x = self.ys[0] + row * self.ys[1], self.xs[0] + column * self.xs[1]
        return SampledWindow(z, slice(y, y + self.ys[1]), slice(x, x + self.xs[1]), block)

    def middle(self, block: int) -> SampledWindow:
        centres = self.centres_in(block)
        return self.window(block, centres[len(centres) // 2])


def draw_windows(
    volume: Volume,
    slices: int,
    tile: int,
    count: int,
    seed: int,
    multiple: int = 1,
    size: tuple[int, int] | None = None,
    roi: Roi | None = None,
    foreground: Callable[[SampledWindow], float] | None = None,
) -> list[SampledWindow]:
    """Draw windows wholly inside a volume, spread over as many blocks as there are.

    Blocks of S x tile x tile cover the volume; they are drawn in a seeded order, one window each,
    then a round for each further window of the same block; fewer than ``count`` when the volume
    holds no more. Windows lie wholly in ``roi`` (z, y, x). Their side is ``tile`` pixels, cut to
    the slice and down to a multiple of ``multiple`` where there is room; or ``size``, the only
    (y, x) that the network takes. With ``foreground``, its fraction in a window, blocks are drawn
    in turn from four strata of equal size, so that rich and poor ones come in proportion
    (proportional allocation).

    Raises ``BadInputError`` if no window fits inside the volume.
    """
    if count < 1:
        raise BadInputError(
            f"{count} windows were asked for, expected 1 or more; use for example --windows 40"
        )
    rng = np.random.default_rng(seed)
    grid = _grid(volume, slices, roi, tile if size is None else size, multiple, rng)
    candidates = min(grid.blocks, count if foreground is None else CANDIDATES * count)
    drawn = rng.choice(grid.blocks, candidates, replace=False)  # draws numbers without listing them
    blocks = [int(block) for block in drawn]
    if foreground is not None:
        blocks = _in_strata(blocks, [foreground(grid.middle(block)) for block in blocks], rng)
    blocks = blocks[:count]
    centres = [rng.permutation(np.asarray(grid.centres_in(block))) for block in blocks]
    windows = [
        grid.window(block, int(zs[turn]))
        for turn in range(slices)
        for block, zs in zip(blocks, centres, strict=True)
        if turn < len(zs)
    ]
    return windows[:count]


def _in_strata(
    blocks: list[int], foreground: Sequence[float], rng: np.random.Generator
) -> list[int]:
    """Order blocks so that strata of foreground take turns; inside a stratum the order stays."""
    ranks = np.argsort(np.argsort(np.asarray(foreground) + 1e-12 * rng.random(len(foreground))))
    stratum = ranks * STRATA // len(blocks)
    place = np.zeros(len(blocks), np.intp)
    for number in range(STRATA):
        members = np.flatnonzero(stratum == number)
        place[members] = np.arange(len(members))
    first = rng.permutation(STRATA)  # which stratum begins each turn
    return [blocks[number] for number in np.lexsort((first[stratum], place))]


def _grid(
    volume: Volume,
    slices: int,
    roi: Roi | None,
    tile: int | tuple[int, int],
    multiple: int,
    rng: np.random.Generator,
) -> _Grid:
    z, y, x = roi or tuple(slice(0, side) for side in volume.shape)
    depth, height, width = (span.stop - span.start for span in (z, y, x))
    inside = inner_centres(slices, depth)
    if not inside:
        raise BadInputError(
            f"{volume.source} has {depth} slices, expected at least {slices} for windows of "
            f"{slices} wholly inside; use fewer slices"
        )
    sides = (tile, tile) if isinstance(tile, int) else tile
    if not isinstance(tile, int) and (tile[0] > height or tile[1] > width):
        raise BadInputError(
            f"the network takes {tile[0]} x {tile[1]} pixels only, expected slices at least as "
            f"large, found {height} x {width} in {volume.source}; use a larger volume, or export "
            "the network for other sizes"
        )
    centres = range(z.start + inside.start, z.start + inside.stop)
    ys, xs = (_tiles(span, side, multiple, rng) for span, side in zip((y, x), sides, strict=True))
    return _Grid(z.start, centres, slices, ys, xs)


def _tiles(span: slice, tile: int, multiple: int, rng: np.random.Generator) -> tuple[int, int, int]:
    size = span.stop - span.start
    side = min(tile, size)
    side = side - side % multiple if side >= multiple else side
    count = size // side
    return span.start + int(rng.integers(size - count * side + 1)), side, count
