"""How good a segmentation is: Dice and IoU per class from one table of counts, and all scores together as they are written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.labels.overlap import NOTHING, Matching, Partition
from evenslice.options import ScoresAs

MOST_CLASSES = 256


@dataclass(frozen=True)
class BoundaryScores:
    """Boundary F-scores (``labels/boundary.py``).

    Attributes
    ----------
    tolerance
        Pixels within the slice.
    per_class
        For each foreground class of the truth 0..1, or None where there is no boundary.
    """

    tolerance: float
    per_class: dict[int, float | None]

    @property
    def mean(self) -> float | None:
        """Mean over the classes that have one."""
        known = [score for score in self.per_class.values() if score is not None]
        return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class Scores:
    """Dice and IoU, as means over the foreground classes present in the truth, and per class; for objects also how they agree.

    Attributes
    ----------
    dice, iou
        0..1; None when the truth holds no foreground. For objects: of all that is not label 0, as one class.
    per_class
        For each foreground class its ``dice``, ``iou`` and voxel count in the truth.
    voxels
        How many voxels were compared: all but those of the label left out.
    as_
        What the labels were taken for: ``semantic`` (class numbers) or ``instances`` (objects).
    ignore
        Truth label left out, or None. For ``instances`` 0 is left out of ``partition`` alone.
    threshold
        Probability above which a voxel was foreground; None where labels were compared.
    boundary
        Boundary F-scores, or None.
    per_slice
        For each slice ``z`` (in the whole volume), ``dice`` and ``iou``.
    partition, matching
        Scores of objects, or None.
    trained_slices
        Spans [z0, z1) among the slices compared that the model was trained on.
    warnings
        What to know before believing the scores.
    provenance
        Command, seed, versions, and hashes of what was read; empty for scores that belong to something else.
    """

    dice: float | None
    iou: float | None
    per_class: dict[int, dict[str, float]]
    voxels: int
    as_: ScoresAs = "semantic"
    ignore: int | None = None
    threshold: float | None = None
    boundary: BoundaryScores | None = None
    per_slice: tuple[dict[str, float | None], ...] = ()
    partition: Partition = NOTHING
    matching: Matching | None = None
    trained_slices: tuple[tuple[int, int], ...] = ()
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        from evenslice.report.notebook import scores_html

        return scores_html(self)

    def plot(self) -> Any:
        """Draw Dice and IoU per class and slice, and for objects F1 at every threshold: a matplotlib figure."""
        from evenslice.report.notebook import scores_figure

        return scores_figure(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as JSON can hold them (schema evenslice.scores/1); what was not asked for is null."""
        outlines = {} if self.boundary is None else self.boundary.per_class
        matching = {
            "f1": None,
            "matching": None,
            "mean_matched_iou": None,
            "panoptic_quality": None,
            "objects": None,
        }
        return {
            "schema": "evenslice.scores/1",
            "as": self.as_,
            "dice": self.dice,
            "iou": self.iou,
            "per_class": {
                str(key): value | ({"boundary_f": outlines[key]} if key in outlines else {})
                for key, value in self.per_class.items()
            },
            "voxels": self.voxels,
            "ignore": self.ignore,
            "threshold": self.threshold,
            "boundary_f": None if self.boundary is None else self.boundary.mean,
            "tolerance": None if self.boundary is None else self.boundary.tolerance,
            "per_slice": list(self.per_slice),
            **self.partition.to_dict(),
            **(matching if self.matching is None else self.matching.to_dict()),
            "trained_slices": [list(span) for span in self.trained_slices],
            "warnings": list(self.warnings),
            **({"provenance": dict(self.provenance)} if self.provenance else {}),
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
        raise ValueError(
            f"prediction of shape {prediction.shape}, expected {truth.shape} like the truth"
        )
    truth, prediction = truth.ravel(), prediction.ravel()
    if ignore is not None:
        keep = truth != ignore
        truth, prediction = truth[keep], prediction[keep]
    for values in (truth, prediction):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(
                f"class numbers {values.min()} to {values.max()}, expected 0 to {classes - 1}"
            )
    joint = truth.astype(np.int64) * classes + prediction.astype(np.int64)
    return np.bincount(joint, minlength=classes * classes).reshape(classes, classes)


def scores_of(table: NDArray[np.int64]) -> Scores:
    """Compute Dice = 2 TP / (2 TP + FP + FN) and IoU = TP / (TP + FP + FN) from a confusion table.

    Classes are averaged over the foreground classes present in the truth.
    """
    per_class: dict[int, dict[str, float]] = {}
    for label in range(1, len(table)):
        hit, of_truth, of_prediction = (
            int(table[label, label]),
            int(table[label].sum()),
            int(table[:, label].sum()),
        )
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
            f"{where} holds values {values.min()} to {values.max()}, expected class numbers 0 to {MOST_CLASSES - 1}; "
            "for objects use --as instances, else give one number a class"
        )
