"""How good a segmentation is: Dice and IoU per class, gathered slice by slice from one table of counts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError

MOST_CLASSES = 256


@dataclass(frozen=True)
class Scores:
    """Dice and IoU, as means over the foreground classes present in the truth, and per class.

    Attributes
    ----------
    dice, iou
        0..1; None when the truth holds no foreground.
    per_class
        For each foreground class its ``dice``, ``iou`` and voxel count in the truth.
    voxels
        How many voxels were compared.
    """

    dice: float | None
    iou: float | None
    per_class: dict[int, dict[str, float]]
    voxels: int

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as JSON can hold them (schema evenslice.scores/1)."""
        return {
            "schema": "evenslice.scores/1",
            "dice": self.dice,
            "iou": self.iou,
            "per_class": {str(key): value for key, value in self.per_class.items()},
            "voxels": self.voxels,
        }


def confusion(
    prediction: NDArray[Any], truth: NDArray[Any], classes: int, ignore: int | None = None
) -> NDArray[np.int64]:
    """Count voxels by class: entry (t, p) is how many of truth t were predicted p.

    Parameters
    ----------
    prediction, truth
        Class numbers 0..classes-1, same shape.
    classes
        Number of classes, background included.
    ignore
        Truth label to leave out.

    Raises
    ------
    ValueError
        If the shapes differ, or there are other numbers, which would be counted as something else.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"prediction of shape {prediction.shape}, expected {truth.shape} like the truth")
    truth, prediction = truth.ravel(), prediction.ravel()
    if ignore is not None:
        keep = truth != ignore
        truth, prediction = truth[keep], prediction[keep]
    for values in (truth, prediction):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(f"class numbers {values.min()} to {values.max()}, expected 0 to {classes - 1}")
    joint = truth.astype(np.int64) * classes + prediction.astype(np.int64)
    return np.bincount(joint, minlength=classes * classes).reshape(classes, classes)


def scores_of(table: NDArray[np.int64]) -> Scores:
    """Compute Dice = 2 TP / (2 TP + FP + FN) and IoU = TP / (TP + FP + FN) from a confusion table.

    Classes are averaged over the foreground classes present in the truth.
    """
    per_class: dict[int, dict[str, float]] = {}
    for label in range(1, len(table)):
        hit, of_truth, of_prediction = int(table[label, label]), int(table[label].sum()), int(table[:, label].sum())
        if of_truth == 0:
            continue
        per_class[label] = {
            "dice": 2 * hit / (of_truth + of_prediction),
            "iou": hit / (of_truth + of_prediction - hit),
            "voxels": of_truth,
        }
    if not per_class:
        return Scores(None, None, {}, int(table.sum()))
    mean = {key: float(np.mean([c[key] for c in per_class.values()])) for key in ("dice", "iou")}
    return Scores(mean["dice"], mean["iou"], per_class, int(table.sum()))


def check_classes(values: NDArray[Any], where: str) -> None:
    """Raise ``BadInputError`` unless the values can be class numbers: whole, not negative, below 256."""
    if values.dtype.kind == "f" and not np.all(values == np.floor(values)):
        raise BadInputError(
            f"{where} holds fractions, expected class numbers; give labels, or probabilities as float with --threshold"
        )
    if values.size and (values.min() < 0 or values.max() >= MOST_CLASSES):
        raise BadInputError(
            f"{where} holds values {values.min()} to {values.max()}, expected class numbers 0 to {MOST_CLASSES - 1}; give semantic labels"
        )
