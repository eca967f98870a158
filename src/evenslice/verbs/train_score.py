"""Scores of a model on slices, and some to look at: segment them, and compare with what their labels mean."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from evenslice.evidence.window_view import WindowView
from evenslice.labels.metrics import Scores, confusion, scores_of
from evenslice.labels.targets import Target
from evenslice.learn.patches import PatchSource
from evenslice.model.predict import classes_of
from evenslice.model.spec import Model
from evenslice.model.streaming import predict_slices
from evenslice.volume.array import Volume
from evenslice.volume.windows import read_window

SHOWN = 320  # pixels: side of what is kept to look at
Validation = Sequence[tuple[PatchSource, Sequence[int]]]


def validate(model: Model, validation: Validation, device: torch.device) -> Scores:
    """Segment some slices of each volume and compare them with their targets, all pixels together; labels to be ignored are left out."""
    tables = (
        _table(model, source.volume, source.labels, source.target, zs, device, source.ignore)
        for source, zs in validation
    )
    return _scores(tables)


def looks_at(
    model: Model, validation: Validation, device: torch.device, label: str, count: int
) -> tuple[WindowView, ...]:
    """Segment some validation slices of the first volume, evenly spaced, and keep the middle of each to look at."""
    source, zs = validation[0]
    chosen = [
        zs[n]
        for n in np.unique(np.linspace(0, len(zs) - 1, min(count, len(zs))).round().astype(int))
    ]
    y, x = (
        slice((n - min(n, SHOWN)) // 2, (n + min(n, SHOWN)) // 2) for n in source.volume.shape[1:]
    )
    looks = []
    for z, probability in zip(
        chosen, predict_slices(model, source.volume, chosen, device), strict=True
    ):
        guess = (
            probability[0]
            if len(probability) == 1
            else classes_of(torch.from_numpy(probability)[None])[0].numpy()
        )
        plane = source.labels.slice_at(z)
        truth = source.target.apply(plane).astype(np.int64)
        truth[np.zeros(plane.shape, bool) if source.ignore is None else plane == source.ignore] = -1
        looks.append(
            WindowView(
                label=label,
                origin=(z, y.start, x.start),
                slices=read_window(source.volume, z, model.slices, y, x),
                attribution=None,
                prediction=guess[y, x].astype(np.float32),
                truth=truth[y, x],
                voxel_nm=source.volume.voxel_nm,
            )
        )
    return tuple(looks)


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
