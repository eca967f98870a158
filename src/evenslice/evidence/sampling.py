"""Where an audit looks: windows drawn from blocks of the volume, so that windows of one block can be told apart.

Blocks are drawn by number without listing them, so the cost does not grow with the volume. numpy only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.options import Design
from evenslice.volume.array import Roi
from evenslice.volume.windows import inner_centres

DESIGNS: tuple[Design, ...] = ("reversal", "latin")


def slice_orders(slices: int, design: Design = "reversal") -> NDArray[np.intp]:
    """Return the orders in which a window's slices are arranged, the window itself and its reversal first.

    Parameters
    ----------
    slices
        S.
    design
        ``reversal``: the window and its reversal. ``latin``: the S cyclic shifts, each with its reversal; every slice then
        stands in every slot equally often.

    Returns
    -------
    array
        (arrangements, S): entry [a, s] is the number of the slice that stands in slot s.
    """
    shifts = range(slices if design == "latin" else 1)
    straight = [np.roll(np.arange(slices), shift) for shift in shifts]
    return np.stack([order for shift in straight for order in (shift, shift[::-1])])


STRATA = 4
CANDIDATES = 4


@dataclass(frozen=True)
class SampledWindow:
    """One window of an audit.

    Attributes
    ----------
    z
        Centre slice.
    y, x
        Where the tile lies in the slice.
    cluster
        Number of the block of S x tile x tile that the centre lies in.
    """

    z: int
    y: slice
    x: slice
    cluster: int


@dataclass(frozen=True)
class Grid:
    """Blocks of S x tile x tile that cover the part of a volume in which windows lie wholly.

    Attributes
    ----------
    start
        First slice; blocks begin there.
    centres
        Possible centre slices.
    slices
        S.
    ys, xs
        Start of the first tile, side, and number of tiles along each axis.
    """

    start: int
    centres: range
    slices: int
    ys: tuple[int, int, int]
    xs: tuple[int, int, int]

    @property
    def layers(self) -> int:
        """How many blocks lie above each other."""
        return (self.centres[-1] - self.start) // self.slices + 1

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return self.layers * self.ys[2] * self.xs[2]

    def inside(self, block: int) -> range:
        """Return the centre slices of a block."""
        first = self.start + block // (self.ys[2] * self.xs[2]) * self.slices
        return range(max(first, self.centres.start), min(first + self.slices, self.centres.stop))

    def site(self, block: int, z: int) -> SampledWindow:
        """Return the window of a block that is centred on slice z."""
        row, column = block // self.xs[2] % self.ys[2], block % self.xs[2]
        y, x = (
            start + number * side
            for (start, side, _), number in ((self.ys, row), (self.xs, column))
        )
        return SampledWindow(z, slice(y, y + self.ys[1]), slice(x, x + self.xs[1]), block)


def plan_sites(
    shape: tuple[int, int, int],
    slices: int,
    tile: int,
    windows: int,
    seed: int,
    multiple: int = 1,
    size: tuple[int, int] | None = None,
    roi: Roi | None = None,
    richness: Callable[[SampledWindow], float] | None = None,
    source: str = "the volume",
) -> list[SampledWindow]:
    """Draw windows wholly inside a volume, spread over as many blocks as there are.

    Blocks of S x tile x tile cover the volume; they are drawn in a seeded order, one window each, then a round for each
    further window of the same block.

    Parameters
    ----------
    shape
        (z, y, x) of the volume.
    slices
        S.
    tile
        Side of a window in pixels; cut to the slice, and down to a multiple of ``multiple`` where there is room.
    windows
        How many to draw; fewer when the volume holds no more.
    seed
        Seed of the draw.
    multiple
        What the network's height and width are multiples of.
    size
        The only (y, x) that the network takes, in place of ``tile``; None for any.
    roi
        Box (z, y, x) in which windows lie wholly; the volume when None.
    richness
        How much foreground a window holds. Blocks are then drawn in four strata of equal size, in turn, so that rich and poor
        ones come in proportion (stratified sampling, proportional allocation).
    source
        What the volume is called in a message.

    Raises
    ------
    BadInputError
        If no window fits inside the volume.
    """
    if windows < 1:
        raise BadInputError(
            f"{windows} windows were asked for, expected 1 or more; use for example --windows 40"
        )
    rng = np.random.default_rng(seed)
    box = roi or (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    grid = _grid(box, slices, size or (tile, tile), multiple, size is not None, rng, source)
    count = min(grid.blocks, windows if richness is None else CANDIDATES * windows)
    order = rng.choice(grid.blocks, count, replace=False)  # draws numbers without listing them
    if richness is not None:
        order = _in_strata(
            [int(block) for block in order], [richness(_middle(grid, int(b))) for b in order], rng
        )
    zs = [rng.permutation(np.asarray(grid.inside(int(block)))) for block in order[:windows]]
    turns = [
        grid.site(int(block), int(centres[turn]))
        for turn in range(slices)
        for block, centres in zip(order[:windows], zs, strict=True)
        if turn < len(centres)
    ]
    return turns[:windows]


def _middle(grid: Grid, block: int) -> SampledWindow:
    inside = grid.inside(block)
    return grid.site(block, inside[len(inside) // 2])


def _in_strata(
    blocks: list[int], rich: Sequence[float], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Order blocks so that the strata of foreground take turns; inside a stratum the order stays as drawn."""
    ranks = np.argsort(np.argsort(np.asarray(rich) + 1e-12 * rng.random(len(rich))))
    stratum = ranks * STRATA // len(blocks)
    place = np.zeros(len(blocks), np.intp)
    for number in range(STRATA):
        mine = np.flatnonzero(stratum == number)
        place[mine] = np.arange(len(mine))
    first = rng.permutation(STRATA)  # which stratum begins each turn
    return np.asarray(blocks, np.intp)[np.lexsort((first[stratum], place))]


def _grid(
    box: Roi,
    slices: int,
    tile: tuple[int, int],
    multiple: int,
    fixed: bool,
    rng: np.random.Generator,
    source: str,
) -> Grid:
    z, y, x = box
    inside = inner_centres(slices, z.stop - z.start)
    centres = range(z.start + inside.start, z.start + inside.stop)
    if len(centres) < 1:
        raise BadInputError(
            f"{source} has {z.stop - z.start} slices, expected at least {slices} for windows of {slices} wholly inside; use fewer slices"
        )
    height, width = y.stop - y.start, x.stop - x.start
    if fixed and (tile[0] > height or tile[1] > width):
        raise BadInputError(
            f"the network takes {tile[0]} x {tile[1]} pixels only, expected slices at least as large, found {height} x {width} in {source}; use a "
            "larger volume, or export the network for other sizes"
        )
    return Grid(
        z.start,
        centres,
        slices,
        _tiles(y, tile[0], multiple, rng),
        _tiles(x, tile[1], multiple, rng),
    )


def _tiles(span: slice, tile: int, multiple: int, rng: np.random.Generator) -> tuple[int, int, int]:
    size = span.stop - span.start
    side = min(tile, size)
    side = side - side % multiple if side >= multiple else side
    count = size // side
    return span.start + int(rng.integers(size - count * side + 1)), side, count
