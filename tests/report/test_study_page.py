import base64
import hashlib
import json
import re
import xml.etree.ElementTree as ET

import pytest
from studies import NETWORKS, TREATMENTS, cell, failed, study
from test_page import Reader

from evenslice.report import study_cells, study_words, svg
from evenslice.report.plots import AFTER, BEFORE, CENTRE
from evenslice.report.study_curves import curve_chart, panels_of
from evenslice.report.study_effects import effect_chart
from evenslice.report.study_page import render_study, write_study_page
from evenslice.report.study_plots import finding_chart, shared_of, slope_chart
from evenslice.report.tables import print_study
from evenslice.report.verdict import fixed

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def whole():
    return study(pending=6)


@pytest.fixture(scope="module")
def page(whole):
    return render_study(whole, "evenslice study studies/small.toml --out small")


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


def test_the_page_is_well_formed_and_every_control_has_a_label(page):
    reader = Reader(page)
    assert reader.all("html") == [{"lang": "en"}]
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for attrs in reader.all("a"):
        assert attrs["href"].startswith("https://arxiv.org/") or attrs["href"][1:] in ids
    for _, attrs in reader.tags:
        assert all(ident in ids for ident in attrs.get("aria-labelledby", "").split())
    assert all(attrs.get("scope") for attrs in reader.all("th"))
    assert len(reader.all("h1")) == 1
    assert page.count("<select") == page.count("<label>Network<") * 6 == 6
    assert all("aria-label" in attrs for _, attrs in reader.tags if attrs.get("role") == "region")


@pytest.mark.parametrize("verdict", ["yes", "no", "undecided"])
def test_the_claims_come_first_and_say_their_verdict_first(verdict):
    found = study(NETWORKS[:1], seeds=2, five=False, verdict=verdict)
    html = render_study(found, "c")
    text = Reader(html).text
    last = 0
    for claim in found["claims"]:
        words = study_words.answer(claim, "rgb")
        assert words.startswith({"yes": "Yes: ", "no": "No: ", "undecided": "Undecided: "}[verdict])
        told = f"{study_words.question(claim)} {words} {claim['sentence']}"
        assert last < text.index(told) < text.index("What each treatment changes")
        last = text.index(told)
    assert html.index(found["claims"][2]["sentence"]) < min(html.index("<table"), html.index("<svg"))


def test_the_order_of_the_page(page):
    heads = ("effects", "finding", "slopes", "curves", "cells", "failures", "method", "settings", "reproduce", "cite")
    places = [page.index(f'<section id="{name}"') for name in heads]
    assert places == sorted(places)
    assert re.findall(r'<section id="([a-z]+)"', page) == list(heads)


def test_nothing_is_loaded_and_only_its_own_script_may_run(page):
    reader = Reader(page)
    assert not [tag for tag, _ in reader.tags if tag in {"link", "iframe", "object", "embed", "img"}]
    assert not [name for _, attrs in reader.tags for name in attrs if name in ("src", "onclick", "srcset")]
    assert "@import" not in page
    assert "url(" not in page
    assert set(re.findall(r"https?://[^\s\"'<)]+", page)) == {"https://arxiv.org/abs/2505.14105"}
    policy = next(attrs["content"] for attrs in reader.all("meta") if "http-equiv" in attrs)
    script = re.search("<script>(.*)</script>", page, re.DOTALL).group(1)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{allowed}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_every_text_from_outside_is_escaped():
    evil = "<script>alert('1')</script>&\"'`"

    def spoiled(value, key=""):
        if isinstance(value, dict):
            renamed = {evil: evil} if key in ("settings", "versions") else value
            return {name: spoiled(one, name) for name, one in renamed.items()}
        if isinstance(value, list):
            return [spoiled(one) for one in value]
        keep = (
            ("schema", "when", "outcome", "failure")
            if value != "out of GPU memory; use a smaller batch or crop"
            else ()
        )
        return evil if isinstance(value, str) and key not in keep else value

    found = spoiled(study(NETWORKS[:1], five=False))
    html = render_study(found, evil)
    assert html.count("<script") == 1
    reader = Reader(html)
    assert len(reader.all("script")) == 1
    assert reader.text.count("alert('1')") > 300
    for section in ("effects", "finding", "slopes", "curves", "cells", "failures", "settings", "reproduce"):
        assert "&lt;script&gt;" in html.partition(f'<section id="{section}"')[2].partition("</section>")[0], section


