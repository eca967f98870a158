"""Evaluate: compare a segmentation with the truth, box by box."""

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.labels.blocks import Band, bands, count_bands
from evenslice.labels.metrics import (
    MOST_CLASSES,
    BoundaryCounter,
    BoundaryScores,
    Scores,
    check_classes,
    confusion,
    scores_of,
)
from evenslice.labels.overlap import PairCounter, Pairs, match_objects, partition_scores
from evenslice.labels.targets import unique_values
from evenslice.model.inputs import (
    VolumeLike,
    check_same_shape,
    check_threshold,
    parse_roi,
    volume_of,
    voxel_warning,
)
from evenslice.model.provenance import provenance_of
from evenslice.options import ScoresAs
from evenslice.progress import Progress, silent
from evenslice.segmentation.predictions import open_prediction, trained_spans, training_warning
from evenslice.volume.array import Roi, Volume, crop

LOOKED_THROUGH = 2**32
MASKS = {1, 255, 65535}
MOST_CLASSES_BESIDE_A_MASK = 32
MANY_CLASSES = 32
MOST_VOXELS = 2**22  # of a box: counting takes some ten times their bytes


def class_scores(
    prediction: Volume,
    truth: Volume,
    box: Roi,
    threshold: float,
    ignore: int | None,
    tolerance: float,
    progress: Progress,
) -> Scores:
    """Compare classes within a box; what a mask means is looked up in the whole volume.

    Raises
    ------
    BadInputError
        If a volume does not hold class numbers or probabilities.
    """
    tally = _Tally(BoundaryCounter(tolerance), truth.source)
    read = _Reader(prediction, truth, threshold, ignore, box)
    with progress("evaluating", count_bands(read.truth.shape, MOST_VOXELS)) as step:
        for band in bands(read.truth.shape, tally.boundary.halo, MOST_VOXELS):
            guess, real, keep = read(band)
            for i, z in enumerate(range(band.z.start, band.z.stop)):
                tally.add(guess[i], real[i], None if keep is None else keep[i], band.inside)
                if band.rows.stop == read.truth.shape[1]:
                    tally.end_slice(box[0].start + z)
            step()
    return replace(
        tally.scores(), ignore=ignore, threshold=threshold if _is_probability(prediction) else None
    )


class _Tally:
    """Counts of the slice at hand and of all slices."""

    def __init__(self, boundary: BoundaryCounter, source: str) -> None:
        self.boundary = boundary
        self._source = source
        self._slice = np.zeros((MOST_CLASSES, MOST_CLASSES), np.int64)
        self._all = np.zeros_like(self._slice)
        self._per_slice: list[dict[str, float | None]] = []

    def add(
        self, guess: NDArray[Any], real: NDArray[Any], keep: NDArray[np.bool_] | None, rows: slice
    ) -> None:
        """Count a band of a slice (y, x), of which ``rows`` are new."""
        inner = slice(None) if keep is None else keep[rows]
        table = confusion(guess[rows][inner], real[rows][inner], MOST_CLASSES)
        self._slice += table
        present = np.flatnonzero(table.any(0) | table.any(1))
        self.boundary.add(guess, real, keep, rows, [int(number) for number in present if number])

    def end_slice(self, z: int) -> None:
        """Note the scores of the slice at hand."""
        found = scores_of(self._slice)
        self._per_slice.append({"z": z, "dice": found.dice, "iou": found.iou})
        self._all += self._slice
        self._slice[:] = 0

    def scores(self) -> Scores:
        """Return what was found in all slices."""
        found = scores_of(self._all)
        outlines = {number: self.boundary.score(number) for number in found.per_class}
        many = len(found.per_class)
        hint = f"{self._source} holds {many} classes; if these are objects, compare them with --as instances"
        return replace(
            found,
            boundary=BoundaryScores(self.boundary.tolerance, outlines),
            per_slice=tuple(self._per_slice),
            warnings=(hint,) if many > MANY_CLASSES else (),
        )


