"""The objects of one box: its own numbers 1..n, sizes, first voxels.

Pairs then say which local objects of two boxes are one, and `evenslice.labels.numbering` joins them: what it needs to
know grows with the number of objects, never with the volume.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenslice.labels.boxes import Box, Shape


@dataclass(frozen=True)
class Local:
    """The objects of one box, numbered 1..n there; entry i is object i + 1.

    Attributes
    ----------
    sizes
        Voxels of each (n,), int64.
    first
        Its first voxel in the raster order z, y, x of the whole volume (n,), int64.
    """

    sizes: NDArray[np.int64]
    first: NDArray[np.int64]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return plain arrays for a file (``np.savez``)."""
        return {"sizes": self.sizes, "first": self.first}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Local":
        """Take back what `to_arrays` gave."""
        return cls(arrays["sizes"], arrays["first"])


def local_of(labels: NDArray[np.uint32], box: Box, shape: Shape) -> Local:
    """Measure the objects of a box.

    Parameters
    ----------
    labels
        Local labels (z, y, x) of the box, 0 for background, every number 1..n present.
    box, shape
        Where the box lies, and the sizes of the whole volume.
    """
    sizes = np.bincount(labels.ravel(), minlength=1)[1:].astype(np.int64)
    return Local(sizes, _into_volume(_first_of_each(labels)[1], labels.shape, box, shape))


def compact(labels: NDArray[Any], box: Box, shape: Shape) -> tuple[NDArray[np.uint32], Local, NDArray[Any]]:
    """Renumber any labels of a box as 1..n, in rising order, for `numbering.number`.

    Returns
    -------
    labels, local, names
        The local labels (z, y, x), its objects, and the old name of each (n,): equal names in other boxes are the
        same object, see `numbering.same_names`.
    """
    renumbered, names = renumber(labels)
    return renumbered, local_of(renumbered, box, shape), names


def renumber(labels: NDArray[Any]) -> tuple[NDArray[np.uint32], NDArray[Any]]:
    """Turn any labels, 0 for background, into 1..n in rising order; return them and the old name of each (n,)."""
    names, _ = _first_of_each(labels)
    renumbered = (np.searchsorted(names, labels) + 1).astype(np.uint32)
    renumbered[labels == 0] = 0
    return renumbered, names


def _first_of_each(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the labels present without 0, rising, and the flat index of the first voxel of each."""
    flat = labels.ravel()
    # Only where a run begins: far fewer entries to sort than voxels.
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, flat.size), bool), flat[1:] != flat[:-1]]))
    values, where = np.unique(flat[starts], return_index=True)
    foreground = values != 0
    return values[foreground], starts[where[foreground]].astype(np.int64)


def _into_volume(flat: NDArray[np.int64], size: tuple[int, ...], box: Box, shape: Shape) -> NDArray[np.int64]:
    """Turn flat indices of a box into flat indices of the volume (int64, also where the platform's are shorter)."""
    z, y, x = (part.astype(np.int64) + span.start for part, span in zip(np.unravel_index(flat, size), box, strict=True))
    return np.asarray((z * shape[1] + y) * shape[2] + x, np.int64)
