import base64
import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from evenslice.report import plots
from evenslice.report.plots import Bars, Dot


def opened(source):
    head, body = source.split(",", 1)
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


def bars(slots, label="gradient"):
    shares = [1 / slots] * slots
    return Bars(
        label, shares, [share - 0.02 for share in shares], [share + 0.02 for share in shares]
    )


@pytest.mark.parametrize("slots", [1, 3, 5, 9])
def test_one_bar_per_slot_in_valid_xml(slots):
    svg = ET.fromstring(plots.share_bars("model", [bars(slots), bars(slots, "shapley")], 1.0, "c"))
    drawn = svg.findall("rect[@class='bar']")
    assert len(drawn) == 2 * slots
    assert len(svg.findall("line[@class='whisker']")) == 2 * slots
    assert len({bar.get("fill") for bar in drawn}) == slots
    assert svg.findtext("title") == "model"
    assert "shapley" in svg.findtext("desc")
    assert f"1/{slots}" in [text.text for text in svg.findall("text")]


def test_bars_whiskers_and_line_stand_at_their_values():
    chart = Bars("gradient", [0.2, 0.5, 0.3], [0.15, 0.45, 0.25], [0.25, 0.55, 0.35])
    svg = ET.fromstring(plots.share_bars("model", [chart], 1.0, "c"))
    drawn = svg.findall("rect[@class='bar']")
    tall = [float(bar.get("height")) for bar in drawn]
    one = tall[1] / 0.5
    foot = float(drawn[0].get("y")) + tall[0]
    assert tall == pytest.approx([0.2 * one, 0.5 * one, 0.3 * one], abs=0.1)
    ends = [(float(w.get("y1")), float(w.get("y2"))) for w in svg.findall("line[@class='whisker']")]
    assert ends[0] == pytest.approx((foot - 0.15 * one, foot - 0.25 * one), abs=0.1)
    dashed = svg.find("line[@class='even-line']")
    assert dashed.get("stroke-dasharray")
    assert float(dashed.get("y1")) == pytest.approx(foot - one / 3, abs=0.1)


def test_sides_have_their_own_colours():
    assert plots.slot_colour(-1) in plots.BEFORE
    assert plots.slot_colour(2) in plots.AFTER
    assert plots.slot_colour(0) == plots.CENTRE


def test_missing_shares_and_intervals_are_drawn_as_nothing():
    chart = Bars("gradient", [None, float("nan"), 0.4], [], [])
    svg = ET.fromstring(plots.share_bars("model", [chart], plots.share_top([chart]), "c"))
    assert [bar.get("height") != "0.0" for bar in svg.findall("rect[@class='bar']")] == [
        False,
        False,
        True,
    ]
    assert not svg.findall("line[@class='whisker']")
    assert [text.text for text in svg.findall("text")].count("–") == 2


def test_charts_escape_and_drop_control_characters():
    text = plots.share_bars("<script>&\x00", [bars(3, "<b>")], 1.0, "c")
    assert "<script>" not in text
    assert ET.fromstring(text).findtext("title") == "<script>&"


def test_share_top_covers_every_interval():
    assert plots.share_top([Bars("a", [0.4], [0.3], [0.61])]) == pytest.approx(0.7)
    assert plots.share_top([Bars("a", [1.0], [1.0], [1.0])]) == 1.0
    assert plots.share_top([]) > 0


@pytest.mark.parametrize("reach", [0.01, 0.3, 1.0])
def test_the_strip_places_dots_in_proportion_and_inside(reach):
    dots = [
        Dot("a", "gradient", reach, reach * 0.9, reach),
        Dot("a", "shapley", -reach / 2, None, None),
    ]
    svg = ET.fromstring(plots.index_strip(dots, 0.05, ("previous", "next"), "s"))
    width = float(svg.get("width"))
    right, left = (
        float(dot.get("cx")) - plots.MIDDLE for dot in svg.findall("circle[@class='dot']")
    )
    assert right > 0
    assert left == pytest.approx(-right / 2, abs=0.1)
    assert plots.MIDDLE + right <= width
    band = svg.find("rect[@class='margin']")
    assert float(band.get("width")) / 2 == pytest.approx(right * 0.05 / reach, rel=0.02)


def test_the_strip_names_each_model_once_and_takes_missing_values():
    dots = [
        Dot("one", "gradient", 0.0, 0.0, 0.0),
        Dot("one", "shapley", None, None, None),
        Dot("two", "x", 0.1, 0.0, 0.2),
    ]
    svg = ET.fromstring(plots.index_strip(dots, None, ("earlier slices", "later slices"), "s"))
    words = [text.text for text in svg.findall("text")]
    assert words.count("one") == words.count("two") == words.count("–") == 1
    assert len(svg.findall("circle")) == 2
    assert svg.find("rect[@class='margin']") is None


def test_a_dot_is_coloured_only_beyond_the_margin():
    dots = [
        Dot("a", "m", -0.2, -0.3, -0.1),
        Dot("a", "n", 0.2, 0.1, 0.3),
        Dot("a", "o", 0.06, 0.04, 0.08),
    ]
    svg = ET.fromstring(plots.index_strip(dots, 0.05, ("previous", "next"), "s"))
    assert [dot.get("fill") for dot in svg.findall("circle")] == [
        plots.BEFORE[0],
        plots.AFTER[0],
        plots.INK,
    ]
