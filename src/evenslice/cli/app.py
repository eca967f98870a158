"""The command line: parse, call a verb, write, exit code."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import Timer
from types import FrameType
from typing import Annotated, Any

import typer

from evenslice import __version__
from evenslice.cli.output import (
    Interrupted,
    discard_stdout,
    failure_message,
    print_error,
    warnings_as_lines,
)

VERBS = {  # in the order of the help, which shows these lines without importing the verbs
    "demo": "See the asymmetry and its removal on a phantom, in three minutes, offline.",
    "audit": "Measure how much each slice counts, and whether previous equals next.",
    "inspect": "Show a model's stem, or the shape, voxel size and type of a volume.",
    "fix": "Make the stem of a trained model symmetric, without retraining.",
    "train": "Train a 2D+ segmentation model from a pretrained encoder.",
    "segment": "Segment a volume of any size.",
    "evaluate": "Compare a segmentation with the ground truth.",
    "study": "Train, audit and score every cell of a grid, and compare them.",
    "export": "Write a model as ONNX, torch.export or bioimage.io package.",
    "data": "List and download public datasets.",
}
BAD_INPUT, INTERRUPTED, READER_GONE, TERMINATED = 2, 130, 141, 143


class Terminated(BaseException):
    """SIGTERM: what is half done is removed on the way out."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    With 0 when done, 1 if a check the user asked for failed, 2 for bad input, 130 for Ctrl-C,
    143 for SIGTERM, and 141 in silence when the reader of the output has gone (``| head``).
    """
    words = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    # Waiting threads sleep instead of spinning, or a second busy program slows torch many times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # a failed download is one line of ours
    try:
        with _sigterm_raised(), warnings_as_lines():
            code = _run(words)
    except (Terminated, Interrupted, KeyboardInterrupt) as stop:
        ended = isinstance(stop, Terminated)
        kept = stop.args[0] if stop.args else "nothing was written"
        print_error(f"{'terminated' if ended else 'interrupted'}; {kept}")
        code = TERMINATED if ended else INTERRUPTED
    sys.exit(code)


@contextmanager
def _sigterm_raised() -> Iterator[None]:
    """Turn SIGTERM into ``Terminated``; further signals do not cut cleaning up short.

    A signal that comes while an object is finalised, where Python drops exceptions, is sent again.
    """

    def end(number: int, frame: FrameType | None) -> None:
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, signal.SIG_IGN)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def send_again(lost: Any) -> None:
        kinds = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}
        if number := kinds.get(lost.exc_type):
            signal.signal(number, end)
            Timer(0.05, os.kill, (os.getpid(), number)).start()
        else:
            ignored(lost)

    ignored = sys.unraisablehook
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        for one, handler in before.items():
            if handler in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(one, end)
        sys.unraisablehook = send_again
    except ValueError:  # not the main thread: signals are not ours
        before = {}
    try:
        yield
    finally:
        sys.unraisablehook = ignored
        for one, handler in before.items():
            signal.signal(one, handler)


def _run(words: list[str]) -> int:
    """Run the command, and return the exit code."""
    try:
        if any(not word or "\0" in word for word in words):
            print_error(
                "an argument is empty or holds a null byte, expected a name or a value; leave it "
                "out"
            )
            return BAD_INPUT
        verb = next((word for word in words if not word.startswith("-")), "")
        code = app_of(verb)(words, standalone_mode=False)
        if code == INTERRUPTED:  # typer's answer to Ctrl-C
            raise KeyboardInterrupt
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (BrokenPipeError, SystemExit) as stop:
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, BrokenPipeError):
            raise  # typer turns a broken pipe into exit code 1
        discard_stdout()
        return READER_GONE
    except Exception as error:  # one line instead of a traceback, unless asked for
        if "--traceback" in words:
            raise
        print_error(failure_message(error))
        return BAD_INPUT


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"evenslice {__version__}")
        raise typer.Exit


def evenslice(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Measure and remove the slice asymmetry that RGB pretraining leaves in 2D+ models of EM."""


def app_of(*verbs: str) -> typer.Typer:
    """Return the command line with these verbs; the others are lines of the help only."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.callback()(evenslice)
    for name, line in VERBS.items():
        if name not in verbs:
            app.command(name, help=line)(evenslice)
            continue
        module = import_module(f"evenslice.cli.{name}")
        if name == "data":
            app.add_typer(module.data_app, name=name)
        else:
            app.command(name, cls=getattr(module, "Command", None))(getattr(module, name))
    return app
