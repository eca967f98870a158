"""What a verb accepts as volumes: paths and arrays, parts of them, and whether they fit."""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from evenslice.errors import BadInputError
from evenslice.volume.address import is_remote
from evenslice.volume.array import Roi, Volume, Voxels, as_volume
from evenslice.volume.files import open_volume, split_container
from evenslice.volume.zarr_reader import in_store

VolumeLike = Volume | Voxels | str | Path
HASHED_SIDE, REMOTE_SIDE = 4096, 64
MOST_SLICES = 10_000_000  # of a volume that was trained on
SPAN = re.compile(r"\s*(\d{0,18})\s*:\s*(\d{0,18})\s*")


def volume_of(source: VolumeLike) -> Volume:
    """Open a path, or take a volume or array as it is."""
    return open_volume(source) if isinstance(source, (str, Path)) else as_volume(source)


def check_same_shape(volume: Volume, labels: Volume) -> None:
    """Raise ``BadInputError`` unless labels lie voxel for voxel on the volume."""
    if volume.shape != labels.shape:
        todo = "give labels of the same volume"
        if sorted(volume.shape) == sorted(labels.shape):
            moved = [
                name for name, a, b in zip("zyx", volume.shape, labels.shape, strict=True) if a != b
            ]
            todo = f"the axes {' and '.join(moved)} seem to be exchanged: transpose one of them"
        raise BadInputError(
            f"{labels.source} has shape {labels.shape}, expected {volume.shape} like "
            f"{volume.source}; {todo}"
        )


def voxel_warning(volume: Volume, other: Volume) -> tuple[str, ...]:
    """Warn if two volumes that lie on each other state voxel sizes that differ by more than 1 %."""
    one, two = volume.voxel_nm, other.voxel_nm
    if one is None or two is None or np.allclose(one, two, rtol=0.01, atol=0):
        return ()
    sizes = [" x ".join(f"{side:g}" for side in size) for size in (one, two)]
    return (
        f"{volume.source} has voxels of {sizes[0]} nm, {other.source} of {sizes[1]} nm (z, y, x), "
        "expected the same; check them, or resample one of the two",
    )


def check_apart(out: Path, *inputs: Any) -> None:
    """Raise ``BadInputError`` if the result would lie in, on or around something that is read."""
    target = out.resolve()
    for source in inputs:
        if not isinstance(source, (str, Path)) or is_remote(source):
            continue
        for part in (str(source), str(source).partition("@")[2], str(split_container(source)[0])):
            place = Path(part).resolve()
            inside = place in target.parents and in_store(place)
            if part and (place == target or target in place.parents or inside):
                raise BadInputError(
                    f"{out} is read by this command ({source}), expected a place of its own; "
                    "choose another name"
                )


def parse_span(text: str, size: int, name: str) -> slice:
    """Read ``A:B`` as a slice of an axis of ``size`` voxels; a missing end is that of the axis."""
    found = SPAN.fullmatch(text)
    if found is None:
        raise BadInputError(
            f"{name} is {text[:60]!r}, expected START:STOP in voxels such as 0:10; write it so"
        )
    start, stop = int(found[1] or 0), int(found[2] or size)
    if not 0 <= start < stop <= size:
        raise BadInputError(f"{name} is {text!r}, expected a part of 0:{size}; choose one inside")
    return slice(start, stop)


def parse_roi(text: str | None, shape: tuple[int, int, int]) -> Roi:
    """Read ``Z0:Z1,Y0:Y1,X0:X1`` as a box of a volume; None is all of it."""
    parts = [":", ":", ":"] if text is None else text.split(",")
    if len(parts) != 3:
        raise BadInputError(
            f"--roi is {str(text)[:60]!r}, expected Z0:Z1,Y0:Y1,X0:X1 in voxels; write it so"
        )
    spans = zip(parts, shape, "zyx", strict=True)
    z, y, x = (parse_span(part, size, f"--roi along {axis}") for part, size, axis in spans)
    return z, y, x


def fingerprint(volume: Volume, side: int = HASHED_SIDE) -> str:
    """Return a short hash of a volume's shape, type and three slices, to recognise it again.

    At most ``side`` squared of each slice, 64 of what lies on a server: its chunks are large.
    """
    side = REMOTE_SIDE if is_remote(volume.source) else side
    depth, corner = volume.shape[0], slice(0, side)
    digest = hashlib.sha256(f"{volume.shape} {volume.dtype}".encode())
    for z in sorted({0, depth // 2, depth - 1}):
        values = volume.read((slice(z, z + 1), corner, corner))
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


def spans_of(zs: list[int]) -> list[list[int]]:
    """Return rising slice numbers as spans [start, stop]."""
    spans: list[list[int]] = []
    for z in zs:
        if spans and spans[-1][1] == z:
            spans[-1][1] = z + 1
        else:
            spans.append([z, z + 1])
    return spans


def spans_in(found: Any) -> list[tuple[int, int]]:
    """Read spans [z0, z1) of slices; raise ``TypeError`` or ``ValueError`` for anything else."""
    spans = [(int(start), int(stop)) for start, stop in found]
    for start, stop in spans:
        if not 0 <= start <= stop <= MOST_SLICES:
            raise ValueError(f"the slices {start}:{stop}")
    return spans