def test_every_number_of_every_cell_is_in_the_table(page, whole):
    table = Reader(page.partition('<table id="cells-table">')[2].partition("</table>")[0].join(["<p>", "</p>"])).text
    for row in whole["rows"]:
        if row["failure"]:
            assert (
                f"{row['network']} {row['treatment']} {row['dataset']} foreground {row['seed']} – – – – – ✗ failed"
                in table
            )
            continue
        assert f"{row['seed']} {fixed(row['dice'])} {fixed(row['iou'])}" in table
        for end in ("_before", ""):
            ends = study_words.signed_interval(row[f"mirror_low{end}"], row[f"mirror_high{end}"])
            assert f"{study_words.signed(row[f'mirror_index{end}'])} {ends}" in table


def test_every_comparison_and_every_lean_is_in_a_table(page, whole):
    text = Reader(page).text
    for one in [*whole["comparisons"], *whole["lean"]]:
        assert f"{study_words.signed(one['value'])} {study_words.signed_interval(one['low'], one['high'])}" in text
    for one in whole["comparisons"]:
        ps = " ".join(study_words.p_words(one[key]) for key in ("p", "p_holm", "p_signflip"))
        same = "– –" if one["margin"] is None else "0.01 0.021 (0.021)"
        ends = study_words.signed_interval(one["low"], one["high"])
        badge = study_words.comparison_badge(one)
        told = f"{ends} {ps} {same} {one['cells']} {one['datasets']} {badge.symbol} {badge.word}"
        assert told.replace("\u00a0", " ") in text


def test_a_study_that_is_not_finished_says_so_on_top(whole, page):
    told = "This study is not finished: 120 of 126 cells are done, 6 pending."
    assert told in Reader(page).text
    assert page.index(told) < page.index('class="verdicts"')
    done = render_study(study(NETWORKS[:1], seeds=1, treatments=("rgb", "green"), five=False), "c")
    assert "not finished" not in done
    assert "None of the cells that were run failed." in done


def test_failures_are_told_with_their_reasons(page):
    part = Reader(
        page.partition('<section id="failures"')[2].partition("</section>")[0].join(["<section", "</section>"])
    ).text
    assert "unet resnet18, green ISBI 2012, foreground, seed 1 out of GPU memory; use a smaller batch or crop" in part
    assert "RuntimeError: the loss is not finite at step 57" in part


def test_the_method_the_settings_the_command_and_the_citation(page):
    text = Reader(page).text
    for words in ("data set as a block", "Holm", "two one-sided tests", "0.01 Dice", "±0.05", "descriptive", "95 %"):
        assert words in text
    assert "evenslice study studies/small.toml --out small" in text
    assert "gradient; 40 windows, margin 0.05" in text
    assert "torch 2.9.0" in text
    assert "arXiv 2505.14105" in text
    assert "version 0.1.0" in text


@pytest.mark.parametrize("found", [{}, {"name": "n", "cells": 3, "done": 0, "rows": [], "claims": [], "curves": []}])
def test_a_study_of_which_nothing_is_done_is_still_a_page(found):
    text = Reader(render_study(found, "c")).text
    assert "No claim is decided" in text
    assert "None" not in text.replace("None of the cells", "")


def test_missing_numbers_are_dashes(small):
    row = small["rows"][0]
    for key in ("dice", "iou", "mirror_low", "mirror_high_before", "share_0", "seconds"):
        row[key] = None
    row["mirror_index_before"] = float("nan")
    small["lean"][0] |= {"low": None, "high": None, "p_holm": None}
    small["comparisons"][0] |= {"value": None, "low": None, "high": None, "p": None, "verdict": "undecided"}
    small["curves"][0]["points"][1] = {"steps": 50}
    html = render_study(small, "c")
    text = Reader(html).text
    assert "nan" not in re.findall("[a-z]+", html.lower())
    assert "None" not in text.replace("None of the cells", "")
    assert "no interval" in text
    assert "– / 0.51 / 0.20" in text


def test_a_failed_row_may_lack_all_that_was_not_measured():
    rows = [failed(cell("unet a", "rgb", "d", 0), "no data"), cell("unet a", "rgb", "d", 1)]
    found = {"name": "n", "control": "rgb", "rows": rows, "cells": 2, "done": 2, "failed": 1}
    assert study_cells.failures(found) == rows[:1]
    assert "1 of 2 cells that were run failed" in Reader(render_study(found, "c")).text


