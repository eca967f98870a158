"""How a command ends when it is ended from outside: Ctrl-C, kill, a reader that goes away, streams that are closed or full."""

import os
import select
import signal
import stat
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

PATIENCE_S, AGAIN_S = 60.0, 0.05
_CLOSED: set[int] = set()
_PIPED: set[int] = set()


class Terminated(BaseException):
    """Somebody asked this process to end (SIGTERM): what is half done is removed on the way out."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C."""


@contextmanager
def signals_raised() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into exceptions in the main thread, so that what is half done is removed.

    While one of them is on its way out, others are ignored (for at most a minute), or a second Ctrl-C would cut short what the
    first one has to clean up. A process that inherits the handlers by a fork dies of these signals as it would without them.
    A signal that is ignored, or that the caller handles already, stays so. One that is raised where Python drops what is raised (in
    ``__del__``, say) is raised again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds: tuple[tuple[int, Any, type[BaseException]], ...] = (
        (signal.SIGTERM, signal.SIG_DFL, Terminated),
        (signal.SIGINT, signal.default_int_handler, Interrupted),
    )
    raising = _raiser({number: kind for number, _, kind in kinds})
    before = {
        number: signal.getsignal(number)
        for number, default, _ in kinds
        if signal.getsignal(number) == default
    }
    for number in before:
        signal.signal(number, raising)
    try:
        with _raised_again({number: kind for number, _, kind in kinds if number in before}):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _raised_again(kinds: dict[int, type[BaseException]]) -> Iterator[None]:
    """Send a signal once more when what it raised was dropped."""
    hook, waiting = sys.unraisablehook, [True]

    def send(number: int) -> None:
        if waiting:
            os.kill(os.getpid(), number)

    def dropped(unraisable: Any) -> None:
        number = next(
            (number for number, kind in kinds.items() if isinstance(unraisable.exc_value, kind)),
            None,
        )
        if number is None:
            hook(unraisable)
            return
        timer = threading.Timer(AGAIN_S, send, (number,))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        waiting.clear()
        sys.unraisablehook = hook


def _raiser(kinds: dict[int, type[BaseException]]) -> Callable[[int, FrameType | None], None]:
    owner = os.getpid()
    last: tuple[float, Callable[[], BaseException | None]] = (0.0, lambda: None)

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        when, raised = last
        if raised() is not None and time.monotonic() < when + PATIENCE_S:
            return
        error = kinds[number]()
        last = time.monotonic(), weakref.ref(error)
        try:
            raise error
        finally:
            del error  # or this frame would keep it for ever

    return handle


def open_closed_streams() -> None:
    """Put the null device where a standard stream is closed, so that no file of ours takes its number and none is None."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            _CLOSED.add(number)
            os.set_inheritable(
                os.open(os.devnull, os.O_RDWR), True
            )  # it gets the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 (a stream, for as long as this process lives)
    with suppress(OSError):
        held = os.fstat(1).st_mode
        _PIPED.update({1} if stat.S_ISFIFO(held) or stat.S_ISSOCK(held) else ())


def was_closed(number: int) -> bool:
    """Whether a standard stream was closed when the command began."""
    return number in _CLOSED


def reader_is_gone() -> bool:
    """Whether standard output began as a pipe and nobody reads it any more, or a library found so and let go of it."""
    if not _PIPED:
        return False
    poll = select.poll()
    with suppress(OSError, ValueError):
        poll.register(1, 0)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            return True
    with suppress(OSError):
        return os.fstat(1).st_rdev == os.stat(os.devnull).st_rdev != 0  # noqa: PTH116
    return False


def written_out() -> None:
    """Hand over what was printed, or raise ``OSError``: at the very end it could not be told any more."""
    sys.stdout.flush()


def can_be_flushed() -> bool:
    """Whether what was printed can be handed over."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        return False
    return True


def discard_stream(number: int) -> None:
    """Send what is left in a stream's buffer nowhere: it could not be written, and would fail again at the very end."""
    stream = sys.stdout if number == 1 else sys.stderr
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        stream.flush()
