"""What the options of ``segment`` mean, checked before any work begins."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError
from evenslice.verbs.segment_job import Job
from evenslice.volume.array import VoxelSize
from evenslice.volume.files import check_volume_name
from evenslice.volume.tiff import noted_provenance
from evenslice.volume.writing import check_store_writable, check_writable

DIGITS = 6
SMALLEST_NM, LARGEST_NM = 1e-3, 1e9


def check_out(out: Path, force: bool, join: bool) -> None:
    """Raise ``BadInputError`` unless a result can be written under this name; ``join``: something may be there."""
    check_volume_name(out)
    check = check_store_writable if out.suffix.lower() == ".zarr" else check_writable
    check(out, force or join)


def check_unlike(out: Path, job: Job, force: bool, join: bool) -> None:
    """Raise ``BadInputError`` if something is there already that is neither to be replaced nor the result of this very job."""
    if join and not force and out.exists() and not is_complete(out, job):
        raise BadInputError(
            f"{out} exists and is not known as the result of these options, expected an unfinished run or none; choose another name, or "
            "add --force to start over"
        )
    check_out(out, force, is_complete(out, job))


def voxel_size_of(sides: Sequence[float]) -> VoxelSize:
    """Return three numbers of nm (z, y, x)."""
    if len(sides) != 3 or not all(SMALLEST_NM <= side <= LARGEST_NM for side in sides):
        told = ", ".join(f"{side:g}" for side in sides)
        raise BadInputError(
            f"the voxel size is {told}, expected three numbers of nm (z, y, x); write for example 50,4,4"
        )
    return float(sides[0]), float(sides[1]), float(sides[2])


def shard_of(text: str | None, scheduler: str | None) -> tuple[int, int] | None:
    """Read ``I/N``."""
    if text is None:
        return None
    if scheduler is not None:
        raise BadInputError("--shard and --scheduler were both given, expected one of them; leave one out")
    index, _, count = text.partition("/")
    decimal = index.isdecimal() and count.isdecimal() and len(count) <= DIGITS
    if not (decimal and 1 <= int(index) <= int(count)):
        raise BadInputError(
            f"--shard is {text!r}, expected I/N with I from 1 to N and N below 10^{DIGITS}, such as 1/4; write it so"
        )
    return int(index), int(count)


def blocks_of_shard(count: int, part: tuple[int, int] | None) -> range:
    """Return the blocks of a shard: neighbours in reading order."""
    if part is None:
        return range(count)
    index, parts = part
    return range(count * (index - 1) // parts, count * index // parts)


def name_anywhere(source: Any) -> str | None:
    """Return a name that means the same in another process; None for what has none."""
    if not isinstance(source, (str, Path)):
        return None
    name, at, file = str(source).partition("@")
    if at:
        return f"{name}@{os.path.abspath(file)}"  # noqa: PTH100 (a name with a part inside of a file is no Path)
    return os.path.abspath(name) if ":" not in name or "/" in name else name  # noqa: PTH100


def is_complete(out: Path, job: Job) -> bool:
    """Whether a store or a TIFF is the result of this very job."""
    try:
        if job.to == "zarr":
            noted = json.loads((out / "zarr.json").read_text())["attributes"]["evenslice"]["asked"]
        else:
            noted = noted_provenance(out)["asked"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(noted == json.loads(json.dumps(job.to_dict())))
