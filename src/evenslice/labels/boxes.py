"""How a volume is cut into boxes, and where the boxes meet."""

from collections.abc import Sequence
from dataclasses import dataclass

from evenslice.volume.array import Roi

Box = Roi
Shape = tuple[int, int, int]


def grid_of(shape: Shape, block: Shape) -> list[Box]:
    """Cut a volume into boxes of ``block`` voxels (z, y, x), the last ones smaller, in raster order.

    Raises
    ------
    ValueError
        If a side of the block is below 1.
    """
    if min(block) < 1:
        raise ValueError(f"blocks of {block} voxels, expected at least 1 a side")
    zs, ys, xs = (
        [slice(start, min(start + step, size)) for start in range(0, size, step)]
        for size, step in zip(shape, block, strict=True)
    )
    return [(z, y, x) for z in zs for y in ys for x in xs]


def with_halo(box: Box, halo: Shape, shape: Shape) -> tuple[Box, Box]:
    """Widen a box by ``halo`` voxels (z, y, x) on each side, cut at the edges of the volume.

    Returns
    -------
    read, inside
        What to read, in the volume, and where the box lies in what was read.
    """
    z, y, x = (
        slice(max(0, span.start - wide), min(size, span.stop + wide))
        for span, wide, size in zip(box, halo, shape, strict=True)
    )
    read = (z, y, x)
    z, y, x = (slice(span.start - wide.start, span.stop - wide.start) for span, wide in zip(box, read, strict=True))
    return read, (z, y, x)


@dataclass(frozen=True)
class Face:
    """Two boxes side by side.

    Attributes
    ----------
    box, other
        Their places in the list of boxes; ``other`` follows along one axis.
    plane, facing
        The last plane of the one and the first of the other, as boxes of the volume.
    """

    box: int
    other: int
    plane: Box
    facing: Box


def faces_of(boxes: Sequence[Box]) -> list[Face]:
    """List every face between two boxes of a regular grid once."""
    at = {tuple(span.start for span in box): i for i, box in enumerate(boxes)}
    faces = []
    for i, box in enumerate(boxes):
        for axis, span in enumerate(box):
            other = at.get(tuple(span.stop if k == axis else part.start for k, part in enumerate(box)))
            if other is not None:
                last, first = slice(span.stop - 1, span.stop), slice(span.stop, span.stop + 1)
                faces.append(Face(i, other, _with(box, axis, last), _with(box, axis, first)))
    return faces


def _with(box: Box, axis: int, span: slice) -> Box:
    z, y, x = (span if k == axis else part for k, part in enumerate(box))
    return z, y, x
