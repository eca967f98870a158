"""Segment: open, plan tiles, predict slice after slice, write."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.model.predict import classes_of
from evenslice.model.spec import Foreign, Model
from evenslice.model.streaming import normalisation_of, plan_slice, predict_slices
from evenslice.progress import Progress, Step, silent
from evenslice.verbs.choices import VolumeLike, check_threshold, device_of, parse_roi, volume_of
from evenslice.verbs.models import ModelLike, check_segments, model_of, normalised_by
from evenslice.volume.array import Volume
from evenslice.volume.files import check_volume_name
from evenslice.volume.tiff import write_tiff
from evenslice.volume.writing import check_writable

Output = Literal["labels", "probabilities"]
OUTPUTS: tuple[Output, ...] = ("labels", "probabilities")


def segment(
    model: ModelLike,
    volume: VolumeLike,
    out: str | Path,
    *,
    output: Output = "labels",
    threshold: float = 0.5,
    tile: int | None = None,
    tta: Literal["none", "reversal"] | None = None,
    roi: str | None = None,
    device: str = "auto",
    force: bool = False,
    progress: Progress = silent,
) -> Path:
    """Segment a volume slice by slice and write a TIFF stack of the same voxel size.

    Parameters
    ----------
    model
        A model or the path of a model file.
    volume
        A volume, an array (z, y, x) or a path.
    out
        Name ending in ``.tif``.
    output
        ``labels``: class numbers, uint8. ``probabilities``: of the foreground, uint8 with 255 for 1.
    threshold
        Probability above which a voxel is foreground, 0..1.
    tile
        Side of a tile with its halo in pixels; None for whole slices where they are not larger than 2048.
    tta
        ``reversal``: average over each window and its reversal; ``none``: do not; None: as the model's record says.
    roi
        ``Z0:Z1,Y0:Y1,X0:X1``, None for all.
    device, force, progress
        ``auto``, ``cpu`` or ``cuda``; whether to overwrite; how to show the progress.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    BadInputError
        If something given cannot be used; nothing is written then.
    """
    out = Path(out)
    check_volume_name(out)
    check_writable(out, force)
    model, volume = model_of(model), volume_of(volume)
    check_segments(model)
    _check_options(model, output, threshold)
    if isinstance(model.spec, Foreign):
        model = normalised_by(model, volume, 0)
    normalisation_of(model)
    model = model.with_tta(model.tta if tta is None else tta)
    box = parse_roi(roi, volume.shape)
    shape = tuple(part.stop - part.start for part in box)
    plan_slice(shape[1], shape[2], tile)
    where = device_of(device)
    model.module.eval().to(where)
    slices = predict_slices(model, volume, box, where, tile)
    with progress("segmenting", shape[0]) as step:
        meaning = "probabilities" if output == "probabilities" else "intensity"
        planes = _planes(slices, output, threshold, step)
        write_tiff(out, planes, (shape[0], shape[1], shape[2]), np.dtype(np.uint8), volume.voxel_nm, meaning)
    return out


def _check_options(model: Model, output: str, threshold: float) -> None:
    if output not in OUTPUTS:
        raise BadInputError(f"the output {output!r} is unknown, expected {' or '.join(OUTPUTS)}; choose one")
    if output == "probabilities" and model.spec.classes > 1:
        raise BadInputError(
            f"the model has {model.spec.classes} classes, expected one for probabilities in a TIFF; use --output labels"
        )
    check_threshold(threshold)
    if model.size is not None:
        raise BadInputError(
            f"the network takes {model.size[0]} x {model.size[1]} pixels only, expected one that takes any size; export it with "
            "dynamic height and width"
        )


def _planes(
    slices: Iterator[NDArray[np.float32]], output: Output, threshold: float, step: Step
) -> Iterator[NDArray[Any]]:
    for probability in slices:
        if output == "probabilities":
            yield np.rint(probability[0] * 255).astype(np.uint8)
        else:
            yield classes_of(torch.from_numpy(probability)[None], threshold)[0].numpy()
        step()


def predicted_classes(model: Model, volume: Volume, zs: list[int], device: torch.device) -> Iterator[NDArray[np.uint8]]:
    """Predict the classes (y, x) of some slices of a volume, one after the other."""
    box = parse_roi(None, volume.shape)
    for probability in predict_slices(model, volume, box, device, zs=zs):
        yield classes_of(torch.from_numpy(probability)[None])[0].numpy()
