"""Scoring objects against true objects: one table of shared voxels, gathered box by box."""

import numpy as np

from evenslice.errors import BadInputError
from evenslice.labels.bands import bands, count_bands
from evenslice.labels.contingency import PairCounter, Pairs
from evenslice.labels.matching import match_objects
from evenslice.labels.metrics import Scores, scores_of
from evenslice.labels.partition import partition_scores
from evenslice.progress import Progress
from evenslice.volume.array import Volume


def object_scores(prediction: Volume, truth: Volume, ignore: int | None, progress: Progress) -> Scores:
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