class _Reader:
    """Reads bands of both volumes as class numbers."""

    def __init__(
        self, prediction: Volume, truth: Volume, threshold: float, ignore: int | None, box: Roi
    ) -> None:
        self.prediction, self.truth = crop(prediction, box), crop(truth, box)
        whole = math.prod(truth.shape) <= LOOKED_THROUGH
        self._masks = _mask_values(
            *((prediction, truth) if whole else (self.prediction, self.truth)), ignore
        )
        self._threshold, self._ignore, self._first = threshold, ignore, box[0].start

    def __call__(self, band: Band) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_] | None]:
        """Return prediction and truth as classes (z, y, x), and which voxels to look at (None: all)."""
        span = f"slices {self._first + band.z.start}:{self._first + band.z.stop}"
        real = self.truth.read(band.box)
        keep = None if self._ignore is None else real != self._ignore
        foreground, guessed = self._masks
        if foreground is not None:
            real = (real == foreground).astype(np.uint8)
        elif keep is not None:
            real = np.where(keep, real, 0)
        check_classes(real, f"{self.truth.source} {span}")
        guess = _classes(
            self.prediction, self.prediction.read(band.box), self._threshold, guessed, span
        )
        return guess, real, keep


def _mask_values(
    prediction: Volume, truth: Volume, ignore: int | None
) -> tuple[int | None, int | None]:
    """Return the value that means foreground in truth and prediction where they are masks, None where they are classes.

    Looked up in whole volumes up to 2^32 voxels, so that a box is read like the volume it lies in; in the box of larger ones.
    """
    values = set(unique_values(truth, ignore, most=MOST_CLASSES)) - {0, ignore}
    if len(values) >= MOST_CLASSES:
        raise BadInputError(
            f"{truth.source} holds more than {MOST_CLASSES - 1} labels, expected class numbers 0 to {MOST_CLASSES - 1}; "
            "for objects use --as instances"
        )
    real = values.pop() if len(values) == 1 and values <= MASKS else None
    if _is_probability(prediction):
        return real, None
    guesses = set(unique_values(prediction, most=MOST_CLASSES)) - {0}
    if real is not None and len(guesses) > MOST_CLASSES_BESIDE_A_MASK:
        raise BadInputError(
            f"{prediction.source} holds {len(guesses) + 1} values and {truth.source} a mask, expected a mask or a few classes; "
            "give probabilities as float from 0 to 1"
        )
    return real, guesses.pop() if len(guesses) == 1 and guesses <= MASKS else None


def _is_probability(prediction: Volume) -> bool:
    return prediction.dtype.kind == "f" or prediction.meaning == "probabilities"


def _classes(
    prediction: Volume, values: NDArray[Any], threshold: float, foreground: int | None, span: str
) -> NDArray[Any]:
    where = f"{prediction.source} {span}"
    if values.dtype.kind == "f":
        low, high = values.min(), values.max()
        if not 0 <= low <= high <= 1:  # false for NaN, too
            raise BadInputError(
                f"{where} holds {low:g} to {high:g}, expected probabilities from 0 to 1; give labels as whole numbers"
            )
        return (values > threshold).astype(np.uint8)
    if prediction.meaning == "probabilities":
        return (values > threshold * 255).astype(np.uint8)
    if foreground is not None:
        values = (values == foreground).astype(np.uint8)
    check_classes(values, where)
    return values


def object_scores(
    prediction: Volume, truth: Volume, ignore: int | None, progress: Progress
) -> Scores:
    """Compare objects; ``ignore`` 0 is left out of the partition scores alone, another label of all.

    Raises
    ------
    BadInputError
        If a volume does not hold whole numbers, 0 or more.
    """
    _check_labels(prediction)
    _check_labels(truth)
    counter = PairCounter(ignore or None)
    with progress("evaluating", count_bands(truth.shape)) as step:
        for band in bands(truth.shape):
            where = f"{prediction.source} and {truth.source}, slices {band.z.start}:{band.z.stop}"
            counter.add(prediction.read(band.box), truth.read(band.box), where)
            step()
    pairs = counter.table()
    foreground = scores_of(_foreground(pairs))
    return Scores(
        dice=foreground.dice,
        iou=foreground.iou,
        per_class=foreground.per_class,
        voxels=pairs.voxels,
        as_="instances",
        ignore=ignore,
        partition=partition_scores(pairs.without(0) if ignore == 0 else pairs),
        matching=match_objects(pairs),
    )


