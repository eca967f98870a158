"""Tiles: how a slice is cut so that every pixel is computed with its surroundings and written once."""

from dataclasses import dataclass

from evenslice.errors import BadInputError


@dataclass(frozen=True)
class Tile:
    """A part of a slice.

    Attributes
    ----------
    core
        (y, x) of what this tile is responsible for, in the volume; the cores of a plan cover the slice exactly once.
    read
        (y, x) of what is read: the core and its halo, cut at the edges of the volume.
    """

    core: tuple[slice, slice]
    read: tuple[slice, slice]

    @property
    def inside(self) -> tuple[slice, slice]:
        """Where the core lies in what was read."""
        (cy, cx), (ry, rx) = self.core, self.read
        return (
            slice(cy.start - ry.start, cy.stop - ry.start),
            slice(cx.start - rx.start, cx.stop - rx.start),
        )


def plan_tiles(height: int, width: int, tile: int, halo: int) -> list[Tile]:
    """Cut a slice into tiles of at most ``tile`` pixels a side including the halo, in reading order.

    Parameters
    ----------
    height, width
        The slice, pixels.
    tile
        Largest side of what is read at once, pixels.
    halo
        Pixels read around each core and thrown away.

    Raises
    ------
    BadInputError
        If nothing is left of a tile within its halo.
    """
    rows, columns = _spans(height, tile, halo), _spans(width, tile, halo)
    return [Tile((core_y, core_x), (read_y, read_x)) for core_y, read_y in rows for core_x, read_x in columns]


def _spans(size: int, tile: int, halo: int) -> list[tuple[slice, slice]]:
    if size <= tile:
        return [(slice(0, size), slice(0, size))]
    step = tile - 2 * halo
    if step < 1:
        raise BadInputError(
            f"a tile of {tile} pixels has nothing left inside its halo of {halo}; expected more than {2 * halo}, use a larger --tile"
        )
    spans = []
    for start in range(0, size, step):
        stop = min(size, start + step)
        spans.append((slice(start, stop), slice(max(0, start - halo), min(size, stop + halo))))
    return spans
