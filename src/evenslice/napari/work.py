"""Work that can be watched and stopped: what runs in a worker thread, without a line of Qt."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from evenslice.errors import BadInputError, one_line
from evenslice.progress import Step
from evenslice.volume.voxel_size import numbers_of

Tell = Callable[[str, int, int], None]


class StoppedError(Exception):
    """The user asked to stop."""


@dataclass(frozen=True)
class Outcome:
    """How a piece of work ended: with a value, stopped by the user, or with an error in one line."""

    value: Any = None
    stopped: bool = False
    error: str | None = None


class Control:
    """Tells how far a piece of work is, and stops it at its next step.

    Parameters
    ----------
    tell
        Is given a label, the steps done and the steps in all; called in the thread that works.
    """

    def __init__(self, tell: Tell = lambda label, done, total: None) -> None:
        self._tell = tell
        self._asked = threading.Event()

    def stop(self) -> None:
        """Ask the work to stop; safe from any thread."""
        self._asked.set()

    @property
    def asked(self) -> bool:
        """Whether the work was asked to stop."""
        return self._asked.is_set()

    def check(self) -> None:
        """Raise ``StoppedError`` if the work was asked to stop."""
        if self.asked:
            raise StoppedError

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Step]:
        """Show the progress of a verb, see ``evenslice.progress``; a step raises ``StoppedError`` when asked to."""
        done = 0

        def step(note: str = "") -> None:
            nonlocal done
            done += 1
            self._tell(label, done, total)
            self.check()

        self.check()
        self._tell(label, 0, total)
        yield step

    @contextmanager
    def watching(self, module: Any) -> Iterator[None]:
        """Check before every run of a network, or of a copy made meanwhile, so that one long step can be stopped within."""
        asked = self._asked  # no self below: copies of the network are to share it

        def check(*given: Any) -> None:
            if asked.is_set():
                raise StoppedError

        handle = module.register_forward_pre_hook(check)
        try:
            yield
        finally:
            handle.remove()


def attempt(control: Control, task: Callable[[Control], Any]) -> Outcome:
    """Do a piece of work; whatever happens, say how it ended."""
    try:
        control.check()
        return Outcome(value=task(control))
    except StoppedError:
        return Outcome(stopped=True)
    except BadInputError as error:
        return Outcome(error=one_line(str(error)))
    except OSError as error:
        what = error.filename or "a file"
        return Outcome(
            error=one_line(
                f"{what} cannot be used ({error.strerror or error}); choose another, or make room"
            )
        )
    except Exception as error:
        if control.asked:  # code of others may have turned the stop into an error of its own
            return Outcome(stopped=True)
        logging.getLogger("evenslice").exception("unexpected")
        return Outcome(
            error=one_line(f"unexpected {type(error).__name__}: {error}; please report it")
        )


def numbers(text: str, name: str) -> list[float] | None:
    """Read one number or several, separated by commas; None for nothing.

    Raises
    ------
    BadInputError
        If it is something else.
    """
    return numbers_of(text, name) if text.strip() else None
