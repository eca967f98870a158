"""Evaluate: compare a segmentation with the truth, slice by slice."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.labels.metrics import MOST_CLASSES, Scores, check_classes, confusion, scores_of
from evenslice.labels.targets import unique_values
from evenslice.progress import Progress, silent
from evenslice.verbs.choices import VolumeLike, check_same_shape, parse_roi, volume_of
from evenslice.volume.array import Volume, crop


def evaluate(
    prediction: VolumeLike,
    truth: VolumeLike,
    *,
    threshold: float = 0.5,
    ignore: int | None = None,
    roi: str | None = None,
    progress: Progress = silent,
) -> Scores:
    """Compare a segmentation with the truth: Dice and IoU per class, averaged over the foreground classes of the truth.

    Parameters
    ----------
    prediction
        Class numbers, or probabilities of the foreground: floats 0..1, or uint8 that ``segment`` wrote as such.
    truth
        Class numbers, same shape. Labels of one foreground value, such as 0/255, count as 0/1.
    threshold
        Probability above which a voxel is foreground.
    ignore
        Truth label to leave out, or None.
    roi
        ``Z0:Z1,Y0:Y1,X0:X1``, None for all.
    progress
        How to show the progress.

    Returns
    -------
    Scores
        Dice, IoU, per class, and the number of voxels compared.

    Raises
    ------
    BadInputError
        If the shapes differ or a volume does not hold class numbers.
    """
    prediction, truth = volume_of(prediction), volume_of(truth)
    check_same_shape(truth, prediction)
    box = parse_roi(roi, truth.shape)
    prediction, truth = crop(prediction, box), crop(truth, box)
    foreground = _one_foreground(truth, ignore)
    guessed = None if _is_probability(prediction) else _one_foreground(prediction, None)
    table = np.zeros((MOST_CLASSES, MOST_CLASSES), np.int64)
    with progress("evaluating", truth.shape[0]) as step:
        for z in range(truth.shape[0]):
            guess = _classes(prediction, z, threshold, guessed if foreground is not None else None)
            real = truth.slice_at(z)
            keep = np.ones(real.shape, bool) if ignore is None else real != ignore
            if foreground is not None:
                real = (real == foreground).astype(np.uint8)
            check_classes(real[keep], f"{truth.source} slice {z}")
            table += confusion(guess[keep], real[keep], MOST_CLASSES)
            step()
    return scores_of(table)


def _one_foreground(labels: Volume, ignore: int | None) -> int | None:
    """Return the value of the foreground if there is just one beside 0, such as 255; else None."""
    values = [v for v in unique_values(labels) if v not in (0, ignore)]
    return values[0] if len(values) == 1 else None


def _is_probability(prediction: Volume) -> bool:
    return prediction.dtype.kind == "f" or prediction.meaning == "probabilities"


def _classes(prediction: Volume, z: int, threshold: float, foreground: int | None) -> NDArray[Any]:
    plane = prediction.slice_at(z)
    where = f"{prediction.source} slice {z}"
    if prediction.meaning == "probabilities":
        return (plane > threshold * 255).astype(np.uint8)
    if plane.dtype.kind == "f":
        if not (np.isfinite(plane).all() and plane.min() >= 0 and plane.max() <= 1):
            raise BadInputError(
                f"{where} holds {plane.min():g} to {plane.max():g}, expected probabilities from 0 to 1; give labels as whole numbers"
            )
        return (plane > threshold).astype(np.uint8)
    if foreground is not None:
        plane = (plane == foreground).astype(np.uint8)
    check_classes(plane, where)
    return plane
