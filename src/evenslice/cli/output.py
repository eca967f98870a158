"""What the command line writes: one line per error or warning, and JSON."""

import json
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenslice.errors import BadInputError, InputWarning, escape_control_chars, flag_of, one_line

if TYPE_CHECKING:
    from evenslice.options import ModelOptions

LONGEST, KEPT = 1500, 700  # characters of a line, and of either end of a longer one


class Interrupted(BaseException):
    """Ctrl-C while a verb ran: a KeyboardInterrupt with its text, which typer would drop."""


def failure_message(error: Exception) -> str:
    """Return what went wrong, for the one line that the user sees."""
    if isinstance(error, BadInputError):
        return str(error)
    if isinstance(error, OSError):
        name = error.filename or "standard output or a file"
        return (
            f"{name} cannot be used ({error.strerror or error}), expected one that can be read "
            "or written, with room on the disk; choose another"
        )
    if hasattr(error, "format_message"):  # a usage error of the parser
        return f"{error.format_message()} See evenslice --help."
    if _is_memory(error):
        return (
            f"the memory is not enough ({str(error).partition(chr(10))[0]}), expected more that "
            "is free; choose a part with --roi, or use a smaller --tile, --crop or --batch"
        )
    return (
        f"unexpected {type(error).__name__}: {error}; run it again with --traceback to see "
        "where, and report it"
    )


def _is_memory(error: Exception) -> bool:
    """Whether Python, a GPU or torch on the CPU ran out of memory."""
    named = type(error).__name__ in ("MemoryError", "OutOfMemoryError", "_ArrayMemoryError")
    return named or "DefaultCPUAllocator" in str(error)


def print_error(message: str) -> None:
    """Print an error as one line on stderr."""
    _print_line(f"evenslice: error: {one_line(message)}")


def warn(message: str) -> None:
    """Print a warning as one line on stderr."""
    _print_line(f"evenslice: warning: {one_line(message)}")


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print each ``InputWarning`` as one line, once; warnings of libraries are for programmers."""
    printed = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in printed:
            printed.add(str(message))
            warn(str(message))

    quiet = logging.NullHandler()  # else Python prints what libraries log
    logging.getLogger().addHandler(quiet)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:  # else the user asks Python for them
                warnings.simplefilter("ignore")
            warnings.simplefilter("always", InputWarning)
            warnings.showwarning = show
            yield
    finally:
        logging.getLogger().removeHandler(quiet)


def _print_line(line: str) -> None:
    if len(line) > LONGEST:
        line = f"{line[:KEPT]} ... {line[-KEPT:]}"
    print(line, file=sys.stderr, flush=True)


@contextmanager
def running_code_of(source: str) -> Iterator[None]:
    """Run code of the user's, ``package.module:callable``, with a warning; it prints to stderr."""
    from evenslice.model.source import form_of

    if form_of(source) == "callable":
        warn(f"{source} is code, which is imported and run now")
    with stdout_to_stderr():
        yield


def check_inputs(model: str | None, *volumes: Path | None) -> None:
    """Refuse what is not there or cannot be opened, before anything large is imported.

    A folder is left to the verb: opening one may read the header of every image in it.
    """
    from evenslice.model.source import checked_form
    from evenslice.volume.files import open_volume

    if model is not None:
        checked_form(model)
    for volume in volumes:
        if volume is not None and not volume.is_dir():
            open_volume(volume)


def files_of(source: str) -> list[Path]:
    """Return the files that a MODEL names: itself, or the weights behind ``@``."""
    return [Path(part) for part in (source, source.partition("@")[2]) if part]


def words_of(model: str, options: "ModelOptions") -> list[str]:
    """Return the words that name a MODEL again, with how it is to be taken."""
    from evenslice.options import ModelOptions

    words = [model]
    for name in options.model_fields_set & (ModelOptions.model_fields.keys() - {"seed"}):
        value = getattr(options, name)
        if value not in (None, False):
            given = ",".join(f"{one:g}" for one in value) if isinstance(value, tuple) else value
            words += [flag_of(ModelOptions, name), *([] if value is True else [str(given)])]
    return words


def stdout_to_stderr() -> AbstractContextManager[object]:
    """Send what code of the user's prints to stderr: standard output holds the result alone."""
    return redirect_stdout(sys.stderr)


def discard_stdout() -> None:
    """Drop what is left in the buffer of stdout, which nobody reads any more."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


@dataclass(frozen=True)
class Output:
    """Where a command writes its result as JSON, and whether it may replace files."""

    json: str | None = None
    force: bool = False

    def overwriting(self, force: bool) -> "Output":
        """Return the same with another ``force``."""
        return replace(self, force=force)

    def check(self, *others: Path | None) -> None:
        """Refuse a JSON file that cannot be written, or is one that this command uses already."""
        if self.json in (None, "-"):
            return
        from evenslice.volume.files import split_container

        path = Path(str(self.json))
        places = [split_container(other)[0].resolve() for other in others if other is not None]
        if path.resolve() in places:
            raise BadInputError(
                f"--json is {path}, which this command reads or writes already, expected a name of "
                "its own; choose another"
            )
        self.check_new(path)

    def check_new(self, *paths: Path) -> None:
        """Refuse files that cannot be written, or exist without ``force``."""
        from evenslice.volume.atomic import check_writable

        for path in paths:
            check_writable(path, self.force)

    def write(
        self, result: Any, show: Callable[[Any], None], *wrote: Path, after: Sequence[object] = ()
    ) -> None:
        """Write a result as JSON, and show it unless that took stdout.

        Then say what the command wrote, and which one to try ``after`` it.
        """
        values = result if isinstance(result, dict) else result.to_dict()
        text = json.dumps(values, indent=2) + "\n"
        lines = sys.stdout
        if self.json == "-":
            sys.stdout.write(text)
            lines = sys.stderr
        else:
            if self.json is not None:
                write_text(Path(self.json), text, self.force)
                wrote = (*wrote, Path(self.json))
            show(result)
        if wrote:
            print(escape_control_chars(f"Wrote {', '.join(map(str, wrote))}"), file=lines)
        if after:
            print(escape_control_chars(f"Next: {shlex.join(map(str, after))}"), file=lines)


def write_text(path: Path, text: str, force: bool = False) -> None:
    """Write a text file that appears under its name only when complete."""
    from evenslice.volume.atomic import written_beside

    with written_beside(path, force) as part:
        part.write_text(text, encoding="utf-8")
