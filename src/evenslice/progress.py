"""How phases of work tell how far they are: bars on a terminal, else lines of a log; on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any, Protocol

LINE_S, SHORTEST_S = 30.0, 5.0  # between lines of a log, at most; at least, after each tenth
GIVEN_S = 0.1  # what is done before has been done by an earlier run
_displays: list[Any] = []  # that of the outermost phase shows those within it, too


class Step(Protocol):
    """Called after each unit of work, with an optional word on how it goes."""

    def __call__(self, note: str = "") -> None:
        """Advance by one."""


Progress = Callable[[str, int], AbstractContextManager[Step]]
Draw = Callable[[int, str], None]  # takes the number of steps done, and words


@contextmanager
def silent(label: str, total: int) -> Iterator[Step]:
    """Show nothing."""

    def step(note: str = "") -> None:
        pass

    yield step


def prefixed(progress: Progress, word: str) -> Progress:
    """Return the same with a word before the name of each phase."""
    return partial(_prefixed, progress, word)


def _prefixed(
    progress: Progress, word: str, label: str, total: int
) -> AbstractContextManager[Step]:
    return progress(f"{word}: {label}", total)


@contextmanager
def report_progress(label: str, total: int) -> Iterator[Step]:
    """Show a phase of ``total`` steps, 0 if unknown, with its speed and the time that is left.

    On a terminal as a bar; else as a line whenever a tenth more is done, not more often than every
    5 seconds, or 30 seconds have passed.
    """
    began, done, given, last = monotonic(), 0, 0, ""
    unit = " MB" if "(MB" in label else ""  # of what is fetched and unpacked
    with (_bar if sys.stderr.isatty() else _lines)(label, total) as draw:

        def step(note: str = "") -> None:
            nonlocal done, given, last
            done, last = done + 1, note or last
            passed = monotonic() - began
            if passed < GIVEN_S:
                given = done
            speed = (done - given) / passed if passed else 0.0
            left = "" if not speed else f"{duration((total - done) / speed)} left"
            words = f"in {duration(passed)}" if done == total else left
            draw(done, ", ".join(filter(None, (rate(speed, unit), words, last))))

        yield step


@contextmanager
def _bar(label: str, total: int) -> Iterator[Draw]:
    from rich import progress
    from rich.console import Console
    from rich.markup import escape

    with ExitStack() as stack:
        inner = bool(_displays)
        if not inner:
            columns = (
                progress.SpinnerColumn(),
                progress.TextColumn("{task.description}"),
                progress.BarColumn(20),
                progress.TextColumn("{task.fields[words]}"),
            )
            screen = Console(stderr=True)
            shown = progress.Progress(
                *columns, console=screen, transient=not total, redirect_stdout=False
            )
            _displays.append(stack.enter_context(shown))
            stack.callback(_displays.clear)
        display = _displays[0]
        counted = f"0/{total}" if total else ""
        task = display.add_task(escape(label), total=total or None, words=counted)
        if inner:
            stack.callback(display.remove_task, task)

        def draw(done: int, words: str) -> None:
            display.update(task, completed=done, words=escape(f"{done}/{total} {words}"))

        yield draw


@contextmanager
def _lines(label: str, total: int) -> Iterator[Draw]:
    last, tenth = monotonic(), 0
    printed = False

    def draw(done: int, words: str) -> None:
        nonlocal last, tenth, printed
        now, tenths = monotonic(), 10 * done // (total or 1)
        due = tenths > tenth and now - last >= SHORTEST_S
        if due or now - last >= LINE_S or (printed and done == total):
            print(f"{label}: {done}/{total} {words}".rstrip(), file=sys.stderr, flush=True)
            last, tenth, printed = now, tenths, True

    yield draw


def duration(seconds: float) -> str:
    """Write a time as hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


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
