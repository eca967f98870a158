"""What files of models say about themselves, as JSON: written plainly, and read within limits, for anyone may have written it."""

import json
import math
from collections.abc import Mapping
from typing import Any

from evenslice.errors import BadInputError

MOST_BYTES = 4 * 2**20
MOST_DEPTH = 32
LARGEST_WHOLE = 2**63
MOST_NUMBERS = 9  # slots
MOST_SLICES = 10_000_000  # of a volume that was trained on
TARGETS = ("foreground", "boundary", "classes")


def corrupt_metadata(source: object, reason: object) -> BadInputError:
    """Return the error for a record of ours that is not as we write it."""
    return BadInputError(
        f"{source} holds a damaged record of evenslice ({str(reason)[:200]}), expected one as evenslice writes it; write it again"
    )


def as_note(about: Mapping[str, Any]) -> str:
    """Write a record as JSON; numbers that are not finite become null."""
    return json.dumps(_finite(about), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def parsed_note(text: str | bytes) -> Any:
    """Parse JSON of a stranger.

    Raises
    ------
    ValueError
        If it is no JSON, larger than 4 MiB, nested deeper than 32, or holds a number that is not finite or a whole one beyond 64 bits.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"{len(text)} bytes of JSON, at most {MOST_BYTES} are read")
    try:
        found = json.loads(text, parse_constant=_refused, parse_float=_real, parse_int=_whole)
    except RecursionError as error:
        raise ValueError(f"JSON nested deeper than {MOST_DEPTH}") from error
    level, depth = [found], 0
    while level:
        if depth > MOST_DEPTH:
            raise ValueError(f"JSON nested deeper than {MOST_DEPTH}")
        inside: list[Any] = []
        for value in level:
            inside += (
                value.values()
                if isinstance(value, dict)
                else value
                if isinstance(value, list)
                else ()
            )
        level, depth = inside, depth + 1
    return found


def _refused(text: str) -> float:
    raise ValueError(f"the number {text}")


def _real(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refused(text[:20])


def _whole(text: str) -> int:
    if len(text) > 20 or abs(int(text)) >= LARGEST_WHOLE:
        _refused(f"{text[:20]}...")
    return int(text)


def spans_in(found: Any) -> list[tuple[int, int]]:
    """Read spans [z0, z1) of slices.

    Raises
    ------
    ValueError
        If they are anything else, or of absurd length.
    """
    if not isinstance(found, list | tuple):
        raise ValueError(f"slices that are {type(found).__name__}")
    spans = []
    for pair in found:
        if (
            not isinstance(pair, list | tuple)
            or len(pair) != 2
            or any(type(n) is not int for n in pair)
        ):
            raise ValueError(f"the span {str(pair)[:40]}")
        if not 0 <= pair[0] <= pair[1] <= MOST_SLICES:
            raise ValueError(f"the span {pair[0]}:{pair[1]}")
        spans.append((pair[0], pair[1]))
    if sum(stop - start for start, stop in spans) > MOST_SLICES:
        raise ValueError(f"more than {MOST_SLICES} slices")
    return spans


def training_in(found: Any) -> dict[str, Any]:
    """Read what a model was trained on; raise ``ValueError`` if it is not as we write it."""
    training = _table(found, "training")
    others = training.get("volumes", [])
    if not isinstance(others, list):
        raise ValueError("volumes that are no list")
    for one in [training, *(_table(each, "volumes") for each in others)]:
        for key in ("slices", "validation"):
            if one.get(key) is not None:
                spans_in(one[key])
        voxel = one.get("voxel_nm")
        if voxel is not None and not (
            isinstance(voxel, list | tuple) and len(voxel) == 3 and all(map(_above_0, voxel))
        ):
            raise ValueError(f"the voxel size {str(voxel)[:40]}")
    for key in ("recipe", "versions"):
        _table(training.get(key) or {}, key)
    if training.get("target", TARGETS[0]) not in TARGETS:
        raise ValueError(f"the target {str(training['target'])[:40]!r}")
    return training


def scores_in(found: Any) -> dict[str, Any]:
    """Read the scores of a model; raise ``ValueError`` if they are not as we write them."""
    scores = _table(found, "scores")
    for one in (scores, _table(scores.get("validation") or {}, "validation")):
        for key in ("dice", "iou"):
            if one.get(key) is not None and not _is_number(one[key]):
                raise ValueError(f"a {key} of {str(one[key])[:40]}")
    return scores


def certificate_in(found: Any) -> dict[str, Any] | None:
    """Read a certificate; null, as an infinite difference is written, is infinity. Raise ``ValueError`` for anything else."""
    if found is None:
        return None
    certificate = _table(found, "certificate")
    response = certificate["float32"]
    if not isinstance(certificate["symmetric"], bool) or not (
        response is None or _is_number(response)
    ):
        raise ValueError("a certificate without its numbers")
    return certificate | {"float32": math.inf if response is None else float(response)}


def numbers_in(found: Any) -> tuple[float, ...]:
    """Read a list of numbers; raise ``ValueError`` for anything else."""
    if (
        not isinstance(found, list | tuple)
        or len(found) > MOST_NUMBERS
        or not all(map(_is_number, found))
    ):
        raise ValueError(f"{str(found)[:40]} in place of numbers, one or one a slot")
    return tuple(float(n) for n in found)


def _table(found: Any, name: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"{name} that is no table")
    return dict(found)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _above_0(value: Any) -> bool:
    return _is_number(value) and 0 < value < math.inf
