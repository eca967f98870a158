import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from evenslice.progress import bar, lines, rate, silent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def walk(progress, total: int, note: str = "") -> None:
    with progress("walking", total) as step:
        for _ in range(total):
            step(note)


def terminal(monkeypatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    return screen


@pytest.mark.parametrize("progress", [silent, bar])
def test_without_a_terminal_nothing_is_shown(capsys, progress):
    walk(progress, 5, "well")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("total", "shown"), [(0, []), (1, [1]), (3, [1, 2, 3]), (5, [2, 3, 4, 5]), (8, [2, 4, 6, 8])]
)
def test_lines_come_at_each_quarter_and_at_the_last_step(capsys, total, shown):
    walk(lines, total, "well")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"walking: {n}/{total} well" for n in shown]


@pytest.mark.parametrize("progress", [bar, lines])
def test_a_terminal_shows_a_bar(monkeypatch, progress):
    screen = terminal(monkeypatch)
    walk(progress, 4, "loss 0.5")
    for words in ("walking", "4/4", "loss 0.5"):
        assert words in screen.getvalue()


@pytest.mark.parametrize("shown", [False, True])
@pytest.mark.parametrize("progress", [silent, bar, lines])
def test_errors_pass_through(monkeypatch, progress, shown):
    if shown:
        terminal(monkeypatch)
    with pytest.raises(ZeroDivisionError), progress("walking", 3):
        1 / 0  # noqa: B018


@pytest.mark.parametrize(
    ("speed", "unit", "words"),
    [
        (None, "", ""),
        (0.0, "", ""),
        (123.4, "", "123/s"),
        (1.25, " MB", "1.2 MB/s"),
        (0.5, "", "30/min"),
        (0.02, "", "1.2/min"),
        (0.001, "", "3.6/h"),
    ],
)
def test_rates_are_numbers_above_one(speed, unit, words):
    assert rate(speed, unit) == words


@pytest.mark.parametrize(("label", "unit"), [("walking", "/s"), ("unpacking (MB)", " MB/s")])
def test_a_bar_shows_how_fast_it_goes_and_how_long_it_takes(monkeypatch, label, unit):
    screen = terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "120")
    with bar(label, 50) as step:
        for _ in range(50):
            time.sleep(0.001)
            step("[red]")
    shown = screen.getvalue()
    assert re.search(rf"\d{unit}", shown) and "0:00:00" in shown
    assert "[red]" in shown, "a note is shown as it is"


CHILD = """
import sys, time
from evenslice.progress import bar
with bar("walking", 1000) as step:
    for _ in range(1000):
        time.sleep(0.01)
        step()
"""


def test_ctrl_c_gives_the_cursor_back():
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stderr=slave, stdout=subprocess.PIPE, env=environment
    )
    os.close(slave)
    shown = b""
    try:
        while b"/1000" not in shown:
            shown += os.read(master, 4096)
        child.send_signal(signal.SIGINT)
        while child.poll() is None or select.select([master], [], [], 0.2)[0]:
            try:
                shown += os.read(master, 4096)
            except OSError:  # the other end is closed
                break
    finally:
        child.kill()
        out, _ = child.communicate()
        os.close(master)
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l") > -1, "the cursor is shown again"
    assert out == b""
