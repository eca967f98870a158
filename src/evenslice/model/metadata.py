"""What files of models say about themselves, as JSON: written plainly, and read within limits."""

import json
import math
from collections.abc import Mapping
from typing import Any

from evenslice.errors import BadInputError
from evenslice.options import JsonObject

LARGEST = 4 * 2**20  # bytes of JSON
MOST_SLICES = 10_000_000  # of a volume that was trained on


def corrupt_metadata(source: object, reason: object) -> BadInputError:
    """Return the error for metadata of ours that is not as we write it."""
    return BadInputError(
        f"{source} holds damaged metadata of evenslice ({str(reason)[:200]}), "
        "expected it as evenslice writes it; write the file again"
    )


def dump_metadata(metadata: JsonObject) -> str:
    """Write metadata as JSON; numbers that are not finite become null."""
    return json.dumps(_finite(metadata), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def parse_metadata(text: str | bytes, source: object) -> JsonObject:
    """Parse a JSON object; raise ``BadInputError`` if it is none, or larger than 4 MiB."""
    try:
        if len(text) > LARGEST:
            raise ValueError(f"{len(text)} bytes of JSON, at most {LARGEST} are read")
        return dict(json.loads(text, parse_constant=_refuse_constant))
    except (TypeError, ValueError, RecursionError) as error:
        raise corrupt_metadata(source, error) from error


def _refuse_constant(text: str) -> float:
    raise ValueError(f"the number {text}")


def spans_in(found: Any) -> list[tuple[int, int]]:
    """Read spans [z0, z1) of slices; raise ``TypeError`` or ``ValueError`` for anything else."""
    spans = [(int(start), int(stop)) for start, stop in found]
    for start, stop in spans:
        if not 0 <= start <= stop <= MOST_SLICES:
            raise ValueError(f"the slices {start}:{stop}")
    return spans


def training_in(found: Any) -> JsonObject:
    """Read what a model was trained on; raise ``TypeError`` or ``ValueError`` if it is damaged."""
    training = dict(found)
    for volume in [training, *map(dict, training.get("volumes") or [])]:
        for key in ("slices", "validation"):
            spans_in(volume.get(key) or [])
    return training


def certificate_in(found: Any) -> JsonObject | None:
    """Read a certificate; null, as an infinite difference is written, is infinity."""
    if found is None:
        return None
    response = found["float32"]
    symmetric = bool(found["symmetric"])
    infinite = response is None
    return dict(found) | {
        "symmetric": symmetric,
        "float32": math.inf if infinite else float(response),
    }