def test_a_page_of_a_thousand_cells_stays_under_eight_megabytes():
    networks = [f"unet tu-some_longer_encoder_name_{number}" for number in range(4)]
    found = study(networks, ("SNEMI3D", "Lucchi++", "GF-PA66"), seeds=3, five=False)
    assert len(found["rows"]) == 180
    assert len(render_study(found, "c").encode()) < 8e6 * 180 / 1000


def test_the_same_study_gives_the_same_page(small):
    assert render_study(small, "c") == render_study(json.loads(json.dumps(small)), "c")


def test_the_page_is_written_whole_and_nothing_else(small, tmp_path):
    path = tmp_path / "new" / "report.html"
    write_study_page(path, small, "c")
    write_study_page(path, small, "d")
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8") == render_study(small, "d")


def test_groups_are_networks_and_numbers_of_slices(whole):
    groups = study_cells.groups_of(whole)
    assert [(group.title, group.slices, len(group.rows)) for group in groups] == [
        ("unet resnet18, 3 slices", 3, 29),
        ("unet mobilenetv2_100, 3 slices", 3, 30),
        ("dpt vit_tiny_patch16_224, 3 slices", 3, 30),
        ("unet resnet18, 5 slices", 5, 29),
    ]
    assert all(group.treatments == TREATMENTS for group in groups)
    assert [group.title for group in study_cells.groups_of(study(NETWORKS[:1], five=False))] == ["unet resnet18"]


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
    shares = [row[f"share_{slot}{end}"] for end in ("_before", "") for slot in range(slices) for row in rows]
    heights = [float(one.get("height")) for one in bars(chart)]
    assert len(heights) == len(shares) == 2 * 2 * slices
    ratios = [tall / share for tall, share in zip(heights, shares, strict=True)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=0.01)
    half = slices // 2
    colours = [*reversed(BEFORE[:half]), CENTRE, *AFTER[:half]]
    assert [one.get("fill") for one in bars(chart)] == 2 * [colour for colour in colours for _ in rows]


def test_the_finding_writes_the_pooled_index_and_draws_dice(small):
    group = study_cells.groups_of(small)[0]
    chart = finding_chart(group, shared(small), "i")
    for one in small["lean"]:
        if one["network"] == group.network:
            badge = study_words.lean_badge(one)
            assert f"{one['when']} {study_words.signed(one['value'])} {badge.symbol} {badge.word}" in chart
    dots = list(drawn(chart).iter("circle"))
    assert len(dots) == len(small["rows"])
    low, high = shared(small).dice
    for dot, row in zip(dots, sorted(small["rows"], key=lambda row: row["treatment"] != "rgb"), strict=True):
        assert float(dot.get("cx")) == pytest.approx(780 + 210 * (row["dice"] - low) / (high - low), abs=0.06)


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
        expected = [230 - 210 * (row[key] - low) / (high - low) for key in ("mirror_index_before", "mirror_index")]
        assert found == pytest.approx(expected, abs=0.06)
    band = bars(chart, "margin")[0]
    assert float(band.get("height")) == pytest.approx(210 * 0.1 / (high - low), abs=0.06)


def test_an_interval_beyond_the_frame_ends_in_a_wedge(small):
    plain = slope_chart(study_cells.groups_of(small)[0], shared(small), "i")
    pooled = next(one for one in small["lean"] if one["network"] != "all" and one["treatment"] == "rgb")
    pooled |= {"low": -1.7, "high": 0.9}
    wide = slope_chart(study_cells.groups_of(small)[0], shared(small), "i")
    assert len(list(drawn(wide).iter("polygon"))) == len(list(drawn(plain).iter("polygon"))) + 2


def test_an_effect_lies_where_it_was_measured_and_the_margin_is_shaded():
    one = {"treatment": "green", "control": "rgb", "network": "all", "outcome": "dice", "margin": 0.01}
    chart = effect_chart([one | {"value": 0.005, "low": -0.02, "high": 0.02, "verdict": "undecided"}], "i")
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
    without = [{**one, "points": [{"steps": 0, "loss": 1.0}, {"steps": 5, "loss": 0.5}]} for one in panel.curves]
    chart = curve_chart(panels_of(without)[0], looks, (-0.2, 0.1), None, "i")
    assert chart.count("not looked at during training") == 2


