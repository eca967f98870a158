"""The command line: parse, call a verb, write, exit code."""

import os
import sys
from typing import Annotated

import typer

from evenslice import __version__
from evenslice.cli.audit import audit
from evenslice.cli.data import data_app
from evenslice.cli.demo import demo
from evenslice.cli.evaluate import evaluate
from evenslice.cli.export import export
from evenslice.cli.fix import fix
from evenslice.cli.inspect import inspect
from evenslice.cli.output import print_error, reason_of
from evenslice.cli.segment import segment
from evenslice.cli.signals import (
    Terminated,
    can_be_flushed,
    discard_stream,
    open_closed_streams,
    reader_is_gone,
    signals_raised,
    written_out,
)
from evenslice.cli.study import study
from evenslice.cli.train import TrainCommand, train
from evenslice.errors import BadInputError

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Measure and remove the slice asymmetry that RGB pretraining leaves in 2D+ electron-microscopy models.",
)
BAD_INPUT, INTERRUPTED, READER_GONE, TERMINATED = 2, 130, 141, 143


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, and exit.

    With 0 when done, 1 if a check the user asked for failed, 2 for bad input. A command that a signal ends exits as a shell says
    it of any other: 130 for Ctrl-C, 143 for SIGTERM, each with one line; 141, in silence, when the reader of its output has gone
    (``| head``).
    """
    words = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    # Threads that wait for each other sleep instead of spinning, or a second busy program makes torch many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault(
        "HF_HUB_VERBOSITY", "error"
    )  # what cannot be fetched is told in one line, not each attempt
    open_closed_streams()
    try:
        with signals_raised():
            code = _run(words)
    except Terminated:
        print_error("terminated")
        code = TERMINATED
    except KeyboardInterrupt:
        print_error("interrupted")
        code = INTERRUPTED
    sys.exit(code)


def _run(words: list[str]) -> int:
    """Run the command, hand over what it printed, and return how to exit; signals are raised."""
    try:
        if "" in words:
            raise BadInputError(
                "one of the words is empty (''), expected a name or a value; give it, or leave it out"
            )
        if any("\0" in word for word in words):
            raise BadInputError(
                "one of the words holds a null byte, expected a name or a value without; leave it out"
            )
        code = app(words, standalone_mode=False)
        if code == INTERRUPTED:  # so the parser answers Ctrl-C
            raise KeyboardInterrupt
        written_out()
    except SystemExit as stop:  # so the parser answers a broken pipe
        if not isinstance(stop.__context__, OSError):
            raise
        return _failed(stop.__context__, words)
    except Exception as error:  # nothing reaches the user as a traceback unless asked for
        return _failed(error, words)
    return code if isinstance(code, int) else 0


def _failed(error: Exception, words: list[str]) -> int:
    """Say in one line what went wrong, and return how to exit."""
    if isinstance(error, typer.Abort) and isinstance(
        error.__cause__, Exception
    ):  # so the parser answers the end of a file
        error = error.__cause__
    if isinstance(error, BrokenPipeError) and error.filename is None and reader_is_gone():
        discard_stream(1)
        return READER_GONE
    if "--traceback" in words:
        raise error
    if isinstance(error, OSError) and error.filename is None and not can_be_flushed():
        discard_stream(1)
        error = BadInputError(
            f"standard output cannot be written ({error.strerror}), expected one that can; redirect it"
        )
    print_error(reason_of(error))
    return BAD_INPUT


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"evenslice {__version__}")
        raise typer.Exit


@app.callback()
def version(
    shown: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Measure and remove the slice asymmetry of 2D+ electron-microscopy models."""


for verb in (demo, audit, inspect, fix):
    app.command()(verb)
app.command(cls=TrainCommand)(train)
for verb in (segment, evaluate, study, export):
    app.command()(verb)
app.add_typer(data_app, name="data")
