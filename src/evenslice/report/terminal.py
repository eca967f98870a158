"""The terminal: tables and lines whose text cannot command it, whoever named the files and wrote the metadata."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from evenslice.printable import printable


class Terminal(Console):
    """A console of rich that writes out control characters in what it is given; its own colours stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Turn a text or table into pieces of text with a style."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else Segment(printable(piece.text), piece.style)


def say(text: object) -> None:
    """Print a line."""
    print(printable(str(text)))
