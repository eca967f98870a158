"""Connected components box by box: the same answer as on the whole volume, however it is cut."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from evenslice.labels.blocks import Box, Face, Labels, Shape, bands, faces_of
from evenslice.volume.array import Pixels, Volume

WIDE_FROM = 2**32


@dataclass(frozen=True)
class Local:
    """The objects of one box, numbered 1..n there; entry i is object i + 1."""

    sizes: NDArray[np.int64]  # voxels of each (n,)
    first: NDArray[np.int64]  # its first voxel in the raster order of the whole volume (n,)


def local_of(labels: NDArray[np.uint32], box: Box, shape: Shape) -> Local:
    """Measure the objects of a box of a volume of sizes ``shape``.

    Its labels (z, y, x) are 0 for background and 1..n, each number present.
    """
    sizes = np.bincount(labels.ravel(), minlength=1)[1:].astype(np.int64)
    return Local(sizes, _into_volume(_first_of_each(labels)[1], labels.shape, box, shape))


def compact(labels: Labels, box: Box, shape: Shape) -> tuple[NDArray[np.uint32], Local, Labels]:
    """Renumber any labels of a box as 1..n, in rising order, for `number`.

    Return the local labels (z, y, x), its objects, and the old name of each (n,): equal names in
    other boxes are the same object, see `same_names`.
    """
    renumbered, names = renumber(labels)
    return renumbered, local_of(renumbered, box, shape), names


def renumber(labels: Labels) -> tuple[NDArray[np.uint32], Labels]:
    """Turn any labels, 0 for background, into 1..n in rising order; return also the old names."""
    names, _ = _first_of_each(labels)
    renumbered = (np.searchsorted(names, labels) + 1).astype(np.uint32)
    renumbered[labels == 0] = 0
    return renumbered, names


def _first_of_each(labels: Labels) -> tuple[Labels, NDArray[np.int64]]:
    """Return the labels present without 0, rising, and the flat index of each one's first voxel."""
    flat = labels.ravel()
    # Only where a run begins: far fewer entries to sort than voxels.
    starts = np.flatnonzero(
        np.concatenate([np.ones(min(1, flat.size), bool), flat[1:] != flat[:-1]])
    )
    values, where = np.unique(flat[starts], return_index=True)
    foreground = values != 0
    return values[foreground], starts[where[foreground]].astype(np.int64)


def _into_volume(
    flat: NDArray[np.int64], size: tuple[int, ...], box: Box, shape: Shape
) -> NDArray[np.int64]:
    """Turn flat indices of a box into flat indices of the volume."""
    z, y, x = (
        part.astype(np.int64) + span.start
        for part, span in zip(np.unravel_index(flat, size), box, strict=True)
    )
    return np.asarray((z * shape[1] + y) * shape[2] + x, np.int64)


def same_names(names: Sequence[Labels]) -> NDArray[np.int64]:
    """Pair local objects of one name, each with the one before it; entry b of ``names`` is box b.

    Return (pairs, 4): box, local number, box, local number.
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
    """The final numbers 1..n of all objects, in raster order of their first voxels."""

    offsets: NDArray[np.int64]  # where each box's objects begin in ``table`` (boxes + 1,)
    table: Labels  # final number of every local object, 0 if dropped; uint32, uint64 for very many
    sizes: NDArray[np.int64]  # voxels of each final object (n,)

    @property
    def count(self) -> int:
        """How many objects there are."""
        return len(self.sizes)

    def numbers_of(self, box: int) -> Labels:
        """Return the final numbers of the local labels 0..n: ``numbers_of(box)[labels]``."""
        own = self.table[self.offsets[box] : self.offsets[box + 1]]
        return np.concatenate([np.zeros(1, own.dtype), own])


def number(
    locals_: Sequence[Local],
    pairs: NDArray[np.int64],
    min_size: int = 1,
    wide_from: int = WIDE_FROM,
) -> Numbering:
    """Join the local objects of all boxes, and number those of ``min_size`` voxels or more.

    Each row of ``pairs`` (pairs, 4), in any order, holds box, local number, box, local number of
    two that are one object. From ``wide_from`` objects on the table is uint64.
    """
    offsets = np.cumsum([0, *(len(part.sizes) for part in locals_)], dtype=np.int64)
    nodes = int(offsets[-1])
    left, right = (offsets[ends[:, 0]] + ends[:, 1] - 1 for ends in (pairs[:, :2], pairs[:, 2:]))
    joined = coo_array((np.ones(len(pairs), np.bool_), (left, right)), shape=(nodes, nodes))
    count, member = connected_components(joined, directed=False)
    sizes, first = np.zeros(count, np.int64), np.full(count, np.iinfo(np.int64).max)
    if locals_:
        np.add.at(sizes, member, np.concatenate([part.sizes for part in locals_]))
        np.minimum.at(first, member, np.concatenate([part.first for part in locals_]))
    kept = np.flatnonzero(sizes >= min_size)
    kept = kept[np.argsort(first[kept])]
    final = np.zeros(count, np.uint64 if len(kept) >= wide_from else np.uint32)
    final[kept] = np.arange(1, len(kept) + 1)
    return Numbering(offsets, final[member], sizes[kept])


def label_box(classes: Labels, box: Box, shape: Shape) -> tuple[NDArray[np.uint32], Local]:
    """Label the components of equal class, unsigned or bool (z, y, x), in one box of a volume.

    Voxels touch over faces (connectivity 6); class 0 is background. Return local numbers 1..n
    (z, y, x), 0 for background, and their sizes and first voxels.
    """
    # A copy where need be: cc3d 4.1.1 misreads strided views that are one voxel wide.
    whole = np.ascontiguousarray(classes)
    labels = np.asarray(
        cc3d.connected_components(whole, connectivity=6, out_dtype=np.uint32), np.uint32
    )
    return labels, local_of(labels, box, shape)


def touching(
    labels: Pixels, face: Face, classes: Callable[[Box], Labels] | None = None
) -> NDArray[np.int64]:
    """Find the local objects that are one across a face; only its two planes are read.

    ``labels`` are the local labels of all boxes (z, y, x), as `label_box` gave them; ``classes``
    reads the classes of a box, and may be left out where there is one class only. Each pair is
    returned once, (pairs, 4): box, local number, box, local number.
    """
    here, there = np.asarray(labels[face.plane]), np.asarray(labels[face.facing])
    both = (here != 0) & (there != 0)
    if classes is not None:
        both &= classes(face.plane) == classes(face.facing)
    met = np.unique(np.stack([here[both], there[both]], axis=1).astype(np.int64), axis=0)
    return np.insert(met, [0, 1], [face.box, face.other], axis=1)


def number_components(volume: Volume, label: int) -> Volume:
    """Give every connected component of a label a number 1..n, the rest 0; in a scratch file."""
    shape = volume.shape
    boxes: list[Box] = [(band.z, band.rows, slice(0, shape[2])) for band in bands(shape)]
    with tempfile.TemporaryFile() as file:
        labels = np.memmap(file, np.uint32, "w+", shape=shape)
    locals_ = []
    for box in boxes:
        labels[box], local = label_box(volume.read(box) == label, box, shape)
        locals_.append(local)
    joints = [touching(labels, face) for face in faces_of(boxes)]
    numbering = number(locals_, np.concatenate([np.zeros((0, 4), np.int64), *joints]))
    for n, box in enumerate(boxes):
        labels[box] = numbering.numbers_of(n)[labels[box]]
    return replace(volume, pixels=labels)
