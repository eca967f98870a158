"""What ``segment`` wrote: the result, read again from its metadata, and windows to look at."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evenslice.errors import corrupt_metadata
from evenslice.evidence.window_view import WindowView
from evenslice.options import JsonObject, ScoresAs, SegmentOptions
from evenslice.volume.array import Volume, reorder_axes, swap_axis
from evenslice.volume.inputs import VolumeLike, parse_roi, spans_in, volume_of
from evenslice.volume.tiff_metadata import noted_provenance
from evenslice.volume.windows import middle, read_window

if TYPE_CHECKING:
    from evenslice.segmentation.plan import Plan

SEGMENTATION = Path("labels", "segmentation")
OF_THE_RUN = {"path", "complete", "blocks_left"}  # not in what the file says of itself


@dataclass(frozen=True)
class Segmented:
    """What a run did."""

    path: Path  # what was written
    complete: bool  # False for a shard that left work to others: nothing is under ``path`` yet
    blocks: int
    blocks_left: int = 0  # that others have still to do
    plan: "Plan | None" = None  # how it was done
    objects: int | None = None  # how many there are; None if none were asked for
    blank: dict[str, list[int]] = field(default_factory=dict)  # {section: [those shown instead]}
    trained_slices: list[list[int]] = field(default_factory=list)  # spans of what was written
    warnings: tuple[str, ...] = ()
    slices: int = 0  # S of the model
    provenance: JsonObject = field(default_factory=dict)

    def __fspath__(self) -> str:
        """Return the path, so that the result can be opened."""
        return str(self.path)

    def to_dict(self) -> JsonObject:
        """Return it as JSON can hold it (schema evenslice.segment/1)."""
        return {
            "schema": "evenslice.segment/1",
            "path": str(self.path),
            "complete": self.complete,
            "blocks_left": self.blocks_left,
            **self.metadata(),
        }

    def metadata(self) -> JsonObject:
        """Return what the file says of itself, as JSON can hold it."""
        found = {key: value for key, value in asdict(self).items() if key not in OF_THE_RUN}
        return found | {"warnings": list(self.warnings)}


def read_result(out: Path, request: JsonObject) -> Segmented | None:
    """Return the result that lies in a store or TIFF; None if it is not that of this request."""
    try:
        if out.is_dir():
            found = _attributes(out / "zarr.json")["evenslice"]
        else:
            provenance = noted_provenance(out)
            found = provenance.pop("result") | {"provenance": provenance}
        if found["request"] != json.loads(json.dumps(request)):
            return None
        names = {one.name for one in fields(Segmented)} - OF_THE_RUN
        kept = {name: found[name] for name in names}
        from evenslice.segmentation.plan import Plan

        typed = {"plan": Plan.from_dict(found["plan"]), "warnings": tuple(found["warnings"])}
        return Segmented(out, True, **kept | typed)
    except (KeyError, TypeError, ValueError):
        return None


def open_prediction(source: VolumeLike, as_: ScoresAs) -> Volume:
    """Open a prediction; of a store of ``segment`` its labels, or probabilities of one class."""
    if not isinstance(source, (str, Path)) or not Path(source, SEGMENTATION).is_dir():
        return volume_of(source)
    shape = _read(Path(source, "0", "zarr.json")).get("shape", ())  # (c, z, y, x)
    one = len(shape) == 3 or (len(shape) == 4 and shape[0] == 1)
    return volume_of(source if as_ == "semantic" and one else Path(source, SEGMENTATION))


def trained_spans(source: VolumeLike) -> list[tuple[int, int]]:
    """Return the spans [z0, z1) that the model was trained on, as a prediction's store says."""
    if not isinstance(source, (str, Path)):
        return []
    path = Path(source)
    for folder in (path, *path.parents[:2]):
        found = _attributes(folder / "zarr.json").get("evenslice")
        if isinstance(found, dict):
            try:
                return spans_in(found.get("trained_slices") or [])
            except (TypeError, ValueError) as error:
                raise corrupt_metadata(folder, error) from error
    return []


def training_warning(seen: Sequence[tuple[int, int]], slices: int) -> tuple[str, ...]:
    """Say so when some of the slices compared were trained on."""
    if not seen:
        return ()
    count = len({z for a, b in seen for z in range(a, b)})
    where = ", ".join(f"{a}:{b}" for a, b in seen)
    return (
        f"the model was trained on {count} of the {slices} slices compared (z {where}); its scores "
        "there say little about new data",
    )


def _attributes(path: Path) -> JsonObject:
    found = _read(path).get("attributes")
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> JsonObject:
    """Read a JSON object; empty where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def segmentation_views(
    volume: VolumeLike,
    result: Segmented,
    options: SegmentOptions | None = None,
    *,
    count: int = 6,
    side: int = 320,
) -> tuple[WindowView, ...]:
    """Read some windows of a segmentation: raw slices, and what was written for the middle one.

    At most ``count`` windows of at most ``side`` pixels, evenly spaced along the axis in
    ``options`` (those of ``segment``), in the middle of each slice. Predictions are objects where
    there are any, else probabilities of the foreground, else class numbers.
    """
    options = options or SegmentOptions()
    source, axis = volume_of(volume), options.axis
    box = reorder_axes(parse_roi(options.roi, source.shape), axis)
    written = open_prediction(result.path, "semantic" if result.objects is None else "instances")
    raw, found = swap_axis(source, axis), swap_axis(written, axis)
    scale = 255.0 if found.meaning == "probabilities" and found.dtype.kind == "u" else 1.0
    first, depth = box[0].start, box[0].stop - box[0].start
    y, x = (middle(part, side) for part in box[1:])
    there = [
        slice(part.start - whole.start, part.stop - whole.start)
        for part, whole in zip((y, x), box[1:], strict=True)
    ]
    views = []
    for n in range(min(count, depth)):
        z = (2 * n + 1) * depth // (2 * min(count, depth))
        prediction = found.read((slice(z, z + 1), there[0], there[1]))[0] / scale
        views.append(
            WindowView(
                label=result.path.name,
                origin=(first + z, y.start, x.start),
                slices=read_window(raw, first + z, result.slices, y, x),
                attribution=None,
                prediction=prediction.astype(np.float32),
                truth=None,
                voxel_nm=raw.voxel_nm,
            )
        )
    return tuple(views)
