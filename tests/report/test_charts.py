"""How every chart is drawn: deterministic, without pyplot, legible, as inline SVG or as files."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib
import pytest
from made_audits import audit_of, method_of, scores_of, window_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from studies import NETWORKS, study

from evenslice.errors import BadInputError
from evenslice.report.audit_charts import audit_figure, audits_figure, scores_figure, window_figure
from evenslice.report.charts import save_figure, to_svg
from evenslice.report.run_pages import training_figure
from evenslice.report.study_charts import effects_figure, finding_figure, steps_figure
from evenslice.study.results import Study

EVIL = "<script>alert('&')</script> $x$\x1b"


def small_audit(name="gradient"):
    return audit_of({name: method_of((0.2, 0.5, 0.3))})


def whole():
    return Study.of(
        study(NETWORKS[:1], seeds=2, treatments=("rgb", "green", "random weights, mirror tie"))
    )


FIGURES = {
    "one audit": lambda: audit_figure(small_audit()),
    "two audits": lambda: audits_figure({"rgb": small_audit(), "green": small_audit()}),
    "five slices": lambda: audit_figure(
        audit_of({"gradient": method_of((0.1, 0.2, 0.3, 0.3, 0.1))})
    ),
    "window": lambda: window_figure(window_of("green", (1, 2, 1), (60, 60))),
    "scores": lambda: scores_figure(scores_of()),
    "finding": lambda: finding_figure(whole()),
    "steps": lambda: steps_figure(whole()),
    "effects": lambda: effects_figure(whole()),
    "training": lambda: training_figure([(1.0, 2.0), (2.0, 1.0)], [(2.0, 0.5)]),
}


@pytest.mark.parametrize("kind", FIGURES)
def test_no_text_leaves_the_figure_or_lies_over_another(kind, monkeypatch):
    figure, drawn, draw = FIGURES[kind](), {}, Text.draw
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    monkeypatch.setattr(
        Text, "draw", lambda self, *rest: (drawn.update({self: None}), draw(self, *rest))[1]
    )
    canvas.draw()
    texts = [one for one in drawn if one.get_visible() and one.get_text().strip()]
    boxes = [one.get_window_extent(canvas.get_renderer()) for one in texts]
    width, height = figure.bbox.size
    assert len(texts) > 5
    for text, box in zip(texts, boxes, strict=True):
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, text.get_text()
    for number, box in enumerate(boxes):
        for other, text in zip(boxes[number + 1 :], texts[number + 1 :], strict=True):
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            up = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across < 2 or up < 2, (texts[number].get_text(), text.get_text())


def test_inline_svg_names_itself_and_keeps_to_itself():
    text = to_svg(audit_figure(small_audit()), "one", "A title", "What it shows")
    root = ET.fromstring(text)
    assert (root.find("title").text, root.find("desc").text) == ("A title", "What it shows")
    assert root.get("aria-labelledby") == "one-title one-description"
    idents = [one.get("id") for one in root.iter() if one.get("id")]
    assert len(idents) == len(set(idents))
    other = to_svg(audit_figure(small_audit()), "two", "A title")
    assert not set(idents) & set(re.findall(r'id="([^"]+)"', other)), "both may be on one page"
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    assert used and set(used) <= set(idents)
    assert "http" not in text and "<style" not in text and "<metadata" not in text
    assert "share of importance" in "".join(root.itertext()), "text stays text"
    tips = [one.text for one in root.iter("title")]
    assert "gradient, next: 0.300" in tips


def test_inline_svg_is_the_same_each_time_and_escaped():
    one, two = (to_svg(audit_figure(small_audit(EVIL)), "c", EVIL, EVIL) for _ in range(2))
    assert one == two
    root = ET.fromstring(one)
    assert "<script" not in one
    shown = EVIL.replace("\x1b", "\\x1b")
    assert root.find("title").text == shown and one.count("$x$") > 2


@pytest.mark.parametrize(
    ("ending", "start"), [("svg", b"<?xml"), ("PDF", b"%PDF"), ("png", b"\x89PNG")]
)
def test_a_file_is_the_same_each_time_whatever_the_user_set(tmp_path, ending, start):
    save_figure(audit_figure(small_audit()), tmp_path / f"one.{ending}")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black", "svg.hashsalt": "x"}):
        before = dict(matplotlib.rcParams)
        save_figure(audit_figure(small_audit()), tmp_path / f"two.{ending}")
        assert dict(matplotlib.rcParams) == before
    one, two = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("one", "two"))
    assert one == two and one.startswith(start)
    assert not re.search(rb"dc:date|/CreationDate|tooltip", one)


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(
        BadInputError, match=r"f\.jpg ends in '\.jpg', expected \.svg, \.pdf or \.png"
    ):
        save_figure(audit_figure(small_audit()), tmp_path / "f.jpg")
    assert list(tmp_path.iterdir()) == []


def test_importing_the_pages_imports_neither_torch_nor_matplotlib():
    code = (
        "import sys, evenslice.report.page, evenslice.report.run_pages, evenslice.report.notebook, "
        "evenslice.report.run_pages; sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
