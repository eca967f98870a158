"""Evaluate: compare a segmentation with the truth, slice by slice."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.labels.metrics import MOST_CLASSES, Scores, check_classes, confusion, scores_of
from evenslice.labels.targets import unique_values
from evenslice.progress import Progress, silent
from evenslice.verbs.choices import VolumeLike, check_same_shape, check_threshold, parse_roi, volume_of
from evenslice.volume.array import Volume, crop

MASKS = {1, 255, 65535}
MOST_CLASSES_BESIDE_A_MASK = 32


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
        Class numbers, same shape. A mask of 0 and 255 (or 65535) counts as 0 and 1, here and in the prediction.
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
    check_threshold(threshold)
    if truth.meaning == "probabilities":
        raise BadInputError(
            f"{truth.source} holds probabilities, expected labels as the truth; give them second, and labels first"
        )
    foreground, guessed = _mask_values(prediction, truth, ignore)
    box = parse_roi(roi, truth.shape)
    prediction, truth = crop(prediction, box), crop(truth, box)
    table = np.zeros((MOST_CLASSES, MOST_CLASSES), np.int64)
    with progress("evaluating", truth.shape[0]) as step:
        for z in range(truth.shape[0]):
            guess = _classes(prediction, z, threshold, guessed)
            real = truth.slice_at(z)
            keep = np.ones(real.shape, bool) if ignore is None else real != ignore
            if foreground is not None:
                real = (real == foreground).astype(np.uint8)
            check_classes(real[keep], f"{truth.source} slice {z}")
            table += confusion(guess[keep], real[keep], MOST_CLASSES)
            step()
    return scores_of(table)


def _mask_values(prediction: Volume, truth: Volume, ignore: int | None) -> tuple[int | None, int | None]:
    """Return the value that means foreground in truth and prediction where they are masks, None where they are classes.

    Looked up in whole volumes, so that a box is read like the volume it lies in.
    """
    values = set(unique_values(truth, ignore)) - {0, ignore}
    real = values.pop() if len(values) == 1 and values <= MASKS else None
    if _is_probability(prediction):
        return real, None
    guesses = set(unique_values(prediction)) - {0}
    if real is not None and len(guesses) > MOST_CLASSES_BESIDE_A_MASK:
        raise BadInputError(
            f"{prediction.source} holds {len(guesses) + 1} values and {truth.source} a mask, expected a mask or a few classes; "
            "give probabilities as float from 0 to 1"
        )
    return real, guesses.pop() if len(guesses) == 1 and guesses <= MASKS else None


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
