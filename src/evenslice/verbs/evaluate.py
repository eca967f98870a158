"""Evaluate: compare a segmentation with the truth, box by box."""

from dataclasses import replace
from typing import Literal

from evenslice.errors import BadInputError
from evenslice.labels.metrics import Scores, ScoresAs
from evenslice.progress import Progress, silent
from evenslice.verbs.choices import VolumeLike, check_same_shape, check_threshold, parse_roi, volume_of, voxel_warning
from evenslice.verbs.predictions import open_prediction, trained_spans, training_warning
from evenslice.verbs.provenance import provenance_of
from evenslice.verbs.score_classes import class_scores
from evenslice.verbs.score_objects import object_scores
from evenslice.volume.array import check_bounded, crop

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
        raise BadInputError(f"scores as {as_!r} are unknown, expected semantic or instances; choose one")
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
    check_bounded([part.stop - part.start for part in box], truth.source, "choose a part of it with --roi")
    if as_ == "instances":
        left_out = 0 if ignore == "auto" else ignore
        found = object_scores(crop(prediction, box), crop(truth, box), left_out, progress)
    else:
        left_out = None if ignore == "auto" else ignore
        found = class_scores(prediction, truth, box, threshold, left_out, tolerance, progress)
    seen = tuple((max(a, first), min(b, last)) for a, b in spans if max(a, first) < min(b, last))
    warnings = (*found.warnings, *voxel_warning(prediction, truth), *training_warning(seen, last - first))
    made = provenance_of(None, prediction=prediction, truth=truth)
    return replace(found, trained_slices=seen, warnings=warnings, provenance=made)


def _check_tolerance(tolerance: float) -> None:
    if not 0 <= tolerance <= MOST_TOLERANCE:
        raise BadInputError(
            f"the tolerance is {tolerance}, expected 0 to {MOST_TOLERANCE} pixels; use for example {TOLERANCE:g}"
        )
