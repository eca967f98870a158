"""The command line: parse, call a verb, write, exit code."""

import json as jsonlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli import options
from evenslice.cli.audit import audit
from evenslice.cli.data import data_app
from evenslice.cli.evaluate import evaluate
from evenslice.cli.export import export
from evenslice.cli.output import (
    check_json,
    files_of,
    print_error,
    reason_of,
    stdout_to_stderr,
    warn,
    warn_of_code,
    write_json,
    write_text,
)
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


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to.")] = Path(
        "evenslice-demo"
    ),
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    json: options.Json = None,
    force: options.Force = False,
    traceback: options.Traceback = False,
) -> None:
    """Train with an rgb and a green stem on bundled data, audit both, write one page; offline."""
    from evenslice.progress import lines
    from evenslice.volume.atomic import folder_written_beside

    check_json(json, force)
    with folder_written_beside(out, force) as folder:
        print(
            "evenslice demo: a phantom volume, two networks, one difference between them; about two minutes",
            file=sys.stderr,
        )
        from evenslice.model.provenance import command_line
        from evenslice.report.pages import write_demo_page
        from evenslice.report.tables import print_demo
        from evenslice.report.terminal import say
        from evenslice.verbs.demo import run_demo

        result = run_demo(folder, seed=seed, device=device.value, progress=lines)
        write_text(folder / "demo.json", jsonlib.dumps(result.to_dict(), indent=2) + "\n")
        write_demo_page(folder / "report.html", result, command_line())
    write_json(json, result.to_dict(), force)
    if json != "-":
        print_demo(result)
        say(f"The page: {out / 'report.html'}")


app.command()(audit)


@app.command()
def inspect(
    source: Annotated[
        str, typer.Argument(metavar="MODEL|VOLUME", help="A model in any form, or a volume.")
    ],
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Measure the response to the reversal; exit 1 if it is not even."
        ),
    ] = False,
    slices: options.Slices = None,
    mean: options.Mean = None,
    std: options.Std = None,
    seed: options.Seed = 0,
    json: options.Json = None,
    force: options.Force = False,
    traceback: options.Traceback = False,
) -> int:
    """Show a model's stem, or what was understood of a volume."""
    from evenslice.progress import bar
    from evenslice.report.tables import print_inspected
    from evenslice.verbs.inspect import inspect as run

    check_json(json, force, *files_of(source))
    warn_of_code(source)
    with stdout_to_stderr():
        result = run(
            source,
            verify=verify,
            slices=slices,
            mean=options.numbers(mean, "--mean"),
            std=options.numbers(std, "--std"),
            seed=seed,
            progress=bar,
        )
    write_json(json, result.to_dict(), force)
    if json != "-":
        print_inspected(result)
    return (
        options.FAILED_CHECK
        if result.certificate is not None and not result.certificate.symmetric
        else 0
    )


@app.command()
def fix(
    model: options.ModelName,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="The fixed model: .safetensors, or .pt2 or .onnx like MODEL."
        ),
    ],
    tie: Annotated[
        options.TieName, typer.Option(help="Kept when training goes on.")
    ] = options.TieName.none,
    init: Annotated[
        options.InitName | None,
        typer.Option(help="Replace the stem instead of averaging it; needs retraining."),
    ] = None,
    tta: Annotated[
        options.TtaName,
        typer.Option(
            help="Leave the weights alone; answer as the mean over each window and its reversal."
        ),
    ] = options.TtaName.none,
    slices: options.Slices = None,
    mean: options.Mean = None,
    std: options.Std = None,
    audit: Annotated[
        Path | None, typer.Option(metavar="VOLUME", help="Audit before and after on this volume.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Truth of that volume.")] = None,
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    json: options.Json = None,
    force: options.Force = False,
    traceback: options.Traceback = False,
) -> None:
    """Make the stem of a trained model even, without retraining, and say what changed."""
    from evenslice.progress import bar
    from evenslice.report.fixed_table import print_fixed
    from evenslice.verbs.fix import fix as run

    check_json(json, force, *files_of(model), out, audit, labels)
    warn_of_code(model)
    with stdout_to_stderr():
        result = run(
            model,
            out,
            tie=tie.value,
            init=None if init is None else init.value,
            tta=tta.value,
            slices=slices,
            mean=options.numbers(mean, "--mean"),
            std=options.numbers(std, "--std"),
            volume=audit,
            labels=labels,
            seed=seed,
            device=device.value,
            force=force,
            progress=bar,
        )
    for note in result.warnings:
        warn(note)
    write_json(json, result.to_dict(), force)
    if json != "-":
        print_fixed(result, out)


app.command(cls=TrainCommand)(train)
app.command()(segment)
app.command()(evaluate)
app.command()(study)
app.command()(export)
app.add_typer(data_app, name="data")
