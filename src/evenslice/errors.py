"""The one kind of error that a user sees as a single line."""

import re
from typing import Any

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
