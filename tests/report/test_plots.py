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
    return Bars(label, shares, [share - 0.02 for share in shares], [share + 0.02 for share in shares])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_grey_levels_span_the_limits_in_every_type(dtype):
    image = np.linspace(0, 200, 60).reshape(6, 10).astype(dtype)
    grey = opened(plots.grey_png(image, (0.0, 200.0)))
    assert grey.shape == (6, 10)
    assert grey.min() == 0
    assert grey.max() == 255
    assert np.all(np.diff(grey.ravel().astype(int)) >= 0)


def test_negative_intensities_keep_their_order():
    image = np.array([[-300, 0, 300]], dtype=np.int16)
    assert plots.grey_levels(image, plots.grey_limits([image])).tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_constant_slice_is_mid_grey(value):
    image = np.full((4, 5), value, dtype=np.uint8)
    assert np.all(plots.grey_levels(image, plots.grey_limits([image])) == 128)


def test_missing_values_are_black_and_do_not_set_the_scale():
    image = np.array([[np.nan, 1.0, 2.0, np.inf]], dtype=np.float32)
    limits = plots.grey_limits([image])
    assert 1 <= limits[0] < limits[1] <= 2
    assert plots.grey_levels(image, limits).tolist() == [[0, 0, 255, 255]]
    assert plots.grey_limits([np.full((2, 2), np.nan)]) == (0.0, 0.0)


def test_a_nearly_constant_slice_keeps_its_single_bright_pixel():
    image = np.zeros((100, 100))
    image[3, 4] = 1
    assert plots.grey_levels(image, plots.grey_limits([image]))[3, 4] == 255


def test_no_importance_leaves_the_grey_picture_unchanged():
    grey = np.random.default_rng(0).integers(0, 256, (7, 9), dtype=np.uint8)
    assert np.array_equal(plots.overlay(grey, np.zeros((7, 9))), np.repeat(grey[..., None], 3, axis=2))


def test_importance_changes_only_its_own_pixel_and_more_of_it_is_brighter():
    grey = np.full((3, 3), 90, dtype=np.uint8)
    importance = np.zeros((3, 3))
    importance[1, 1], importance[0, 0] = 1.0, 0.4
    picture = plots.overlay(grey, importance).astype(int)
    changed = np.any(picture != 90, axis=2)
    assert changed.sum() == 2
    assert picture[1, 1].sum() > picture[0, 0].sum()


def test_strength_has_one_scale_for_all_slots():
    attribution = np.ones((3, 8, 8), dtype=np.float32) * np.array([1, 4, 2], dtype=np.float32)[:, None, None]
    assert plots.strength(attribution)[:, 0, 0].tolist() == [0.25, 1.0, 0.5]


def test_strength_of_nothing_and_of_one_pixel():
    attribution = np.zeros((3, 40, 40), dtype=np.float32)
    assert not plots.strength(attribution).any()
    attribution[0, 0, 0], attribution[1, 1, 1] = 2.0, np.nan
    assert plots.strength(attribution).sum() == 1


def test_labels_are_grey_for_probabilities_and_coloured_for_numbers():
    assert opened(plots.labels_png(np.array([[0.0, 0.5, 1.0]]))).tolist() == [[0, 128, 255]]
    numbers = np.array([[-1, 0, 1, 2, 8, 9]])
    colours = [tuple(pixel) for pixel in opened(plots.labels_png(numbers, numbered=True))[0].tolist()]
    assert len(set(colours[:5])) == 5
    assert colours[5] == colours[2]


def test_large_pictures_shrink_and_keep_their_shape():
    assert opened(plots.grey_png(np.zeros((600, 300)), (0, 1), most=20_000)).shape == (200, 100)
    assert opened(plots.grey_png(np.zeros((600, 1)), (0, 1), most=50)).shape == (173, 1)


def test_colour_key_starts_at_grey():
    key = opened(plots.colour_key())
    assert key[0, 0].tolist() == [128, 128, 128]
    assert len({tuple(pixel) for pixel in key[0].tolist()}) > 100


@pytest.mark.parametrize(
    ("width", "nm", "bar"),
    [(160, 6.0, (20.833, "200 nm")), (1024, 6.0, (32.552, "2 µm")), (100, 0.05, (20.0, "1 nm"))],
)
def test_scale_bar_is_round_and_true(width, nm, bar):
    per_cent, words = plots.scale_bar(width, nm)
    assert (round(per_cent, 3), words) == bar
    assert per_cent <= 100 / 3


@pytest.mark.parametrize("nm", [0.0, -1.0, float("nan"), float("inf")])
def test_no_scale_bar_without_a_voxel_size(nm):
    assert plots.scale_bar(160, nm) is None


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
    assert [bar.get("height") != "0.0" for bar in svg.findall("rect[@class='bar']")] == [False, False, True]
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
    dots = [Dot("a", "gradient", reach, reach * 0.9, reach), Dot("a", "shapley", -reach / 2, None, None)]
    svg = ET.fromstring(plots.index_strip(dots, 0.05, ("previous", "next"), "s"))
    width = float(svg.get("width"))
    right, left = (float(dot.get("cx")) - plots.MIDDLE for dot in svg.findall("circle[@class='dot']"))
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
    dots = [Dot("a", "m", -0.2, -0.3, -0.1), Dot("a", "n", 0.2, 0.1, 0.3), Dot("a", "o", 0.06, 0.04, 0.08)]
    svg = ET.fromstring(plots.index_strip(dots, 0.05, ("previous", "next"), "s"))
    assert [dot.get("fill") for dot in svg.findall("circle")] == [plots.BEFORE[0], plots.AFTER[0], plots.INK]
