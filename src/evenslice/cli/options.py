"""Command-line options made from the options models, and those that every command has."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from evenslice.cli.output import Interrupted, Output
from evenslice.errors import flag_of
from evenslice.options import OUTPUT, Options

FAILED_CHECK = 1
ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A .safetensors of evenslice, package.module:callable, .pt2 or .onnx."
    ),
]
VolumePath = Annotated[
    Path,
    typer.Argument(
        metavar="VOLUME",
        help="TIFF, OME-Zarr, Zarr, HDF5, MRC, raw with .info, or a folder of images.",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Resume an interrupted run.", rich_help_panel=OUTPUT)
]
Command = Callable[..., int | None]
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_JSON = typer.Option("--json", metavar="FILE", help="Write the result as JSON; - for stdout.")
_EVERYWHERE = {  # the options of every command: kind, default
    "json": (Annotated[str | None, _JSON], None),
    "force": (Annotated[bool, typer.Option("--force", help="Overwrite what exists.")], False),
    "traceback": (
        Annotated[bool, typer.Option("--traceback", help="Show where an error arose.")],
        False,
    ),
}


def takes(kind: type[Options] = Options) -> Callable[[Command], Command]:
    """Give a command an option for every field of ``kind``, and those of every command.

    The command receives them as its parameters ``options``, an object of ``kind`` in which only
    those fields are set that were given, and ``output``.
    """

    def decorate(command: Command) -> Command:
        hints = get_type_hints(command, include_extras=True)
        wanted = inspect.signature(command).parameters
        own = [
            one.replace(annotation=hints[one.name], kind=_KEYWORD)
            for one in wanted.values()
            if one.name not in ("options", "output")
        ]
        names = sorted(kind.model_fields, key=lambda name: name not in kind.__annotations__)
        fields = [_parameter(name, kind) for name in names if not _is_table(kind, name)]
        context = inspect.Parameter("context", _KEYWORD, annotation=typer.Context)
        every = [
            inspect.Parameter(name, _KEYWORD, default=default, annotation=annotation)
            for name, (annotation, default) in _EVERYWHERE.items()
        ]
        parameters = [context, *own, *fields, *every]

        @functools.wraps(command)
        def run(context: typer.Context, **values: Any) -> int | None:
            output = Output(values.pop("json"), values.pop("force"))
            values.pop("traceback")
            given = {one.name: values.pop(one.name) for one in fields}
            given = {name: value for name, value in given.items() if _was_given(context, name)}
            if "options" in wanted:
                values["options"] = kind(**given)
            try:
                return command(**values, output=output)
            except KeyboardInterrupt as stop:
                raise Interrupted(*stop.args) from stop

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _is_table(kind: type[Options], name: str) -> bool:
    """Whether a field is a table, which only a settings file can hold."""
    annotation = kind.model_fields[name].annotation
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _parameter(name: str, kind: type[Options]) -> inspect.Parameter:
    field = kind.model_fields[name]
    shown: Any = field.json_schema_extra or {}
    option = typer.Option(
        flag_of(kind, name),
        help=(field.description or "").replace("[", r"\["),  # or rich takes [em] for a style
        metavar=shown.get("metavar"),
        rich_help_panel=shown.get("panel") or "Options",
    )
    kind_of_value: Any = _typed(field)
    annotation: Any = Annotated[kind_of_value, option]
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return inspect.Parameter(name, _KEYWORD, default=default, annotation=annotation)


def _typed(field: FieldInfo) -> Any:
    """Return what the parser reads: a plain type or choices; else a text that the model reads."""
    kinds = [field.annotation]
    if get_origin(field.annotation) in (Union, UnionType):
        kinds = [one for one in get_args(field.annotation) if one is not type(None)]
    kind = get_args(kinds[0])[0] if get_origin(kinds[0]) is Annotated else kinds[0]
    if kind == tuple[str, ...] and field.default is not None:
        return list[str]
    plain = len(kinds) == 1 and (get_origin(kind) is Literal or kind in (bool, int, float, str))
    found: Any = kind if plain else str
    return found | None if field.default is None else found
