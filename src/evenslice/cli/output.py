"""What the command line writes: one line for each error, and JSON."""

import json as jsonlib
import math
import re
import sys
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from typing import Any

from evenslice.cli.signals import discard_stream, was_closed
from evenslice.errors import BadInputError, one_line

MOST_SAID, KEPT = 1500, 700
_PART = re.compile(r"\.(.+)\.[0-9a-f]{8}-\d+-\d+-[0-9a-f]{8}\.[a-z]+(\.\w+)?$")  # of volume.parts


def reason_of(error: Exception) -> str:
    """Say what went wrong, for the one line that the user sees."""
    if isinstance(error, BadInputError):
        return str(error)
    if isinstance(error, OSError):
        return (
            f"{_asked_for(error)} cannot be used ({error.strerror or error}), expected one that can be read or written, with room on the disk; "
            "choose another"
        )
    if hasattr(error, "format_message"):  # a usage error of the parser
        return f"{error.format_message()} See evenslice --help."
    return _limit(error) or (
        f"unexpected {type(error).__name__}: {error}; run it again with --traceback to see where, and report it"
    )


def _limit(error: Exception) -> str | None:
    """Say which limit of the machine was met, None if none was."""
    if _is_memory(error):
        return (
            f"the memory is not enough ({str(error).splitlines()[0] if str(error) else 'no more was given'}), expected more that is free; end "
            "other programs, choose a part with --roi, or use a smaller --tile, --crop or --batch"
        )
    if isinstance(error, RuntimeError) and str(error).startswith(
        "Symlink loop"
    ):  # of Path.resolve before Python 3.13
        return f"{str(error)[len('Symlink loop from ') :]} is a link that leads back to itself, expected a file; choose another"
    if isinstance(error, RecursionError):
        return "what was given is nested too deep, expected at most some hundred levels; check the files"
    return None


def _asked_for(error: OSError) -> str:
    """Return the name of a file as the user knows it, not that of its part."""
    if not isinstance(error.filename, str):
        return "standard output or a file" if error.filename is None else str(error.filename)
    path = Path(error.filename)
    return str(path) if not path.name else str(path.with_name(_PART.sub(r"\1", path.name)))


def _is_memory(error: Exception) -> bool:
    """Whether memory was not given: by Python, by a GPU, or by torch on the CPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(error)
    )


def print_error(message: str) -> None:
    """Print an error as one line on stderr."""
    _print_line(f"evenslice: error: {one_line(message)}")


def _print_line(line: str) -> None:
    """Print one line on stderr, cut in its middle if it is endless; a stderr that cannot be written is no error."""
    if len(line) > MOST_SAID:
        line = f"{line[:KEPT]} ... {line[-KEPT:]}"
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        discard_stream(2)


def warn(message: str) -> None:
    """Print what the user should know as one line on stderr."""
    _print_line(f"evenslice: warning: {one_line(message)}")


def warn_of_code(source: str) -> None:
    """Say so before code of the user's is run, which happens only for ``package.module:callable``."""
    from evenslice.model.external import form_of

    if form_of(source) == "callable":
        warn(f"{source} is code, which is imported and run now")


def files_of(source: str) -> list[Path]:
    """Return the files that a MODEL names: itself, or the weights behind ``@``."""
    return [Path(part) for part in (source, source.partition("@")[2]) if part]


def stdout_to_stderr() -> AbstractContextManager[Any]:
    """Send what code of the user's prints to stderr, so that standard output holds the result alone."""
    return redirect_stdout(sys.stderr)


def check_json(target: str | None, force: bool, *others: Path | None) -> None:
    """Refuse a JSON file that cannot be written, or would replace something else that this command reads or writes."""
    if target == "-" and was_closed(1):
        raise BadInputError(
            "--json is -, but standard output is closed, expected an open one; give a file, or redirect it"
        )
    if target in (None, "-"):
        return
    from evenslice.volume.atomic import check_writable

    path = Path(str(target))
    if any(other is not None and _is_or_holds(other, path) for other in others):
        raise BadInputError(
            f"--json is {target}, which this command reads or writes already, expected a name of its own; choose another"
        )
    check_writable(path, force)


def _is_or_holds(other: Path, path: Path) -> bool:
    """Whether a path is another one, the file of its dataset, or lies in it where that is a Zarr store."""
    from evenslice.volume.files import split_container
    from evenslice.volume.zarr_reader import in_store

    place, target = split_container(other)[0].resolve(), path.resolve()
    return place == target or (place in target.parents and in_store(place))


def write_json(target: str | None, result: dict[str, Any], force: bool) -> None:
    """Write a result as JSON to a file, replacing one with ``force`` only, or to standard output for ``-``."""
    text = jsonlib.dumps(result, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
    elif target is not None:
        write_text(Path(target), text, force)


def is_told(target: str | None, **known: Any) -> bool:
    """Whether a JSON file holds these values already: who made a result tells more of it than is found of it later."""
    from evenslice.volume.atomic import remove_stale
    from evenslice.volume.run_state import stored_table

    if target is None or not Path(target).exists():
        return False
    remove_stale(Path(target))
    try:
        told = stored_table(Path(target), *known)
    except BadInputError:
        return False
    return all(
        math.isclose(told[key], value, abs_tol=1e-6)
        if isinstance(value, float) and isinstance(told[key], float)
        else bool(told[key] == value)
        for key, value in known.items()
    )


def write_text(path: Path, text: str, force: bool = False) -> None:
    """Write a text file that appears under its name only when it is complete, and replaces one with ``force`` only."""
    from evenslice.volume.atomic import written_beside

    with written_beside(path, force) as part:
        part.write_text(text, encoding="utf-8")
