"""Text from outside, made fit to be read: nothing in it commands a terminal, or turns the order in which it is read."""

import re

# Controls but tab and newline, marks of direction, separators of lines, what has no width, halves of characters, tags.
_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    r"""Return a text with characters that are not to be shown written out, such as ``\x1b`` or ``\u202e``.

    File names, names in archives, labels and metadata of strangers come to the terminal and onto pages through this. Tabs and
    newlines stay.
    """
    return _UNFIT.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str) -> str:
    """Return a text on one line, made fit to be read."""
    return printable(" ".join(line.strip() for line in text.splitlines() if line.strip()))
