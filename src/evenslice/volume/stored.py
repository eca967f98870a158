"""JSON that evenslice wrote beside its work, read back: the folder of a run may have been changed, or come from someone else."""

import json
from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError

MOST_BYTES = 256 * 2**20


def stored(file: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    BadInputError
        If it is not JSON, or of absurd size.
    FileNotFoundError
        If there is no such file.
    """
    if file.stat().st_size > MOST_BYTES:
        raise damaged(file, f"more than {MOST_BYTES} bytes")
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise damaged(file, error) from error


def stored_table(file: Path, *needed: str) -> dict[str, Any]:
    """Read a JSON file that holds a table with some keys; raises as ``stored``, also if it holds something else."""
    found = stored(file)
    if not isinstance(found, dict):
        raise damaged(file, "it is no table")
    missing = [key for key in needed if key not in found]
    if missing:
        raise damaged(file, f"it lacks {', '.join(missing)}")
    return found


def stored_rows(file: Path, *needed: str) -> list[dict[str, Any]]:
    """Read a JSON file that holds a list of tables with some keys; raises as ``stored``, also if it holds something else."""
    found = stored(file)
    if not isinstance(found, list) or not all(isinstance(row, dict) and row.keys() >= set(needed) for row in found):
        raise damaged(file, f"it is no list of tables with {', '.join(needed)}")
    return found


def damaged(file: Path, reason: object) -> BadInputError:
    """Return the error for a file that is not as it was written."""
    return BadInputError(
        f"{file} is damaged ({str(reason)[:100]}), expected what this run wrote; start over with --force, or remove its folder"
    )
