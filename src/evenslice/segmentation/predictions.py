"""What ``segment`` left in a prediction's file: which part of a store to compare, and which slices the model was trained on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evenslice.model.inputs import VolumeLike, volume_of
from evenslice.model.metadata import corrupt_metadata, spans_in
from evenslice.options import ScoresAs
from evenslice.volume.array import Volume

SEGMENTATION = Path("labels", "segmentation")


def open_prediction(source: VolumeLike, as_: ScoresAs) -> Volume:
    """Open a prediction; of a store of ``segment`` its labels, or for classes the probabilities where there is one class."""
    if not isinstance(source, (str, Path)):
        return volume_of(source)
    path = Path(source)
    if not (path / SEGMENTATION).is_dir():
        return volume_of(path)
    one = _channels(path) == 1
    return volume_of(path if as_ == "semantic" and one else path / SEGMENTATION)


def trained_spans(source: VolumeLike) -> list[tuple[int, int]]:
    """Return the spans [z0, z1) of a prediction that its model was trained on, as its store says; empty where nothing is said."""
    if not isinstance(source, (str, Path)):
        return []
    path = Path(source)
    for folder in (path, *path.parents[:2]):
        noted = _attributes(folder / "zarr.json").get("evenslice")
        if isinstance(noted, dict):
            try:
                return spans_in(noted.get("trained_slices") or [])
            except (TypeError, ValueError) as error:
                raise corrupt_metadata(folder, error) from error
    return []


def training_warning(seen: Sequence[tuple[int, int]], slices: int) -> tuple[str, ...]:
    """Say so when some of the slices compared were trained on."""
    if not seen:
        return ()
    number = len({z for a, b in seen for z in range(a, b)})
    where = ", ".join(f"{a}:{b}" for a, b in seen)
    return (
        f"the model was trained on {number} of the {slices} slices looked at (z {where}); its scores there say little about new data",
    )


def _channels(store: Path) -> int | None:
    """Return how many probabilities a voxel has in an OME-Zarr image (c, z, y, x), None where it is not to be seen."""
    shape = _read(store / "0" / "zarr.json").get("shape")
    return None if not isinstance(shape, list) else (shape[0] if len(shape) == 4 else 1)


def _attributes(path: Path) -> dict[str, Any]:
    found = _read(path).get("attributes")
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
