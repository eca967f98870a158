"""Connected components box by box: the same answer as on the whole volume, however it is cut."""

from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from evenslice.labels.boxes import Box, Face, Shape
from evenslice.labels.objects import Local, local_of
from evenslice.volume.array import Pixels


def label_box(classes: NDArray[Any], box: Box, shape: Shape) -> tuple[NDArray[np.uint32], Local]:
    """Label the components of equal class in one box.

    Voxels touch over faces (connectivity 6); class 0 is background.

    Parameters
    ----------
    classes
        Unsigned whole numbers or bool (z, y, x): the voxels of the box.
    box, shape
        Where the box lies, and the sizes of the whole volume.

    Returns
    -------
    labels, local
        Local numbers 1..n (z, y, x), uint32, 0 for background; their sizes and first voxels.

    Raises
    ------
    ValueError
        If the classes are not as large as the box, or not whole numbers.
    """
    sides = tuple(span.stop - span.start for span in box)
    if classes.shape != sides or classes.dtype.kind not in "bu":
        raise ValueError(f"classes {classes.dtype} of shape {classes.shape}, expected unsigned of {sides} like the box")
    # A copy where need be: cc3d 4.1.1 misreads strided views that are one voxel wide.
    whole = np.ascontiguousarray(classes)
    labels = np.asarray(cc3d.connected_components(whole, connectivity=6, out_dtype=np.uint32), np.uint32)
    return labels, local_of(labels, box, shape)


def touching(labels: Pixels, face: Face, classes: Pixels | None = None) -> NDArray[np.int64]:
    """Find the local objects that are one across a face; only the two facing planes are read.

    Parameters
    ----------
    labels
        Local labels of all boxes (z, y, x), as `label_box` gave them: an array or anything sliced like one.
    face
        The two boxes.
    classes
        The classes, same shape; may be left out where there is one class only.

    Returns
    -------
    array
        (pairs, 4): box, local number, box, local number; each pair once.
    """
    here, there = np.asarray(labels[face.plane]), np.asarray(labels[face.facing])
    both = (here != 0) & (there != 0)
    if classes is not None:
        both &= np.asarray(classes[face.plane]) == np.asarray(classes[face.facing])
    met = np.unique(np.stack([here[both], there[both]], axis=1).astype(np.int64), axis=0)
    return np.insert(met, [0, 1], [face.box, face.other], axis=1)
