"""Predicting slice after slice of a volume, through tiles, so that memory does not grow with the volume."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.model.predict import logits_of, probabilities_of
from evenslice.model.spec import Model
from evenslice.volume.array import Roi, Volume
from evenslice.volume.normalisation import Normalisation, check_finite
from evenslice.volume.tiles import Tile, plan_tiles
from evenslice.volume.windows import read_window

WHOLE = 2048
TILE = 1024
HALO = 96
SMALLEST_TILE = 32


def predict_slices(
    model: Model,
    volume: Volume,
    roi: Roi,
    device: torch.device,
    tile: int | None = None,
    zs: Sequence[int] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Predict the slices of a box, one after the other.

    Parameters
    ----------
    model
        Already on ``device`` and in eval mode.
    volume
        Read through windows; the neighbours of the box's first and last slice lie in the volume.
    roi
        Box (z, y, x) with plain starts and stops.
    tile
        Side of a tile with its halo, pixels; None for whole slices where they are not larger than 2048.
    zs
        Slices to predict; all of the box when None.

    Yields
    ------
    array
        Probabilities (C, y, x) of one slice of the box.
    """
    _, ys, xs = roi
    height, width = ys.stop - ys.start, xs.stop - xs.start
    plan = plan_slice(height, width, tile)
    for z in zs if zs is not None else range(roi[0].start, roi[0].stop):
        out = np.empty((model.spec.classes, height, width), np.float32)
        for part in plan:
            out[(slice(None), *part.core)] = _predict_tile(model, volume, z, part, (ys.start, xs.start), device)
        yield out


def plan_slice(height: int, width: int, tile: int | None) -> list[Tile]:
    """Plan the tiles of one slice: whole where it fits, else with a halo."""
    if tile is not None and tile < SMALLEST_TILE:
        raise BadInputError(f"--tile is {tile}, expected {SMALLEST_TILE} pixels or more; leave it out for whole slices")
    if tile is None:
        tile = WHOLE if max(height, width) <= WHOLE else TILE
    return plan_tiles(height, width, tile, min(HALO, tile // 4))


def _predict_tile(
    model: Model, volume: Volume, z: int, part: Tile, origin: tuple[int, int], device: torch.device
) -> NDArray[np.float32]:
    place = tuple(slice(s.start + o, s.stop + o) for s, o in zip(part.read, origin, strict=True))
    raw = read_window(volume, z, model.slices, place[0], place[1])
    check_finite(raw, f"{volume.source} around slice {z}")
    with torch.inference_mode():
        x = torch.from_numpy(normalisation_of(model).apply(raw[None])).to(device)
        probability = probabilities_of(logits_of(model.module, x, model.stride))[0]
    found: NDArray[Any] = probability[(slice(None), *part.inside)].cpu().numpy()
    return found


def normalisation_of(model: Model) -> Normalisation:
    """Return a model's normalisation, or raise ``BadInputError`` if it was never trained."""
    if model.normalisation is None:
        raise BadInputError(
            "the model has no normalisation yet, expected a trained model; train it, or give mean and std"
        )
    return model.normalisation
