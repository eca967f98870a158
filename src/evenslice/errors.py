"""Bad input is one line: what was found, what was expected, what to do."""

import difflib
import functools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # pydantic takes longer to import than the help to show
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

Verb = TypeVar("Verb", bound=Callable[..., Any])
OPTION = "--"  # prefix of an option in a message; a settings file has its path there

# Controls but tab and newline, marks of direction, separators of lines, what has no width, halves
# of characters, tags.
_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def escape_control_chars(text: str) -> str:
    r"""Return a text with invisible and control characters written out, such as ``\x1b``.

    File names, names in archives, labels and metadata of strangers come to the terminal and onto
    pages through this. Tabs and newlines stay.
    """
    return _UNFIT.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str) -> str:
    """Return a text on one line, made fit to be read."""
    return escape_control_chars(
        " ".join(line.strip() for line in text.splitlines() if line.strip())
    )


LONGEST = 4000
_ENDLESS = re.compile(r"[^\s/]{401,}")  # longer than any name in a path


class InputWarning(UserWarning):
    """An input that may not be what its user takes it for; the command line prints it as a line."""


def give_warnings(texts: Iterable[str]) -> None:
    """Give an ``InputWarning`` of each text."""
    for text in texts:
        warnings.warn(text, InputWarning, stacklevel=3)


def keeps_warnings(verb: Verb) -> Verb:
    """Let a result have each ``InputWarning`` of the run in its ``warnings``; show each once."""

    @functools.wraps(verb)
    def run(*arguments: Any, **named: Any) -> Any:
        found: list[str] = []
        show = warnings.showwarning

        def keep(message: Any, *place: Any, **more: Any) -> None:
            if isinstance(message, InputWarning):
                if str(message) in found:
                    return
                found.append(str(message))
            show(message, *place, **more)

        with warnings.catch_warnings():
            warnings.simplefilter("always", InputWarning)
            warnings.showwarning = keep
            result = verb(*arguments, **named)
            give_warnings(result.warnings)
        return replace(result, warnings=tuple(found))

    return run  # type: ignore[return-value]


@contextmanager
def says_what_is_kept(text: Callable[[], str]) -> Iterator[None]:
    """Let what stops a run, such as Ctrl-C, say what is kept and how to resume; errors pass."""
    try:
        yield
    except Exception:
        raise
    except BaseException as stop:
        with suppress(Exception):
            stop.args = (text(),)
        raise


class BadInputError(ValueError):
    """Something the user gave cannot be used.

    The message says what was found, what was expected and what to do. The command line prints it as
    one line and exits with 2. Of what is quoted from a file the middle is left out where it would
    fill the screen.
    """

    def __init__(self, message: Any = "") -> None:
        super().__init__(_shortened(str(message)))


def _shortened(text: str) -> str:
    text = _ENDLESS.sub(lambda found: f"{found[0][:200]}...{found[0][-100:]}", text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1005]} ... {text[-1000:]}"


_KINDS = {"str", "int", "float", "bool"}
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "string": "a text in quotes",
    "bool": "true or false",
    "list": "a list in [ ]",
    "dict": "a table",
    "model": "a table",
}


def explain(error: "ValidationError", kind: "type[BaseModel]", prefix: str) -> str:
    """Return the first error in one line, and the number of others; ``prefix`` precedes the key."""
    errors = error.errors()
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    others = len({tuple(_place(e)) for e in errors}) - 1
    more = f" ({others} more after it)" if others else ""
    return _explain_one(first, kind, prefix) + more


def _explain_one(error: "ErrorDetails", kind: "type[BaseModel]", prefix: str) -> str:
    place = _place(error)
    if not place:  # two fields that contradict each other
        return prefix + str(error["ctx"]["error"])
    names = [
        str(part) if str(part).isprintable() and str(part).strip() else repr(part) for part in place
    ]
    key = prefix + ".".join(names)
    if prefix == OPTION:
        key = flag_of(kind, names[0])
    if error["type"] == "extra_forbidden":
        known = sorted(_fields(kind, place[:-1]))
        close = difflib.get_close_matches(str(place[-1]), known, n=2)
        hint = f"did you mean {' or '.join(close)}?" if close else "take it out"
        return f"{key} is unknown, expected one of {', '.join(known)}; {hint}"
    if error["type"] == "missing":
        return f"{key} is missing, expected a value for it; add it"
    if error["type"] == "literal_error":
        wanted = str(error["ctx"]["expected"])
        choices = wanted.replace("'", "").replace(" or ", ", ").split(", ")
        close = difflib.get_close_matches(str(error["input"]), choices, n=1)
        hint = f"did you mean {close[0]}?" if close else "choose one"
        return f"{key} is {error['input']!r}, expected {wanted}; {hint}"
    return f"{key} is {error['input']!r}, expected {_expected(error)}; correct it"


def flag_of(kind: "type[BaseModel]", name: str) -> str:
    """Return the command-line option of a field of an options model: ``--encoder-depth``."""
    field = kind.model_fields.get(name)
    shown = None if field is None else field.json_schema_extra
    flag = shown.get("flag") if isinstance(shown, dict) else None
    return str(flag or OPTION + name.replace("_", "-"))


def _place(error: "ErrorDetails") -> list[Any]:
    """Return the keys that lead to an error, without the types that pydantic adds to them."""
    keys = [
        part
        for part in error["loc"][:-1]
        if not (isinstance(part, str) and ("[" in part or part in _KINDS))
    ]
    last = error["loc"][-1:]
    keep = error["type"] == "extra_forbidden" or not any(
        isinstance(p, str) and ("[" in p or p in _KINDS) for p in last
    )
    return [*keys, *last] if keep or not keys else keys


def _expected(error: "ErrorDetails") -> str:
    name, context = error["type"], error.get("ctx", {})
    limits = {
        "greater_than_equal": "{ge} or more",
        "greater_than": "a number above {gt}",
        "less_than_equal": "{le} or less",
        "less_than": "a number below {lt}",
        "finite_number": "a finite number",
        "too_short": "a list of at least {min_length}",
        "too_long": "a list of at most {max_length}",
        "value_error": "{error}",
    }
    if name in limits:
        return limits[name].format(**context)
    return _TYPES.get(name.split("_")[0], str(error["msg"]))


def _fields(kind: Any, place: list[Any]) -> set[str]:
    """Return the keys of the table at a place, or those of the whole where it cannot be told."""
    for part in place:
        field = getattr(kind, "model_fields", {}).get(part)
        inner = (
            []
            if field is None
            else [a for a in _inside(field.annotation) if hasattr(a, "model_fields")]
        )
        kind = inner[0] if inner else kind
    return set(kind.model_fields)


def _inside(annotation: Any) -> list[Any]:
    parts = getattr(annotation, "__args__", ())
    return [annotation] if not parts else [one for part in parts for one in _inside(part)]


def corrupt_metadata(source: object, reason: object) -> BadInputError:
    """Return the error for metadata of ours that is not as we write it."""
    return BadInputError(
        f"{source} holds damaged metadata of evenslice ({str(reason)[:200]}), "
        "expected it as evenslice writes it; write the file again"
    )
