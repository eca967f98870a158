"""How long steps tell how far they are: a bar on stderr when it is a terminal, else silence."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Step(Protocol):
    """Called after each unit of work, with an optional word on how it goes."""

    def __call__(self, note: str = "") -> None:
        """Advance by one."""


Progress = Callable[[str, int], AbstractContextManager[Step]]


@contextmanager
def silent(label: str, total: int) -> Iterator[Step]:
    """Show nothing."""

    def step(note: str = "") -> None:
        pass

    yield step


@contextmanager
def bar(label: str, total: int) -> Iterator[Step]:
    """Show a bar with rate and time left on stderr, when that is a terminal."""
    if not sys.stderr.isatty():
        with silent(label, total) as step:
            yield step
        return
    from rich import progress
    from rich.console import Console
    from rich.markup import escape

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}"),
    )
    unit = " MB" if "(MB" in label else ""  # of what is fetched and unpacked
    with progress.Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(escape(label), total=total, note="", rate="")

        def advance(note: str = "") -> None:
            bars.advance(task)
            speed = bars.tasks[0].finished_speed or bars.tasks[0].speed
            bars.update(
                task, rate=rate(speed, unit), note=escape(note) or bars.tasks[0].fields["note"]
            )

        yield advance


def rate(speed: float | None, unit: str = "") -> str:
    """Write a rate per second, minute or hour, whichever is above 1; nothing if unknown."""
    if not speed:
        return ""
    for seconds, word in ((1, "s"), (60, "min")):
        if speed * seconds >= 1:
            return f"{_short(speed * seconds)}{unit}/{word}"
    return f"{_short(speed * 3600)}{unit}/h"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


@contextmanager
def lines(label: str, total: int) -> Iterator[Step]:
    """Show a bar on a terminal, else a line of text at each quarter of the way."""
    if sys.stderr.isatty():
        with bar(label, total) as step:
            yield step
        return
    done = 0

    def count(note: str = "") -> None:
        nonlocal done
        done += 1
        if total and (done * 4) // total > ((done - 1) * 4) // total:
            print(f"{label}: {done}/{total} {note}".rstrip(), file=sys.stderr, flush=True)

    yield count
