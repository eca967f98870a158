"""Where an audit looks: windows drawn from blocks of the volume, so that windows of one block can be told apart."""

from dataclasses import dataclass

import numpy as np

from evenslice.errors import BadInputError
from evenslice.volume.windows import inner_centres


@dataclass(frozen=True)
class Site:
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


def plan_sites(
    shape: tuple[int, int, int],
    slices: int,
    tile: int,
    windows: int,
    seed: int,
    multiple: int = 1,
    size: tuple[int, int] | None = None,
) -> list[Site]:
    """Draw windows wholly inside a volume, spread over as many blocks as there are.

    Blocks of S x tile x tile cover the volume; they are visited in a seeded order, a round for each further window
    of the same block.

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

    Raises
    ------
    BadInputError
        If no window fits inside the volume.
    """
    depth, height, width = shape
    centres = inner_centres(slices, depth)
    if not centres:
        raise BadInputError(
            f"the volume has {depth} slices, expected at least {slices} for windows of {slices} wholly inside; use fewer slices"
        )
    if windows < 1:
        raise BadInputError(f"{windows} windows were asked for, expected 1 or more; use for example --windows 40")
    rng = np.random.default_rng(seed)
    tall, wide = size or (tile, tile)
    if size is not None and (tall > height or wide > width):
        raise BadInputError(
            f"the network takes {tall} x {wide} pixels only, expected slices at least as large, found {height} x {width}; use a "
            "larger volume, or export the network for other sizes"
        )
    ys, xs = _tiles(height, tall, multiple, rng), _tiles(width, wide, multiple, rng)
    by_block: dict[int, list[int]] = {}
    for z in rng.permutation(np.asarray(centres)):
        by_block.setdefault(int(z) // slices, []).append(int(z))
    blocks = [(b, i, j) for b in sorted(by_block) for i in range(len(ys)) for j in range(len(xs))]
    order = rng.permutation(len(blocks))
    sites = []
    for turn in range(slices):
        for number in order:
            b, i, j = blocks[number]
            if turn < len(by_block[b]):
                sites.append(Site(by_block[b][turn], ys[i], xs[j], int(number)))
    return sites[:windows]


def _tiles(size: int, tile: int, multiple: int, rng: np.random.Generator) -> list[slice]:
    side = min(tile, size)
    side = side - side % multiple if side >= multiple else side
    count = size // side
    start = int(rng.integers(size - count * side + 1))
    return [slice(start + n * side, start + (n + 1) * side) for n in range(count)]
