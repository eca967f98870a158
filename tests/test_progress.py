import io
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from evenslice import progress
from evenslice.progress import prefixed, rate, report_progress, silent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """The time, in a list of one number."""
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def terminal(monkeypatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    return shown


def walk(shown, total: int, clock, seconds: float, note: str = "") -> None:
    with shown("walking", total) as step:
        for _ in range(total):
            clock[0] += seconds
            step(note)


@pytest.mark.parametrize(
    ("total", "seconds", "shown"),
    [
        (0, 1, []),
        (1, 1, []),
        (100, 0.04, []),  # of no use: it is over in four seconds
        (4, 10, [1, 2, 3, 4]),
        (100, 1, range(10, 101, 10)),
        (20, 1, [5, 10, 15, 20]),  # no more often than every five seconds
        (100, 10, [n for n in range(1, 101) if n % 10 in (0, 3, 6, 9)]),  # every 30 s, too
    ],
)
def test_a_log_has_a_line_each_tenth_or_half_minute(capsys, clock, total, seconds, shown):
    walk(report_progress, total, clock, seconds, "well")
    out, err = capsys.readouterr()
    lines = [line.split(" ")[1] for line in err.splitlines()]
    assert lines == [f"{n}/{total}" for n in shown]
    assert all(
        line.startswith("walking: ") and line.endswith(", well") for line in err.splitlines()
    )
    assert out == ""


def test_speed_and_time_left_leave_out_what_an_earlier_run_did(capsys, clock):
    with prefixed(report_progress, "rgb")("training", 100) as step:
        for _ in range(40):
            step()
        for _ in range(60):
            clock[0] += 2
            step("Dice 0.8")
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "rgb: training: 43/100 30/min, 0:01:54 left, Dice 0.8"
    assert last == "rgb: training: 100/100 30/min, in 0:02:00, Dice 0.8"


def test_a_terminal_shows_a_bar_and_a_phase_within_it(monkeypatch, clock):
    screen = terminal(monkeypatch)
    with report_progress("walking", 2) as step:
        clock[0] += 2
        step("[red] loss 0.5")
        with report_progress("resting", 0):
            time.sleep(0.3)  # it is drawn ten times a second
    for words in ("walking", "1/2", "30/min, 0:00:02 left, [red] loss 0.5", "resting"):
        assert words in screen.getvalue(), words
    with report_progress("again", 1):
        pass  # the first display is closed


@pytest.mark.parametrize("shown", [silent, report_progress])
def test_short_work_is_silent_without_a_terminal(capsys, clock, shown):
    walk(shown, 5, clock, 0.1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shown", [False, True])
def test_errors_pass_through(monkeypatch, shown):
    if shown:
        terminal(monkeypatch)
    with pytest.raises(ZeroDivisionError), report_progress("walking", 3):
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


CHILD = """
import sys, time
from evenslice.progress import report_progress
with report_progress("walking", 1000) as step:
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