def _foreground(pairs: Pairs) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Count voxels by whether truth and prediction are an object: entry (t, p)."""
    cell = 2 * (pairs.truth != 0) + (pairs.prediction != 0)
    table = [int(pairs.count[cell == number].sum()) for number in range(4)]
    return np.array(table, np.int64).reshape(2, 2)


def _check_labels(volume: Volume) -> None:
    if volume.meaning == "probabilities" or volume.dtype.kind == "f":
        raise BadInputError(
            f"{volume.source} holds {'probabilities' if volume.meaning == 'probabilities' else f'numbers of type {volume.dtype}'}, "
            "expected objects as whole numbers; give labels, for example of segment --instances components, or use --as semantic"
        )


AS: tuple[ScoresAs, ...] = ("semantic", "instances")
TOLERANCE = 2.0
MOST_TOLERANCE = 100


def evaluate(
    prediction: VolumeLike,
    truth: VolumeLike,
    *,
    as_: ScoresAs = "semantic",
    threshold: float = 0.5,
    ignore: int | Literal["auto"] | None = "auto",
    tolerance: float = TOLERANCE,
    roi: str | None = None,
    progress: Progress = silent,
) -> Scores:
    """Compare a segmentation with the truth, as classes or as objects; volumes are read in boxes of bounded size.

    Parameters
    ----------
    prediction
        Class numbers, or probabilities of the foreground: floats 0..1, or uint8 that ``segment`` wrote as such. For objects: their
        numbers. Of an OME-Zarr store of ``segment`` the fitting part is taken.
    truth
        Class numbers or objects, same shape. A mask of 0 and 255 (or 65535) counts as 0 and 1, here and in the prediction.
    as_
        ``semantic``: Dice, IoU and boundary F-score per class, averaged over the foreground classes of the truth; Dice and IoU per slice.
        ``instances``: adapted Rand error, variation of information, matched objects; Dice and IoU of all that is not label 0.
    threshold
        Probability above which a voxel is foreground.
    ignore
        Truth label to leave out, None for none; ``auto`` is none for classes and 0 for objects. For objects 0 is left out of the adapted
        Rand error and the variation of information alone (in matching and Dice it is background, where any object is wrong). Another
        label N replaces it: N is left out of every score, and the background 0 then counts as one more segment, as it does with None.
        A predicted 0 where the truth counts is a segment like any other for the adapted Rand error and the variation of information.
    tolerance
        How far an outline may lie from the true one, pixels within the slice, 0 to 100.
    roi
        ``Z0:Z1,Y0:Y1,X0:X1``, None for all.
    progress
        How to show the progress.

    Returns
    -------
    Scores
        The scores, the number of voxels compared, and what to know before believing them.

    Raises
    ------
    BadInputError
        If the shapes differ or a volume does not hold what it is taken for.
    """
    if as_ not in AS:
        raise BadInputError(
            f"scores as {as_!r} are unknown, expected semantic or instances; choose one"
        )
    check_threshold(threshold)
    _check_tolerance(tolerance)
    spans = trained_spans(prediction)
    prediction, truth = open_prediction(prediction, as_), volume_of(truth)
    check_same_shape(truth, prediction)
    if truth.meaning == "probabilities":
        raise BadInputError(
            f"{truth.source} holds probabilities, expected labels as the truth; give them second, and labels first"
        )
    box = parse_roi(roi, truth.shape)
    first, last = box[0].start, box[0].stop
    if as_ == "instances":
        left_out = 0 if ignore == "auto" else ignore
        found = object_scores(crop(prediction, box), crop(truth, box), left_out, progress)
    else:
        left_out = None if ignore == "auto" else ignore
        found = class_scores(prediction, truth, box, threshold, left_out, tolerance, progress)
    seen = tuple((max(a, first), min(b, last)) for a, b in spans if max(a, first) < min(b, last))
    warnings = (
        *found.warnings,
        *voxel_warning(prediction, truth),
        *training_warning(seen, last - first),
    )
    made = provenance_of(None, prediction=prediction, truth=truth)
    return replace(found, trained_slices=seen, warnings=warnings, provenance=made)


def _check_tolerance(tolerance: float) -> None:
    if not 0 <= tolerance <= MOST_TOLERANCE:
        raise BadInputError(
            f"the tolerance is {tolerance}, expected 0 to {MOST_TOLERANCE} pixels; use for example {TOLERANCE:g}"
        )
