"""Boxes of bounded size that cover a volume: whole slices together while they fit, else bands of rows of one slice."""

from collections.abc import Iterator
from dataclasses import dataclass

from evenslice.volume.array import Roi

MOST_VOXELS = 2**24


@dataclass(frozen=True)
class Band:
    """A box of a volume: some slices, some rows, all columns.

    Attributes
    ----------
    z
        Slices; several only where whole slices fit.
    rows
        What this box is responsible for along y; the boxes of a plan cover every voxel once.
    read
        Rows to read: ``rows`` and the halo, cut at the edges of the volume.
    """

    z: slice
    rows: slice
    read: slice

    @property
    def box(self) -> Roi:
        """What to read of the volume (z, y, x)."""
        return self.z, self.read, slice(None)

    @property
    def inside(self) -> slice:
        """Where ``rows`` lie in what was read."""
        return slice(self.rows.start - self.read.start, self.rows.stop - self.read.start)


def bands(shape: tuple[int, int, int], halo: int = 0, most: int = MOST_VOXELS) -> Iterator[Band]:
    """Cut a volume into boxes of at most ``most`` voxels (at least one row), slice after slice.

    Parameters
    ----------
    shape
        Sizes along z, y, x.
    halo
        Rows to read above and below each band.
    most
        Voxels of a box, the halo not counted.
    """
    depth, height, _ = shape
    thick, rows = _sides(shape, most)
    for z in range(0, depth, thick):
        for y in range(0, height, rows):
            yield Band(
                slice(z, min(depth, z + thick)),
                slice(y, min(height, y + rows)),
                slice(max(0, y - halo), min(height, y + rows + halo)),
            )


def count_bands(shape: tuple[int, int, int], most: int = MOST_VOXELS) -> int:
    """Return how many boxes ``bands`` makes of a volume."""
    thick, rows = _sides(shape, most)
    return -(-shape[0] // thick) * -(-shape[1] // rows)


def _sides(shape: tuple[int, int, int], most: int) -> tuple[int, int]:
    """Return how many slices and rows a box has at most."""
    _, height, width = shape
    rows = min(height, max(1, most // width))
    return max(1, most // (height * width)) if rows == height else 1, rows
