"""Boxes that cover a volume: a regular grid with halos and faces, or bands of rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evenslice.volume.array import Roi, Voxels

Box = Roi
Shape = tuple[int, int, int]
Labels = Voxels  # of any integer type, or bool
MOST_VOXELS = 2**24


def grid_of(shape: Shape, block: Shape) -> list[Box]:
    """Cut a volume into boxes of ``block`` voxels (z, y, x), the last smaller, in raster order."""
    zs, ys, xs = (
        [slice(start, min(start + step, size)) for start in range(0, size, step)]
        for size, step in zip(shape, block, strict=True)
    )
    return [(z, y, x) for z in zs for y in ys for x in xs]


def with_halo(box: Box, halo: Shape, shape: Shape) -> tuple[Box, Box]:
    """Widen a box by ``halo`` voxels (z, y, x) on each side, cut at the edges of the volume.

    Return what to read, and where the box lies in what was read.
    """
    z, y, x = (
        slice(max(0, span.start - wide), min(size, span.stop + wide))
        for span, wide, size in zip(box, halo, shape, strict=True)
    )
    read = (z, y, x)
    z, y, x = (
        slice(span.start - wide.start, span.stop - wide.start)
        for span, wide in zip(box, read, strict=True)
    )
    return read, (z, y, x)


@dataclass(frozen=True)
class Face:
    """Two boxes side by side."""

    box: int  # place in the list of boxes
    other: int  # place of the next one along one axis
    plane: Box  # the last plane of the one, as a box of the volume
    facing: Box  # the first plane of the other


def faces_of(boxes: Sequence[Box]) -> list[Face]:
    """List every face between two boxes of a regular grid once."""
    index = {tuple(span.start for span in box): i for i, box in enumerate(boxes)}
    faces = []
    for i, box in enumerate(boxes):
        for axis, span in enumerate(box):
            corner = [side.start for side in box]
            corner[axis] = span.stop
            other = index.get(tuple(corner))
            if other is not None:
                last, first = slice(span.stop - 1, span.stop), slice(span.stop, span.stop + 1)
                faces.append(Face(i, other, _with(box, axis, last), _with(box, axis, first)))
    return faces


def _with(box: Box, axis: int, span: slice) -> Box:
    z, y, x = (span if k == axis else side for k, side in enumerate(box))
    return z, y, x


@dataclass(frozen=True)
class Band:
    """A box of a volume: some slices, some rows, all columns."""

    z: slice  # several slices only where they fit whole
    rows: slice  # what this box is responsible for along y; all boxes cover every voxel once
    read: slice  # rows and the halo, cut at the edges of the volume

    @property
    def box(self) -> Roi:
        """What to read of the volume (z, y, x)."""
        return self.z, self.read, slice(None)

    @property
    def inside(self) -> slice:
        """Where ``rows`` lie in what was read."""
        return slice(self.rows.start - self.read.start, self.rows.stop - self.read.start)


def bands(shape: Shape, halo: int = 0, most: int = MOST_VOXELS) -> Iterator[Band]:
    """Cut a volume (z, y, x) into boxes of at most ``most`` voxels (at least one row).

    Slices go together while they fit whole, else each is cut into bands of rows. ``halo`` more rows
    are to be read above and below each band; they do not count in ``most``.
    """
    depth, height, width = shape
    rows = min(height, max(1, most // width))
    thick = max(1, most // (height * width)) if rows == height else 1
    for z in range(0, depth, thick):
        for y in range(0, height, rows):
            yield Band(
                slice(z, min(depth, z + thick)),
                slice(y, min(height, y + rows)),
                slice(max(0, y - halo), min(height, y + rows + halo)),
            )


def count_bands(shape: Shape, most: int = MOST_VOXELS) -> int:
    """Return how many boxes ``bands`` makes of a volume."""
    return sum(1 for _ in bands(shape, most=most))
