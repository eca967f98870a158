"""Windows: the S consecutive slices that a 2D+ model sees at once."""

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume, Voxels

MOST_SLICES = 9


def check_slices(slices: int) -> int:
    """Return ``slices`` if it is odd, 1 to 9; else raise ``BadInputError``."""
    if slices % 2 == 0 or not 1 <= slices <= MOST_SLICES:
        raise BadInputError(
            f"{slices} slices were asked for, expected an odd number from 1 to {MOST_SLICES}: the "
            "centre slice and as many neighbours on each side; use for example 3"
        )
    return slices


def neighbours(z: int, slices: int, depth: int, source: str = "the volume") -> NDArray[np.intp]:
    """Return the S slice numbers of the window centred on ``z``, in slot order.

    At the ends of the volume z is reflected about the end slice: z = -1 becomes 1. Raises
    ``BadInputError`` if there are fewer than (S + 1) / 2 slices: there is nothing to reflect.
    """
    reach = slices // 2
    if depth < reach + 1:
        raise BadInputError(
            f"{source} has {depth} slices, expected at least {reach + 1} for windows of {slices}; "
            "use fewer slices"
        )
    last = depth - 1
    index = np.abs(np.arange(z - reach, z + reach + 1))
    return np.where(index > last, 2 * last - index, index)


def inner_centres(slices: int, depth: int) -> range:
    """Return the centre slices whose windows lie wholly inside the volume."""
    reach = slices // 2
    return range(reach, depth - reach)


def read_window(volume: Volume, z: int, slices: int, y: slice, x: slice) -> Voxels:
    """Read the window (S, y, x) around slice ``z``, of the volume's own type, ends reflected."""
    index = neighbours(z, slices, volume.shape[0], volume.source)
    low, high = int(index.min()), int(index.max()) + 1
    block = volume.read((slice(low, high), y, x))
    return np.ascontiguousarray(block[index - low])


def reverse(window: Voxels) -> Voxels:
    """Return the same raw window with its slices in opposite order. Slots are axis -3."""
    return np.ascontiguousarray(np.flip(window, axis=-3))


def middle(span: slice, side: int) -> slice:
    """Return the middle of a span, of ``side`` pixels at most."""
    size = min(side, span.stop - span.start)
    start = span.start + (span.stop - span.start - size) // 2
    return slice(start, start + size)
