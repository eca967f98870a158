"""What notebooks show of audits and scores, and the figures of a result as files."""

import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from made_audits import around, audit_of, method_of, scores_of, window_of
from studies import NETWORKS, study

from evenslice import evaluate
from evenslice.errors import BadInputError
from evenslice.evidence.result import Check
from evenslice.report.notebook import save_figures

EVIL = "<script>alert('&')</script>"


def objects():
    truth = np.zeros((2, 8, 8), np.int32)
    truth[:, :4], truth[:, 5:] = 1, 2
    return evaluate(np.where(truth == 2, 1, truth), truth, as_="instances")


def texts_of(html):
    """The text of every cell and paragraph; fails on tags that are not ours."""
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            assert tag in {"p", "small", "table", "thead", "tbody", "tr", "th", "td"} and not attrs

        def handle_data(self, data):
            found.append(data)

    Reader().feed(html)
    return [text for text in found if text.strip()]


def test_a_notebook_shows_all_text_as_text():
    check = Check(1.0, 0.1, False, "")
    made = audit_of({EVIL: method_of((0.1, 0.6, 0.3))}, checks={EVIL: check}, lag=around(0.5, 0.1))
    texts = texts_of(made._repr_html_())
    assert EVIL in texts and any(
        text.startswith(f"Sanity checks failed ({EVIL})") for text in texts
    )
    assert "64 windows of 256 x 256 in 16 blocks, seed 7" in texts
    made = scores_of(warnings=(EVIL,), trained_slices=((0, 3),), ignore=9)
    shown = texts_of(made._repr_html_())
    assert shown[:6] == ["class", "Dice", "IoU", "1", "0.750", "0.600"] and EVIL in shown
    assert any("trained on slices 0:3" in text and "label 9" in text for text in shown)
    assert any("VOI merge" in text for text in texts_of(objects()._repr_html_()))


def test_figures_are_shown_without_a_screen_or_pyplot(monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    for result in (audit_of({"gradient": method_of((0.1, 0.6, 0.3))}), scores_of()):
        assert result.plot()._repr_png_().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules


MADE = {
    "audit": lambda: audit_of(
        {"gradient": method_of((0.1, 0.6, 0.3))}, views=(window_of("green", (1, 2, 1), (30, 30)),)
    ),
    "scores": scores_of,
    "study": lambda: study(
        NETWORKS[:1], ("ISBI 2012",), seeds=1, treatments=("rgb", "green"), five=False
    ),
}
NAMES = {
    "audit": ["audit", "window-1"],
    "scores": ["scores"],
    "study": ["finding", "steps", "effects"],
}


@pytest.mark.parametrize("kind", MADE)
def test_the_same_result_gives_the_same_files(tmp_path, kind):
    one, two = (save_figures(MADE[kind](), tmp_path / one / "deep", ["svg"]) for one in "ab")
    assert [path.name for path in one] == [f"{name}.svg" for name in NAMES[kind]]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


@pytest.mark.parametrize(
    ("result", "formats", "found"),
    [
        (scores_of(), ("jpg",), "the format is 'jpg'"),
        (scores_of(), (), "the format is empty"),
        ([1], ("svg",), "no figures of a list"),
        ({"rows": []}, ("svg",), "nothing to draw"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_nothing_written(tmp_path, result, formats, found):
    with pytest.raises(BadInputError, match=found):
        save_figures(result, tmp_path / "out", formats)
    assert list(tmp_path.iterdir()) == []
