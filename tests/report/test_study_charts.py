"""The drawings of a study: every bar, slope, interval and curve is as large as its number."""

import xml.etree.ElementTree as ET

import pytest
from studies import NETWORKS, TREATMENTS, cell, study

from evenslice.report import study_cells, study_words
from evenslice.report.plots import AFTER, BEFORE, CENTRE
from evenslice.report.study_curves import curve_chart, panels_of
from evenslice.report.study_effects import effect_chart
from evenslice.report.study_plots import finding_chart, shared_of, slope_chart

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def whole():
    return study(pending=6)


@pytest.fixture
def small():
    return study(NETWORKS[:1], ("ISBI 2012",), seeds=2, treatments=("rgb", "green"), five=False)


def drawn(chart):
    return ET.fromstring(chart)


def bars(chart, css="bar"):
    return [one for one in drawn(chart).iter("rect") if one.get("class") == css]


def shared(found):
    rows, treatments = study_cells.finished(found), study_cells.treatments_of(found)
    looks, datasets = study_cells.looks_of(treatments), study_cells.names(rows, "dataset")
    return shared_of(rows, looks, datasets, study_cells.lean_of(found), found["margin"])


def test_groups_are_networks_and_numbers_of_slices(whole):
    groups = study_cells.groups_of(whole)
    assert [(group.title, group.slices, len(group.rows)) for group in groups] == [
        ("unet resnet18, 3 slices", 3, 29),
        ("unet mobilenetv2_100, 3 slices", 3, 30),
        ("dpt vit_tiny_patch16_224, 3 slices", 3, 30),
        ("unet resnet18, 5 slices", 5, 29),
    ]
    assert all(group.treatments == TREATMENTS for group in groups)
    assert [group.title for group in study_cells.groups_of(study(NETWORKS[:1], five=False))] == [
        "unet resnet18"
    ]


def test_slices_are_counted_from_the_shares_where_they_are_not_stated():
    row = cell("unet a", "rgb", "d", 0, slices=5)
    assert study_cells.slices_of(row) == 5
    assert study_cells.slices_of(row | {"slices": None}) == 5
    assert len(study_cells.shares_of(row | {"slices": None}, "_before")) == 5
    assert study_cells.slices_of({}) == 3


@pytest.mark.parametrize("slices", [3, 5])
def test_a_bar_is_as_tall_as_its_share_and_has_the_colour_of_its_side(slices):
    rows = [cell("unet a", "rgb", "d", seed, slices) for seed in range(2)]
    found = {"control": "rgb", "rows": rows, "margin": 0.05}
    chart = finding_chart(study_cells.groups_of(found)[0], shared(found), "i")
    shares = [
        row[f"share_{slot}{end}"]
        for end in ("_before", "")
        for slot in range(slices)
        for row in rows
    ]
    heights = [float(one.get("height")) for one in bars(chart)]
    assert len(heights) == len(shares) == 2 * 2 * slices
    ratios = [tall / share for tall, share in zip(heights, shares, strict=True)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=0.01)
    half = slices // 2
    colours = [*reversed(BEFORE[:half]), CENTRE, *AFTER[:half]]
    assert [one.get("fill") for one in bars(chart)] == 2 * [
        colour for colour in colours for _ in rows
    ]


def test_the_finding_writes_the_pooled_index_and_draws_dice(small):
    group = study_cells.groups_of(small)[0]
    chart = finding_chart(group, shared(small), "i")
    for one in small["lean"]:
        if one["network"] == group.network:
            badge = study_words.lean_badge(one)
            assert (
                f"{one['when']} {study_words.signed(one['value'])} {badge.symbol} {badge.word}"
                in chart
            )
    dots = list(drawn(chart).iter("circle"))
    assert len(dots) == len(small["rows"])
    low, high = shared(small).dice
    for dot, row in zip(
        dots, sorted(small["rows"], key=lambda row: row["treatment"] != "rgb"), strict=True
    ):
        assert float(dot.get("cx")) == pytest.approx(
            780 + 210 * (row["dice"] - low) / (high - low), abs=0.06
        )


def test_control_characters_in_names_leave_the_drawings_readable():
    row = cell("unet a", "r\x00g\x1bb", "d\x07", 0)
    found = {"control": "rgb", "rows": [row], "margin": 0.05}
    chart = finding_chart(study_cells.groups_of(found)[0], shared(found), "i")
    assert "rgb" in "".join(drawn(chart).itertext())


def test_a_slope_joins_before_and_after(small):
    chart = slope_chart(study_cells.groups_of(small)[0], shared(small), "i")
    lines = [one.get("points") for one in drawn(chart).iter("polyline")]
    assert len(lines) == len(small["rows"])
    low, high = shared(small).index
    ends = [[float(point.split(",")[1]) for point in line.split()] for line in lines]
    rows = sorted(small["rows"], key=lambda row: row["treatment"] != "rgb")
    for row, found in zip(rows, ends, strict=True):
        expected = [
            230 - 210 * (row[key] - low) / (high - low)
            for key in ("mirror_index_before", "mirror_index")
        ]
        assert found == pytest.approx(expected, abs=0.06)
    band = bars(chart, "margin")[0]
    assert float(band.get("height")) == pytest.approx(210 * 0.1 / (high - low), abs=0.06)


def test_an_interval_beyond_the_frame_ends_in_a_wedge(small):
    plain = slope_chart(study_cells.groups_of(small)[0], shared(small), "i")
    pooled = next(
        one for one in small["lean"] if one["network"] != "all" and one["treatment"] == "rgb"
    )
    pooled |= {"low": -1.7, "high": 0.9}
    wide = slope_chart(study_cells.groups_of(small)[0], shared(small), "i")
    assert len(list(drawn(wide).iter("polygon"))) == len(list(drawn(plain).iter("polygon"))) + 2


