"""Scores of a model on slices: segment them, and compare with what their labels mean."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from evenslice.labels.metrics import Scores, confusion, scores_of
from evenslice.labels.targets import Target
from evenslice.learn.patches import PatchSource
from evenslice.model.predict import classes_of
from evenslice.model.spec import Model
from evenslice.model.streaming import predict_slices
from evenslice.volume.array import Volume

Validation = Sequence[tuple[PatchSource, Sequence[int]]]


def validate(model: Model, validation: Validation, device: torch.device) -> Scores:
    """Segment some slices of each volume and compare them with their targets, all pixels together; labels to be ignored are left out."""
    tables = (
        _table(model, source.volume, source.labels, source.target, zs, device, source.ignore)
        for source, zs in validation
    )
    return _scores(tables)


def score_slices(
    model: Model,
    volume: Volume,
    labels: Volume,
    target: Target,
    zs: Sequence[int],
    device: torch.device,
    ignore: int | None = None,
) -> Scores:
    """Segment some slices of a volume and compare them with what the labels mean; the label ``ignore`` is left out."""
    return _scores([_table(model, volume, labels, target, zs, device, ignore)])


def _scores(tables: Iterable[NDArray[np.int64]]) -> Scores:
    return scores_of(np.sum(list(tables), axis=0))


def _table(
    model: Model,
    volume: Volume,
    labels: Volume,
    target: Target,
    zs: Sequence[int],
    device: torch.device,
    ignore: int | None,
) -> NDArray[np.int64]:
    size = max(2, model.spec.classes)
    table = np.zeros((size, size), np.int64)
    for z, probability in zip(zs, predict_slices(model, volume, zs, device), strict=True):
        guess = classes_of(torch.from_numpy(probability)[None])[0].numpy()
        plane = labels.slice_at(z)
        keep = np.ones(plane.shape, bool) if ignore is None else plane != ignore
        table += confusion(guess[keep], target.apply(plane)[keep], size)
    return table
