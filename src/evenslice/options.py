"""Settings from TOML files and options: checked by pydantic, and every wrong key told in one line."""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from evenslice.errors import BadInputError


class Settings(BaseModel):
    """A table of settings: frozen, of the stated types only, with no other keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Kind = TypeVar("Kind", bound=Settings)
LARGEST = 2**20  # bytes
OPTIONS = "--"  # stands before the names of options, as the place in a file does before keys
_DEEP = re.compile(r"(?:[\w-]+\s*\.\s*){64}")
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


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    BadInputError
        If there is no such file, or it is not TOML.
    """
    if not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        raise BadInputError(f"{path} {found}, expected a TOML file of settings; check the path")
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path.stat().st_size} bytes, at most {LARGEST} are read")
        text = path.read_text(encoding="utf-8")
        if _DEEP.search(text):  # what the parser takes grows with the square of the depth
            raise RecursionError
        return tomllib.loads(text)
    except RecursionError as error:
        raise BadInputError(
            f"{path} is nested too deep, expected lines such as key = value; correct it"
        ) from error
    except ValueError as error:  # of TOML, of UTF-8, and of endless numbers
        raise BadInputError(
            f"{path} is not TOML ({error}), expected lines such as key = value; correct it"
        ) from error


def checked(kind: type[Kind], values: dict[str, Any], source: str) -> Kind:
    """Make settings of a table, or raise ``BadInputError`` that names the key, what it holds and what was expected."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadInputError(explained(error, kind, f"{source}: ")) from error


def explained(error: ValidationError, kind: type[Settings], prefix: str) -> str:
    """Say the first thing that is wrong, and how many more there are; ``prefix`` stands before the key."""
    errors = error.errors()
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    others = len({tuple(_place(e)) for e in errors}) - 1
    more = f" ({others} more after it)" if others else ""
    return _said(first, kind, prefix) + more


def _said(error: ErrorDetails, kind: type[Settings], prefix: str) -> str:
    place = _place(error)
    names = [
        str(part) if str(part).isprintable() and str(part).strip() else repr(part) for part in place
    ]
    key = prefix + ".".join(names).replace("_", "-" if prefix == OPTIONS else "_")
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
        return f"{key} is {error['input']!r}, expected {wanted}; {f'did you mean {close[0]}?' if close else 'choose one'}"
    return f"{key} is {error['input']!r}, expected {_wanted(error)}; correct it"


def _place(error: ErrorDetails) -> list[Any]:
    """Return the keys that lead to what is wrong; what pydantic adds for the kinds that a key may hold is left out."""
    keys = [
        part
        for part in error["loc"][:-1]
        if not (isinstance(part, str) and ("[" in part or part in _KINDS))
    ]
    last = error["loc"][-1:]
    told = error["type"] == "extra_forbidden" or not any(
        isinstance(p, str) and ("[" in p or p in _KINDS) for p in last
    )
    return [*keys, *last] if told or not keys else keys


def _wanted(error: ErrorDetails) -> str:
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
