"""One numbering for the objects of a whole volume, from what its boxes found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from evenslice.labels.objects import Local

WIDE_FROM = 2**32


def same_names(names: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Pair the local objects that have one name, each with the one before it; entry b of ``names`` is box b.

    Returns
    -------
    array
        (pairs, 4): box, local number, box, local number.
    """
    if not names:
        return np.zeros((0, 4), np.int64)
    box = np.repeat(np.arange(len(names)), [len(part) for part in names])
    number_there = np.concatenate([np.arange(1, len(part) + 1) for part in names])
    name = np.concatenate([part.astype(np.uint64) for part in names])
    order = np.argsort(name, kind="stable")
    nodes = np.stack([box[order], number_there[order]], axis=1)
    same = name[order][1:] == name[order][:-1]
    return np.concatenate([nodes[:-1][same], nodes[1:][same]], axis=1).astype(np.int64)


@dataclass(frozen=True)
class Numbering:
    """The final numbers 1..n of all objects, in raster order of their first voxels.

    Attributes
    ----------
    offsets
        Where each box's objects begin in ``table`` (boxes + 1,).
    table
        Final number of every local object, 0 for one that was dropped; uint32, or uint64 for very many.
    sizes
        Voxels of each final object (n,), int64.
    """

    offsets: NDArray[np.int64]
    table: NDArray[Any]
    sizes: NDArray[np.int64]

    @property
    def count(self) -> int:
        """How many objects there are."""
        return len(self.sizes)

    def numbers_of(self, box: int) -> NDArray[Any]:
        """Return the final number of each local label 0..n of a box: ``final = numbers_of(box)[labels]``."""
        own = self.table[self.offsets[box] : self.offsets[box + 1]]
        return np.concatenate([np.zeros(1, own.dtype), own])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return plain arrays for a file (``np.savez``)."""
        return {"offsets": self.offsets, "table": self.table, "sizes": self.sizes}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Numbering":
        """Take back what `to_arrays` gave."""
        return cls(arrays["offsets"], arrays["table"], arrays["sizes"])


def number(
    locals_: Sequence[Local], pairs: NDArray[np.int64], min_size: int = 1, wide_from: int = WIDE_FROM
) -> Numbering:
    """Join the local objects of all boxes and number what is left.

    Parameters
    ----------
    locals_
        What every box found, in the order of the boxes.
    pairs
        (pairs, 4): box, local number, box, local number of two that are one object; in any order, repeats allowed.
    min_size
        Objects of fewer voxels are dropped.
    wide_from
        With this many objects or more the table is uint64.

    Raises
    ------
    ValueError
        If a pair names an object that its box does not have.
    """
    offsets = np.cumsum([0, *(len(part.sizes) for part in locals_)], dtype=np.int64)
    nodes = int(offsets[-1])
    short = np.int32 if nodes <= np.iinfo(np.int32).max else np.int64  # scipy before 1.12 knows no longer ones here
    left, right = (_nodes(ends, offsets).astype(short) for ends in (pairs[:, :2], pairs[:, 2:]))
    joined = coo_array((np.ones(len(pairs), np.bool_), (left, right)), shape=(nodes, nodes))
    count, member = connected_components(joined, directed=False) if nodes else (0, np.zeros(0, np.int32))
    sizes, first = np.zeros(count, np.int64), np.full(count, np.iinfo(np.int64).max)
    np.add.at(sizes, member, np.concatenate([np.zeros(0, np.int64), *(part.sizes for part in locals_)]))
    np.minimum.at(first, member, np.concatenate([np.zeros(0, np.int64), *(part.first for part in locals_)]))
    kept = np.flatnonzero(sizes >= min_size)
    kept = kept[np.argsort(first[kept])]
    final = np.zeros(count, np.uint64 if len(kept) >= wide_from else np.uint32)
    final[kept] = np.arange(1, len(kept) + 1)
    return Numbering(offsets, final[member], sizes[kept])


def _nodes(ends: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn (box, local number) into one number for all boxes."""
    box, local = ends[:, 0], ends[:, 1]
    if len(ends) and (box.min() < 0 or box.max() >= len(offsets) - 1 or np.any(local < 1)):
        raise ValueError("a pair names a box or an object that does not exist")
    if np.any(local > np.diff(offsets)[box]):
        raise ValueError("a pair names an object that its box does not have")
    return offsets[box] + local - 1
