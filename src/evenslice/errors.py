"""The one kind of error that a user sees as a single line."""

import re
from typing import Any

# Controls but tab and newline, marks of direction, separators of lines, what has no width, halves of characters, tags.
_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def escape_control_chars(text: str) -> str:
    r"""Return a text with characters that are not to be shown written out, such as ``\x1b`` or ``\u202e``.

    File names, names in archives, labels and metadata of strangers come to the terminal and onto pages through this. Tabs and
    newlines stay.
    """
    return _UNFIT.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str) -> str:
    """Return a text on one line, made fit to be read."""
    return escape_control_chars(
        " ".join(line.strip() for line in text.splitlines() if line.strip())
    )


LONGEST = 4000
_ENDLESS = re.compile(r"[^\s/]{401,}")  # longer than any name in a path


class BadInputError(ValueError):
    """Something the user gave cannot be used.

    The message says what was found, what was expected and what to do. The command line prints it as one line
    and exits with 2. Of what is quoted from a file the middle is left out where it would fill the screen.
    """

    def __init__(self, message: Any = "") -> None:
        super().__init__(_shortened(str(message)))


def _shortened(text: str) -> str:
    text = _ENDLESS.sub(lambda found: f"{found[0][:200]}...{found[0][-100:]}", text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1005]} ... {text[-1000:]}"
