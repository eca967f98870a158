"""Work in a worker thread that can be watched and stopped, without a line of Qt."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError, one_line
from evenslice.progress import Step

Report = Callable[[str, int, int], None]
MAPS = Path("/proc/self/maps")


class StoppedError(Exception):
    """The user asked to stop."""


@dataclass(frozen=True)
class Outcome:
    """How a task ended: with a value, stopped by the user, or with an error in one line."""

    value: Any = None
    stopped: bool = False
    error: str | None = None


class Control:
    """Reports the progress of a task, and stops it at its next step.

    ``report`` is given a label, the steps done and their total; it is called in the worker thread.
    """

    def __init__(self, report: Report = lambda label, done, total: None) -> None:
        self._report = report
        self._stop = threading.Event()

    def stop(self) -> None:
        """Ask the task to stop; safe from any thread."""
        self._stop.set()

    @property
    def is_stopping(self) -> bool:
        """Whether the task was asked to stop."""
        return self._stop.is_set()

    def check(self) -> None:
        """Raise ``StoppedError`` if the task was asked to stop."""
        if self.is_stopping:
            raise StoppedError

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Step]:
        """Show the progress of a verb, see ``evenslice.progress``; its steps may raise."""
        done = 0

        def step(note: str = "") -> None:
            nonlocal done
            done += 1
            self._report(label, done, total)
            self.check()

        self.check()
        self._report(label, 0, total)
        yield step

    @contextmanager
    def watching(self, module: Any) -> Iterator[None]:
        """Check before every run of a network or its copies: a long step can be stopped."""
        stop = self._stop  # no self below: copies of the network are to share it

        def check(*given: object) -> None:
            if stop.is_set():
                raise StoppedError

        handle = module.register_forward_pre_hook(check)
        try:
            yield
        finally:
            handle.remove()


def attempt(control: Control, task: Callable[[Control], Any]) -> Outcome:
    """Run a task and return how it ended, whatever happens."""
    try:
        control.check()
        return Outcome(value=task(control))
    except StoppedError:
        return Outcome(stopped=True)
    except BadInputError as error:
        text = str(error)
    except OSError as error:
        text = (
            f"{error.filename or 'a file'} cannot be used ({error.strerror or error}); choose "
            "another, or make room"
        )
    except Exception as error:
        if control.is_stopping:  # external code may have turned the stop into an error of its own
            return Outcome(stopped=True)
        logging.getLogger("evenslice").exception("unexpected")
        text = f"unexpected {type(error).__name__}: {error}; please report it"
    return Outcome(error=one_line(text))


def keep_triton_out(maps: Path = MAPS) -> bool:
    """Keep triton from being imported where that would end the viewer; return whether it is.

    The OpenGL of Mesa brings the library LLVM with it, triton brings another build of it, and
    loading the second one into the same process is a segmentation fault. torch takes a triton that
    cannot be imported as one that is not installed, and nothing here needs it. Where triton was
    there first all is well.
    """
    if "triton" in sys.modules:
        return sys.modules["triton"] is None
    try:
        found = "libLLVM" in maps.read_text(errors="replace")
    except OSError:  # not Linux
        return False
    if found:
        sys.modules["triton"] = None  # type: ignore[assignment]
    return found


def load_verbs() -> None:
    """Load torch and the verbs in the background, so that the first run does not wait for them."""
    keep_triton_out()
    load = threading.Thread(target=import_module, args=("evenslice.segmentation.run",), daemon=True)
    load.start()