def test_an_effect_lies_where_it_was_measured_and_the_margin_is_shaded():
    one = {
        "treatment": "green",
        "control": "rgb",
        "network": "all",
        "outcome": "dice",
        "margin": 0.01,
    }
    chart = effect_chart(
        [one | {"value": 0.005, "low": -0.02, "high": 0.02, "verdict": "undecided"}], "i"
    )
    middle, scale = 460.0, 230 / 0.02
    dot = next(drawn(chart).iter("circle"))
    assert float(dot.get("cx")) == pytest.approx(middle + 0.005 * scale, abs=0.06)
    band = bars(chart, "margin")[0]
    assert float(band.get("x")) == pytest.approx(middle - 0.01 * scale, abs=0.06)
    assert float(band.get("width")) == pytest.approx(0.02 * scale, abs=0.06)
    assert "? undecided" in chart
    assert "+0.005 (-0.020 to +0.020)" in chart


def test_curves_are_a_line_a_cell_in_each_panel(small):
    panel = panels_of(small["curves"])[0]
    looks = study_cells.looks_of(study_cells.treatments_of(small))
    chart = curve_chart(panel, looks, (-0.2, 0.1), 0.05, "i")
    lines = list(drawn(chart).iter("polyline"))
    assert len(lines) == 3 * len(small["curves"])
    assert [line.get("points").count(",") for line in lines] == [4] * 8 + [5] * 4
    drawn_as = {(line.get("stroke"), line.get("stroke-dasharray")) for line in lines}
    assert drawn_as == {(looks["rgb"].colour, None), (looks["green"].colour, "6 2")}
    without = [
        {**one, "points": [{"steps": 0, "loss": 1.0}, {"steps": 5, "loss": 0.5}]}
        for one in panel.curves
    ]
    chart = curve_chart(panels_of(without)[0], looks, (-0.2, 0.1), None, "i")
    assert chart.count("not looked at during training") == 2


def test_treatments_differ_in_colour_dash_and_marker_and_the_control_is_first():
    found = study(
        NETWORKS[:1], treatments=("green", "rgb", "mean", "random weights", "rgb, reverse-z")
    )
    treatments = study_cells.treatments_of(found)
    assert treatments[0] == "rgb"
    looks = study_cells.looks_of(treatments).values()
    for part in ("colour", "dash", "shape"):
        assert len({getattr(look, part) for look in looks}) == 5
    assert len(study_cells.looks_of([str(number) for number in range(30)])) == 30


def test_the_usual_treatments_look_the_same_in_every_study():
    every = study_cells.looks_of(["rgb", "green", "mean", "random weights", "rgb, reverse-z"])
    some = study_cells.looks_of(["rgb", "own", "rgb, reverse-z"])
    assert some["rgb, reverse-z"] == every["rgb, reverse-z"]
    assert some["own"] == every["green"]
    other = study_cells.looks_of(["green", "rgb"])
    assert other["green"] == every["rgb"]
    assert other["rgb"] == every["green"]


@pytest.mark.parametrize(
    "mixing",
    [
        ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
        ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
        ((1.256, -0.077, -0.179), (-0.078, 0.931, 0.148), (0.005, 0.691, 0.304)),
    ],
    ids=["all cones", "protanopia", "deuteranopia", "tritanopia"],
)
def test_colour_blind_readers_tell_the_treatments_apart(mixing):
    """By the matrices of Machado, Oliveira and Fernandes 2009, doi:10.1109/TVCG.2009.113; 10 is far apart for filled marks."""
    import numpy as np
    from skimage.color import rgb2lab

    colours = np.array(
        [[int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)] for code in study_cells.COLOURS]
    )
    light = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(light @ np.array(mixing).T, 0, 1)
    shown = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(shown[None])[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    assert apart[~np.eye(len(lab), dtype=bool)].min() > 10
    brightness = light @ (0.2126, 0.7152, 0.0722)
    assert (1.05 / (brightness + 0.05)).min() > 3


def test_badges_of_cells_name_the_side():
    row = {"slices": 3, "verdict": "asymmetric", "mirror_low": -0.2, "mirror_high": -0.1}
    assert study_words.cell_badge(row, 0.05).word == "leans to previous"
    assert (
        study_words.cell_badge(row | {"mirror_low": 0.1, "mirror_high": 0.2}, 0.05).word
        == "leans to next"
    )
    assert study_words.cell_badge(row | {"slices": 5}, 0.05).word == "leans to earlier slices"
    assert study_words.cell_badge(row | {"mirror_high": 0.0}, 0.05).word == "leans"
    assert (
        study_words.cell_badge({"verdict": "inconclusive: too few blocks"}, 0.05).word
        == "inconclusive"
    )
    assert study_words.cell_badge({"verdict": "symmetric", "failure": "x"}, 0.05).word == "failed"


def test_badges_of_comparisons_know_what_is_good():
    kinds = {
        (outcome, verdict): study_words.comparison_badge(
            {"outcome": outcome, "verdict": verdict, "margin": 0.01}
        ).kind
        for outcome in ("lean", "dice")
        for verdict in ("lower", "higher", "equivalent", "undecided")
    }
    good = [key for key, kind in kinds.items() if kind == "symmetric"]
    bad = [key for key, kind in kinds.items() if kind == "asymmetric"]
    assert good == [
        ("lean", "lower"),
        ("lean", "equivalent"),
        ("dice", "higher"),
        ("dice", "equivalent"),
    ]
    assert bad == [("lean", "higher"), ("dice", "lower")]
