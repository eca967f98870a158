"""The terminal: tables and lines whose text cannot command it, whoever named the files and wrote the metadata."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from evenslice.errors import escape_control_chars


class Terminal(Console):
    """A console of rich that writes out control characters in what it is given; its own colours stay."""

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn words into a text with styles, before its width is measured."""
        return super().render_str(escape_control_chars(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Turn a text or table into pieces of text with a style."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else Segment(escape_control_chars(piece.text), piece.style)


def say(text: object) -> None:
    """Print a line."""
    print(escape_control_chars(str(text)))
