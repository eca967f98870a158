"""How good a segmentation is: Dice, IoU and boundary F-score per class, and all scores together."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.labels.blocks import Labels
from evenslice.labels.overlap import NOTHING, Matching, Partition
from evenslice.options import JsonObject, ScoresAs

MOST_CLASSES = 256
_Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class BoundaryScores:
    """Boundary F-scores 0..1 of the foreground classes, None for one without boundary.

    ``tolerance`` is in pixels within the slice.
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
    """Dice and IoU, as means and per class; for objects also how they agree.

    The means are over the foreground classes present in the ground truth, None without any; for
    objects they are those of all that is not label 0, as one class.
    """

    dice: float | None
    iou: float | None
    per_class: dict[int, dict[str, float]]  # ``dice``, ``iou`` and voxels in the ground truth
    voxels: int  # how many were compared: all but those of the ignored label
    as_: ScoresAs = "semantic"  # class numbers, or ``instances``: objects
    ignore: int | None = None  # label left out; for instances 0 is left out of ``partition`` only
    threshold: float | None = None  # of probabilities; None where labels were compared
    boundary: BoundaryScores | None = None
    per_slice: tuple[dict[str, float | None], ...] = ()  # ``z`` (of the whole volume), dice, iou
    partition: Partition = NOTHING
    matching: Matching | None = None
    truth_asymmetry: JsonObject | None = None  # how the ground truth fits its neighbours, if asked
    trained_slices: tuple[tuple[int, int], ...] = ()  # spans compared that the model trained on
    warnings: tuple[str, ...] = ()
    provenance: JsonObject = field(default_factory=dict)  # empty for scores within something else

    def _repr_html_(self) -> str:
        from evenslice.report.notebook import scores_html

        return scores_html(self)

    def plot(self) -> Any:
        """Draw Dice and IoU per class and slice, for objects F1 by threshold, with matplotlib."""
        from evenslice.report.notebook import scores_figure

        return scores_figure(self)

    def to_dict(self) -> JsonObject:
        """Return the scores as JSON takes them (evenslice.scores/1); null: not asked for."""
        outlines = {} if self.boundary is None else self.boundary.per_class
        no_matching = ("f1", "matching", "mean_matched_iou", "panoptic_quality", "objects")
        matching = self.matching.to_dict() if self.matching else dict.fromkeys(no_matching)
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
            **matching,
            "truth_asymmetry": self.truth_asymmetry,
            "trained_slices": [list(span) for span in self.trained_slices],
            "warnings": list(self.warnings),
            **({"provenance": dict(self.provenance)} if self.provenance else {}),
        }


def confusion(
    prediction: Labels, truth: Labels, classes: int, ignore: int | None = None
) -> NDArray[np.int64]:
    """Count voxels by class 0..classes-1: entry (t, p) is how many of truth t were predicted p.

    The ground truth label ``ignore`` is left out. Raises ``ValueError`` if there are other numbers,
    which would be counted as something else.
    """
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
    """Compute Dice = 2 TP / (2 TP + FP + FN) and IoU = TP / (TP + FP + FN) from a table."""
    per_class: dict[int, dict[str, float]] = {}
    for label in range(1, len(table)):
        hit, of_truth = int(table[label, label]), int(table[label].sum())
        both = of_truth + int(table[:, label].sum())
        if of_truth:
            iou = hit / (both - hit)
            per_class[label] = {"dice": 2 * hit / both, "iou": iou, "voxels": of_truth}
    if not per_class:
        return Scores(None, None, {}, int(table.sum()))
    mean = {key: float(np.mean([c[key] for c in per_class.values()])) for key in ("dice", "iou")}
    return Scores(mean["dice"], mean["iou"], per_class, int(table.sum()))


def check_classes(values: Labels, where: str) -> None:
    """Raise ``BadInputError`` unless the values are class numbers: whole, 0 to 255."""
    if values.dtype.kind == "f" and not np.all(values == np.floor(values)):
        raise BadInputError(
            f"{where} holds fractions, expected class numbers; give labels, or probabilities as "
            "float with --threshold"
        )
    if values.size and (values.min() < 0 or values.max() >= MOST_CLASSES):
        raise BadInputError(
            f"{where} holds values {values.min()} to {values.max()}, expected class numbers 0 to "
            f"{MOST_CLASSES - 1}; for objects use --as instances, else give one number per class"
        )


@dataclass
class BoundaryCounter:
    """The boundary F-score of classes within slices, gathered slice by slice.

    Csurka, Larlus, Perronnin 2013, "What is a good evaluation measure for semantic segmentation?",
    doi:10.5244/C.27.32: precision is the share of predicted boundary pixels with a true one within
    a tolerance, recall the share of true ones with a predicted one, F their harmonic mean. Here the
    pixels of all slices are counted together (there: a mean over images), so that slices without
    outlines need no rule. ``counts`` holds for each class: predicted boundary pixels that are near
    a true one, all predicted ones, true ones that are near a predicted one, all true ones.
    """

    tolerance: float  # largest Euclidean distance within the slice that counts as hit, pixels
    counts: dict[int, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def halo(self) -> int:
        """Rows beyond a band that decide about its own."""
        return math.floor(self.tolerance) + 1

    def add(
        self,
        prediction: NDArray[np.integer],
        truth: NDArray[np.integer],
        keep: _Mask | None,
        rows: slice,
        classes: list[int],
    ) -> None:
        """Count the boundary pixels of some classes in one slice (y, x), or in a band of it.

        Steps between pixels that are not to be compared (``keep``) are no boundary. Of the ``rows``
        counted, ``halo`` more should be given on each side where the slice goes on.
        """
        for number in classes:
            guess, real = outline(prediction == number, keep), outline(truth == number, keep)
            found = (guess[rows] & near(real, self.tolerance)[rows], guess[rows])
            missed = (real[rows] & near(guess, self.tolerance)[rows], real[rows])
            here = np.array([np.count_nonzero(marks) for marks in (*found, *missed)])
            self.counts[number] = self.counts.get(number, np.zeros(4, np.int64)) + here

    def score(self, number: int) -> float | None:
        """Return the F-score of a class; None where neither side has a boundary."""
        hit, guessed, recalled, real = (int(n) for n in self.counts.get(number, np.zeros(4)))
        if not guessed and not real:
            return None
        precision, recall = hit / max(guessed, 1), recalled / max(real, 1)
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def outline(mask: _Mask, keep: _Mask | None = None) -> _Mask:
    """Mark the pixels of a mask with one of 4 neighbours outside it; the rim is no boundary."""
    found = np.zeros_like(mask)
    down, right = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    if keep is not None:
        down &= keep[1:] & keep[:-1]
        right &= keep[:, 1:] & keep[:, :-1]
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= right
    found[:, :-1] |= right
    return found & mask


def near(marks: _Mask, tolerance: float) -> _Mask:
    """Mark the pixels with a mark within a Euclidean distance, in pixels.

    Each row is widened, then carried up and down: faster than a distance transform for the few
    pixels of a tolerance.
    """
    height = len(marks)
    found, wide, width = np.zeros_like(marks), marks.copy(), 0
    for step in range(min(math.floor(tolerance), height - 1), -1, -1):
        widest = math.floor(math.sqrt(tolerance**2 - step**2))
        while width < widest:
            width += 1
            wide[:, width:] |= marks[:, :-width]
            wide[:, :-width] |= marks[:, width:]
        found[step:] |= wide[: height - step]
        found[: height - step] |= wide[step:]
    return found
