"""Evaluate: compare a segmentation with the ground truth, box by box."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError, keeps_warnings
from evenslice.evidence.label_asymmetry import label_asymmetry
from evenslice.labels.blocks import Band, bands, count_bands
from evenslice.labels.components import number_components
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
from evenslice.labels.targets import IGNORED, Target, unique_values
from evenslice.model.provenance import provenance_of
from evenslice.options import EvaluateOptions
from evenslice.progress import Progress, silent
from evenslice.segmentation.result import open_prediction, trained_spans, training_warning
from evenslice.volume.array import Roi, Volume, Voxels, crop
from evenslice.volume.inputs import (
    VolumeLike,
    check_same_shape,
    parse_roi,
    volume_of,
    voxel_warning,
)

MOST_SEARCHED = 2**32  # voxels, to learn whether a volume is a mask
MASKS = {1, 255, 65535}
MOST_CLASSES_BESIDE_A_MASK = 32
MANY_CLASSES = 32
MOST_VOXELS = 2**22  # of a box: counting takes some ten times their bytes


@keeps_warnings
def evaluate(
    prediction: VolumeLike,
    truth: VolumeLike,
    options: EvaluateOptions | None = None,
    *,
    raw: VolumeLike | None = None,
    progress: Progress = silent,
    **changes: Any,
) -> Scores:
    """Compare a segmentation with the ground truth; volumes are read in boxes of bounded size.

    Parameters
    ----------
    prediction
        Class numbers, or probabilities of the foreground: floats 0..1, or uint8 that ``segment``
        wrote as such. For objects: their numbers. Of an OME-Zarr store of ``segment`` the fitting
        part is taken.
    truth
        Class numbers or objects, same shape. A mask of 0 and 255 (or 65535) counts as 0 and 1, here
        and in the prediction.
    options
        How; all defaults when None. Of classes: Dice, IoU and boundary F-score, averaged over the
        foreground classes of the ground truth; Dice and IoU per slice. Of objects: adapted Rand
        error, variation of information, matched objects; Dice and IoU of all that is not label 0.
        For objects ``ignore`` 0 is left out of the adapted Rand error and the variation of
        information alone; another label N is left out of every score, and the background 0 then
        counts as one more segment, as it does with None.
    raw
        The raw volume of the ground truth, same shape: measures how well the ground truth fits the
        slices before and after its own (``label_asymmetry``). Scores against labels that lag reward
        predictions that lag with them.
    progress
        How to show the progress.
    changes
        Fields of ``EvaluateOptions``, in place of those in ``options``.

    Returns
    -------
    Scores
        The scores, the number of voxels compared, and what to know before relying on them.

    Raises
    ------
    BadInputError
        If the shapes differ or a volume does not hold what it is taken for.

    Examples
    --------
    >>> truth = np.zeros((2, 32, 32), np.uint8)
    >>> truth[:, :16] = 1
    >>> evaluate(truth, truth).dice
    1.0
    """
    options = EvaluateOptions.of(options, changes)
    spans = trained_spans(prediction)
    guess, real = open_prediction(prediction, options.as_), volume_of(truth)
    real, place = _beneath(guess, real)
    check_same_shape(real, guess)
    read = {"prediction": guess, "truth": real}
    grey = None if raw is None else _beneath(guess, volume_of(raw))[0]
    if grey is not None:
        check_same_shape(grey, real)
    if real.meaning == "probabilities":
        raise BadInputError(
            f"{real.source} holds probabilities, expected labels as the ground truth; give them "
            "second, and labels first"
        )
    box = parse_roi(options.roi, real.shape)
    first, last = box[0].start, box[0].stop
    if options.as_ == "instances":
        ignore = 0 if options.ignore == "auto" else options.ignore
        inside = crop(guess, box), crop(real, box)
        found = _object_scores(*inside, ignore, options.components, progress)
    else:
        found = _class_scores(guess, real, box, options, progress)
    if grey is not None:
        read["raw"] = grey
        target = _target(found, None if options.ignore == "auto" else options.ignore)
        fit = label_asymmetry(crop(grey, box), crop(real, box), target)
        found = replace(found, truth_asymmetry=fit.to_dict())
    seen = tuple((max(a, first), min(b, last)) for a, b in spans if max(a, first) < min(b, last))
    warnings = (
        *found.warnings,
        *place,
        *voxel_warning(guess, real),
        *training_warning(seen, last - first),
    )
    provenance = provenance_of(None, **read)
    return replace(found, trained_slices=seen, warnings=warnings, provenance=provenance)


def _target(found: Scores, ignore: int | None) -> Target:
    """Return what the ground truth of some scores means."""
    if found.as_ == "instances":
        return Target("boundary", 1, ignore or None)
    several = len(found.per_class) > 1
    return (
        Target("classes", max(found.per_class) + 1, ignore)
        if several
        else Target("foreground", 1, ignore)
    )


def _beneath(prediction: Volume, truth: Volume) -> tuple[Volume, tuple[str, ...]]:
    """Return the part of the ground truth that lies where a prediction of a box (--roi) says."""
    starts = [round(a - b) for a, b in zip(prediction.origin, truth.origin, strict=True)]
    stops = [start + size for start, size in zip(starts, prediction.shape, strict=True)]
    inside = zip(starts, stops, truth.shape, strict=True)
    if prediction.shape == truth.shape or any(a < 0 or b > size for a, b, size in inside):
        return truth, ()
    if not any(prediction.origin):  # says nothing of a place
        return truth, ()
    z, y, x = (slice(*ends) for ends in zip(starts, stops, strict=True))
    box = ",".join(f"{part.start}:{part.stop}" for part in (z, y, x))
    said = f"{prediction.source} is the box {box} of {truth.source}, and is compared there"
    return crop(truth, (z, y, x)), (said,)


def _class_scores(
    prediction: Volume, truth: Volume, box: Roi, options: EvaluateOptions, progress: Progress
) -> Scores:
    """Compare classes within a box; what a mask means is searched in the whole volume."""
    boundary = BoundaryCounter(options.tolerance)
    total, table = np.zeros((2, MOST_CLASSES, MOST_CLASSES), np.int64)
    per_slice: list[dict[str, float | None]] = []
    read = _Reader(prediction, truth, box, options)
    shape = read.truth.shape
    with progress("evaluating", count_bands(shape, MOST_VOXELS)) as step:
        for band in bands(shape, boundary.halo, MOST_VOXELS):
            guess, real, keep = read(band)
            for i, z in enumerate(range(band.z.start, band.z.stop)):
                kept = None if keep is None else keep[i]
                rows, inner = band.inside, slice(None) if kept is None else kept[band.inside]
                found = confusion(guess[i][rows][inner], real[i][rows][inner], MOST_CLASSES)
                table += found
                present = [int(n) for n in np.flatnonzero(found.any(0) | found.any(1)) if n]
                boundary.add(guess[i], real[i], kept, rows, present)
                if band.rows.stop == shape[1]:
                    scores = scores_of(table)
                    row = {"z": box[0].start + z, "dice": scores.dice, "iou": scores.iou}
                    per_slice.append(row)
                    total += table
                    table[:] = 0
            step()
    scores = scores_of(total)
    outlines = {number: boundary.score(number) for number in scores.per_class}
    return replace(
        scores,
        boundary=BoundaryScores(boundary.tolerance, outlines),
        per_slice=tuple(per_slice),
        warnings=_class_warnings(total, read),
        ignore=read.ignore,
        threshold=options.threshold if _is_probability(prediction) else None,
    )


def _class_warnings(table: NDArray[np.int64], read: "_Reader") -> tuple[str, ...]:
    """Say what makes the scores of a table (ground truth, prediction) other than they seem."""
    real, guess = ({int(n) for n in np.flatnonzero(table.any(axis))} for axis in (1, 0))
    truth, prediction = read.truth.source, read.prediction.source
    if not real:
        return (f"every voxel compared has the ignored label {read.ignore} in {truth}",)
    if not real - {0}:
        return (f"{truth} holds no foreground in what is compared, so there are no scores",)
    if not guess - {0}:
        how = f" above the threshold {read.threshold:g}" if _is_probability(read.prediction) else ""
        return (f"{prediction} holds no foreground{how} in what is compared",)
    masks = read.masks[0], read.masks[1] or _is_probability(read.prediction)
    found = []
    if not (real & guess) - {0}:
        found.append(
            f"{prediction} holds the foreground {_listed(guess - {0}, read.masks[1])}, {truth} "
            f"{_listed(real - {0}, read.masks[0])}, expected the same numbers; renumber one of them"
        )
    elif (0 in real) != (0 in guess) and min(len(real), len(guess)) > 1:
        found.append(
            f"{prediction} holds {_listed(guess)}, {truth} {_listed(real)} in what is compared, "
            "expected 0 for background in both; renumber one of them"
        )
    elif IGNORED in real - guess and len(real - {0}) > 1:
        found.append(
            f"{truth} holds {IGNORED}, which is never predicted and counts as a class; if it marks "
            f"what is not annotated, give --ignore {IGNORED}"
        )
    elif (masks[0] and len(guess - {0}) > 1) or (masks[1] and len(real - {0}) > 1):
        found.append(
            f"{prediction} holds the foreground {_listed(guess - {0})}, {truth} "
            f"{_listed(real - {0})}, of which the scores compare equal numbers only; if these are "
            "objects, use --as instances (--components for a mask)"
        )
    if len(guess - real) > MANY_CLASSES:
        found.append(
            f"{prediction} holds {len(guess - real)} numbers that {truth} does not; if these are "
            "probabilities, give them as float from 0 to 1"
        )
    if len(real - {0}) > MANY_CLASSES:
        found.append(
            f"{truth} holds {len(real - {0})} classes; if these are objects, compare them with "
            "--as instances"
        )
    return tuple(found)


def _listed(numbers: set[int], mask: int | None = None) -> str:
    """Write numbers, or the one that a mask has for foreground."""
    some = sorted(numbers)[:8] if mask is None else [mask]
    return ", ".join(map(str, some)) + (", ..." if len(numbers) > 8 else "")


class _Reader:
    """Reads bands of both volumes as class numbers."""

    def __init__(
        self, prediction: Volume, truth: Volume, box: Roi, options: EvaluateOptions
    ) -> None:
        self.prediction, self.truth = crop(prediction, box), crop(truth, box)
        self.ignore = None if options.ignore == "auto" else options.ignore
        self.threshold, self._first = options.threshold, box[0].start
        # searched in the whole volume, so that a box is read like the volume it lies in
        whole = math.prod(truth.shape) <= MOST_SEARCHED
        searched = (prediction, truth) if whole else (self.prediction, self.truth)
        self.masks = _mask_values(*searched, self.ignore)

    def __call__(self, band: Band) -> tuple[Voxels, Voxels, NDArray[np.bool_] | None]:
        """Return prediction and ground truth as classes (z, y, x), and the voxels to compare."""
        span = f"slices {self._first + band.z.start}:{self._first + band.z.stop}"
        real, foreground = self.truth.read(band.box), self.masks[0]
        keep = None if self.ignore is None else real != self.ignore
        if foreground is not None:
            real = (real == foreground).astype(np.uint8)
        elif keep is not None:
            real = np.where(keep, real, 0)
        check_classes(real, f"{self.truth.source} {span}")
        return self._guessed(band, span), real, keep

    def _guessed(self, band: Band, span: str) -> Voxels:
        values, where = self.prediction.read(band.box), f"{self.prediction.source} {span}"
        foreground = self.masks[1]
        if values.dtype.kind == "f":
            low, high = values.min(), values.max()
            if not 0 <= low <= high <= 1:  # false for NaN, too
                raise BadInputError(
                    f"{where} holds {low:g} to {high:g}, expected probabilities from 0 to 1; "
                    "give labels as whole numbers"
                )
            return (values > self.threshold).astype(np.uint8)
        if self.prediction.meaning == "probabilities":
            return (values > self.threshold * 255).astype(np.uint8)
        if foreground is not None:
            values = (values == foreground).astype(np.uint8)
        check_classes(values, where)
        return values


def _mask_values(
    prediction: Volume, truth: Volume, ignore: int | None
) -> tuple[int | None, int | None]:
    """Return what means foreground in ground truth and prediction if they are masks, else None."""
    values = set(unique_values(truth, ignore, most=MOST_CLASSES)) - {0, ignore}
    if len(values) >= MOST_CLASSES:
        raise BadInputError(
            f"{truth.source} holds more than {MOST_CLASSES - 1} labels, expected class numbers "
            f"0 to {MOST_CLASSES - 1}; for objects use --as instances"
        )
    real = values.pop() if len(values) == 1 and values <= MASKS else None
    if _is_probability(prediction):
        return real, None
    guesses = set(unique_values(prediction, most=MOST_CLASSES)) - {0}
    if real is not None and len(guesses) > MOST_CLASSES_BESIDE_A_MASK:
        raise BadInputError(
            f"{prediction.source} holds {len(guesses) + 1} values and {truth.source} a mask, "
            "expected a mask or a few classes; give probabilities as float from 0 to 1"
        )
    return real, guesses.pop() if len(guesses) == 1 and guesses <= MASKS else None


def _is_probability(prediction: Volume) -> bool:
    return prediction.dtype.kind == "f" or prediction.meaning == "probabilities"


def _object_scores(
    prediction: Volume, truth: Volume, ignore: int | None, components: bool, progress: Progress
) -> Scores:
    """Compare objects; ``ignore`` 0 is left out of the partition scores alone, another of all."""
    for volume in (prediction, truth):
        if _is_probability(volume):
            raise BadInputError(
                f"{volume.source} holds {volume.meaning} of type {volume.dtype}, expected objects "
                "as whole numbers; give labels, for example of segment --instances components, or "
                "use --as semantic"
            )
    guesses, reals, left_out = prediction, truth, ignore or None
    if components:
        guesses, reals = _components(prediction, truth, left_out)
    known = reals is truth
    counter = PairCounter(left_out if known or left_out is None else -1)
    with progress("evaluating", count_bands(truth.shape)) as step:
        for band in bands(truth.shape):
            where = f"{prediction.source} and {truth.source}, slices {band.z.start}:{band.z.stop}"
            real = reals.read(band.box)
            if not known and left_out is not None:  # a component may have its number
                real = np.where(truth.read(band.box) == left_out, -1, real.astype(np.int64))
            counter.add(guesses.read(band.box), real, where)
            step()
    pairs = counter.table()
    cell = 2 * (pairs.truth != 0) + (pairs.prediction != 0)
    counts = [int(pairs.count[cell == number].sum()) for number in range(4)]
    foreground = scores_of(np.array(counts, np.int64).reshape(2, 2))
    return replace(
        foreground,
        voxels=pairs.voxels,
        as_="instances",
        ignore=ignore,
        partition=partition_scores(pairs.without(0) if ignore == 0 else pairs),
        matching=match_objects(pairs),
        warnings=_object_warnings(pairs, prediction.source, truth.source, components),
    )


def _components(prediction: Volume, truth: Volume, ignore: int | None) -> tuple[Volume, Volume]:
    """Give the components of those that are masks, of one foreground number, numbers."""
    found = []
    for volume in (prediction, truth):
        left_out = ignore if volume is truth else None
        values = sorted(set(unique_values(volume, left_out, most=3)) - {0, left_out})
        found.append(number_components(volume, values[0]) if len(values) == 1 else volume)
    if found[0] is prediction and found[1] is truth:
        raise BadInputError(
            f"--components was given, but neither {prediction.source} nor {truth.source} is a mask "
            "of one foreground number; leave it out"
        )
    return found[0], found[1]


def _object_warnings(
    pairs: Pairs, prediction: str, truth: str, components: bool
) -> tuple[str, ...]:
    """Say so where one side holds no object, or a mask takes the place of objects."""
    if not pairs.voxels:
        return ("every voxel compared has the ignored label",)
    sides = [(prediction, pairs.prediction), (truth, pairs.truth)]
    objects = [set(np.unique(numbers).tolist()) - {0} for _, numbers in sides]
    found = []
    for (source, _), here in zip(sides, objects, strict=True):
        if not here:
            found.append(f"{source} holds no objects in what is compared")
        elif not components and len(here) == 1 and (here <= MASKS or max(map(len, objects)) > 1):
            found.append(
                f"{source} holds 0 and {min(here)} only, so its whole foreground counts as one "
                "object; --components numbers its connected components"
            )
    return tuple(found)
