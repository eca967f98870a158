"""Run the command line in this process, and see what it left in a folder."""

import hashlib
from pathlib import Path

import pytest

from evenslice.cli import app

ERROR, WARNING = "evenslice: error: ", "evenslice: warning: "


def content(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def exit_code(words: list[str]) -> int:
    """Run the command line in this process."""
    with pytest.raises(SystemExit) as stop:
        app.main(words)
    return int(stop.value.code)


def the_error(err: str) -> str:
    """Return the one line of an error among warnings."""
    lines = [line for line in err.splitlines() if not line.startswith(WARNING)]
    assert len(lines) == 1, err
    assert lines[0].startswith(ERROR), err
    return lines[0].removeprefix(ERROR)
