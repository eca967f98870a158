import io

import pytest

from evenslice.progress import bar, lines, silent


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


def test_lines_come_at_each_quarter(capsys):
    walk(lines, 8, "well")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"walking: {n}/8 well" for n in (2, 4, 6, 8)]


@pytest.mark.parametrize(("total", "shown"), [(0, []), (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (5, [2, 3, 4, 5])])
def test_lines_of_short_ways_end_with_the_last_step(capsys, total, shown):
    walk(lines, total)
    assert capsys.readouterr().err.splitlines() == [f"walking: {n}/{total}" for n in shown]


@pytest.mark.parametrize("progress", [bar, lines])
def test_a_terminal_shows_a_bar(monkeypatch, progress):
    screen = terminal(monkeypatch)
    walk(progress, 4, "loss 0.5")
    for words in ("walking", "4/4", "loss 0.5"):
        assert words in screen.getvalue()


def stumble(progress) -> None:
    with progress("walking", 3) as step:
        step()
        raise RuntimeError("stumbled")


@pytest.mark.parametrize("progress", [silent, bar, lines])
def test_errors_pass_through(progress):
    with pytest.raises(RuntimeError, match="stumbled"):
        stumble(progress)


@pytest.mark.parametrize("progress", [bar, lines])
def test_errors_pass_through_a_bar(monkeypatch, progress):
    terminal(monkeypatch)
    with pytest.raises(RuntimeError, match="stumbled"):
        stumble(progress)