def test_treatments_differ_in_colour_dash_and_marker_and_the_control_is_first():
    found = study(NETWORKS[:1], treatments=("green", "rgb", "mean", "random weights", "rgb, reverse-z"))
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

    colours = np.array([[int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)] for code in study_cells.COLOURS])
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
    assert study_words.cell_badge(row | {"mirror_low": 0.1, "mirror_high": 0.2}, 0.05).word == "leans to next"
    assert study_words.cell_badge(row | {"slices": 5}, 0.05).word == "leans to earlier slices"
    assert study_words.cell_badge(row | {"mirror_high": 0.0}, 0.05).word == "leans"
    assert study_words.cell_badge({"verdict": "inconclusive: too few blocks"}, 0.05).word == "inconclusive"
    assert study_words.cell_badge({"verdict": "symmetric", "failure": "x"}, 0.05).word == "failed"


def test_badges_of_comparisons_know_what_is_good():
    kinds = {
        (outcome, verdict): study_words.comparison_badge({"outcome": outcome, "verdict": verdict, "margin": 0.01}).kind
        for outcome in ("lean", "dice")
        for verdict in ("lower", "higher", "equivalent", "undecided")
    }
    good = [key for key, kind in kinds.items() if kind == "symmetric"]
    bad = [key for key, kind in kinds.items() if kind == "asymmetric"]
    assert good == [("lean", "lower"), ("lean", "equivalent"), ("dice", "higher"), ("dice", "equivalent")]
    assert bad == [("lean", "higher"), ("dice", "lower")]


def test_numbers_in_words():
    assert [study_words.signed(v) for v in (0.1234, -0.1234, 0.0001, None)] == ["+0.123", "-0.123", "0.000", "–"]
    assert [study_words.p_words(v) for v in (0.0004, 0.04, None)] == ["<\u00a00.001", "0.040", "–"]
    assert study_words.spread([0.7, None, 0.8]) == "0.700 to 0.800"
    assert study_words.spread([0.7]) == "0.700"
    assert study_words.spread([]) == "–"


def test_scales_are_round_and_hold_their_values():
    assert svg.rounded([0.013, 0.061], 5) == pytest.approx((0.01, 0.07))
    assert svg.rounded([]) == (0.0, 1.0)
    low, high = svg.rounded([0.8, 0.8], least=0.02)
    assert low < 0.8 < high
    assert svg.ticks((-0.2, 0.1), 5) == pytest.approx([-0.2, -0.15, -0.1, -0.05, 0, 0.05, 0.1])
    assert svg.tick_words([-0.05, 0.0, 0.05], sign=True) == ["-0.05", "0", "+0.05"]
    scale = svg.Scale(0, 2, 10, 30)
    assert [scale(value) for value in (0, 1, 2, 5)] == [10, 20, 30, 30]


def test_long_names_are_broken_and_cut():
    assert svg.wrapped("rgb, reverse-z", 10) == ["rgb,", "reverse-z"]
    assert svg.wrapped("a b c d e f", 3) == ["a b", "c d …"]
    assert len(svg.wrapped("x" * 90, 20)[0]) == 20
    assert svg.wrapped("", 5) == [""]


def test_the_terminal_shows_the_claims_and_a_line_a_treatment_and_network(whole, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    print_study(whole)
    shown = capsys.readouterr().out
    assert "Does the lean persist after fine-tuning? Yes." in shown
    assert whole["claims"][2]["sentence"] in shown
    for one in whole["lean"]:
        if one["when"] == "after":
            ends = study_words.signed_interval(one["low"], one["high"])
            assert f"{one['treatment']} " in shown
            assert f"{study_words.signed(one['value'])} ({ends})" in shown
    lines = [line for line in shown.splitlines() if line.startswith("│ ")]
    assert len(lines) == len(whole["lean"]) // 2
    scores = [row["dice"] for row in whole["rows"] if row["treatment"] == "green" and not row["failure"]]
    every = next(line for line in lines if line.split("│")[1:3] == [" green          ", " all                      "])
    assert f" {fixed(min(scores))} to {fixed(max(scores))} │ {len(scores)} " in every
    assert "This study is not finished" in shown
    assert "failed: unet resnet18, green, ISBI 2012, foreground, seed 1: out of GPU memory" in shown


def test_the_terminal_shows_names_as_they_are(small, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    for one in small["lean"]:
        one["treatment"] = "[red]rgb[/red]"
    small["claims"][0]["sentence"] = "[bold]yes[/bold]"
    print_study(small)
    shown = capsys.readouterr().out
    assert "[red]rgb[/red]" in shown
    assert "[bold]yes[/bold]" in shown
    print_study({})
