"""Windows of a segmentation to look at: raw slices, and what was written for the one in the middle."""

from typing import Literal

import numpy as np

from evenslice.evidence.window_view import WindowView
from evenslice.model.inputs import VolumeLike, parse_roi, volume_of
from evenslice.segmentation.predictions import open_prediction
from evenslice.segmentation.run import Segmented
from evenslice.volume.array import reorder_axes, swap_axis
from evenslice.volume.windows import read_window


def segmentation_looks(
    volume: VolumeLike,
    result: Segmented,
    *,
    roi: str | None = None,
    axis: Literal["z", "y", "x"] = "z",
    count: int = 6,
    side: int = 320,
) -> tuple[WindowView, ...]:
    """Read some windows, evenly spaced along the axis that was sliced along, in the middle of each slice.

    Parameters
    ----------
    volume
        What was segmented.
    result
        What ``segment`` returned, complete.
    roi, axis
        As they were given to ``segment``.
    count, side
        How many at most, and their side in pixels at most.

    Returns
    -------
    tuple of WindowView
        Predictions are objects where there are any, else probabilities of the foreground, else class numbers.
    """
    source = volume_of(volume)
    box = reorder_axes(parse_roi(roi, source.shape), axis)
    written = open_prediction(result.path, "semantic" if result.objects is None else "instances")
    raw, made = swap_axis(source, axis), swap_axis(written, axis)
    scale = 255.0 if made.meaning == "probabilities" and made.dtype.kind == "u" else 1.0
    span, depth = box[0], box[0].stop - box[0].start
    shown = min(count, depth)
    zs = [span.start + (2 * n + 1) * depth // (2 * shown) for n in range(shown)]
    y, x = (_middle(part, side) for part in box[1:])
    here = [
        slice(part.start - whole.start, part.stop - whole.start)
        for part, whole in zip((y, x), box[1:], strict=True)
    ]
    looks = []
    for z in zs:
        at = (slice(z - span.start, z - span.start + 1), here[0], here[1])
        looks.append(
            WindowView(
                label=result.path.name,
                origin=(z, y.start, x.start),
                slices=read_window(raw, z, result.slices, y, x),
                attribution=None,
                prediction=(made.read(at)[0] / scale).astype(np.float32),
                truth=None,
                voxel_nm=raw.voxel_nm,
            )
        )
    return tuple(looks)


def _middle(span: slice, side: int) -> slice:
    """Return the middle of a span, of ``side`` pixels at most."""
    size = min(side, span.stop - span.start)
    start = span.start + (span.stop - span.start - size) // 2
    return slice(start, start + size)
