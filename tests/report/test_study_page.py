import base64
import hashlib
import json
import re

import pytest
from studies import NETWORKS, cell, failed, study
from test_page import Reader

from evenslice.report import study_cells, study_words, svg
from evenslice.report.study_page import render_study, write_study_page
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
    assert html.index(found["claims"][2]["sentence"]) < min(
        html.index("<table"), html.index("<svg")
    )


def test_the_order_of_the_page(page):
    heads = (
        "effects",
        "finding",
        "slopes",
        "curves",
        "cells",
        "failures",
        "method",
        "settings",
        "reproduce",
        "cite",
    )
    places = [page.index(f'<section id="{name}"') for name in heads]
    assert places == sorted(places)
    assert re.findall(r'<section id="([a-z]+)"', page) == list(heads)


def test_nothing_is_loaded_and_only_its_own_script_may_run(page):
    reader = Reader(page)
    assert not [
        tag for tag, _ in reader.tags if tag in {"link", "iframe", "object", "embed", "img"}
    ]
    assert not [
        name for _, attrs in reader.tags for name in attrs if name in ("src", "onclick", "srcset")
    ]
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
    for section in (
        "effects",
        "finding",
        "slopes",
        "curves",
        "cells",
        "failures",
        "settings",
        "reproduce",
    ):
        assert (
            "&lt;script&gt;"
            in html.partition(f'<section id="{section}"')[2].partition("</section>")[0]
        ), section


def test_every_number_of_every_cell_is_in_the_table(page, whole):
    table = Reader(
        page.partition('<table id="cells-table">')[2].partition("</table>")[0].join(["<p>", "</p>"])
    ).text
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
        assert (
            f"{study_words.signed(one['value'])} {study_words.signed_interval(one['low'], one['high'])}"
            in text
        )
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
        page.partition('<section id="failures"')[2]
        .partition("</section>")[0]
        .join(["<section", "</section>"])
    ).text
    assert (
        "unet resnet18, green ISBI 2012, foreground, seed 1 out of GPU memory; use a smaller batch or crop"
        in part
    )
    assert "RuntimeError: the loss is not finite at step 57" in part


def test_the_method_the_settings_the_command_and_the_citation(page):
    text = Reader(page).text
    for words in (
        "data set as a block",
        "Holm",
        "two one-sided tests",
        "0.01 Dice",
        "±0.05",
        "descriptive",
        "95 %",
    ):
        assert words in text
    assert "evenslice study studies/small.toml --out small" in text
    assert "gradient; 40 windows, margin 0.05" in text
    assert "torch 2.9.0" in text
    assert "arXiv 2505.14105" in text
    assert "version 0.1.0" in text


@pytest.mark.parametrize(
    "found", [{}, {"name": "n", "cells": 3, "done": 0, "rows": [], "claims": [], "curves": []}]
)
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
    small["comparisons"][0] |= {
        "value": None,
        "low": None,
        "high": None,
        "p": None,
        "verdict": "undecided",
    }
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


def test_numbers_in_words():
    assert [study_words.signed(v) for v in (0.1234, -0.1234, 0.0001, None)] == [
        "+0.123",
        "-0.123",
        "0.000",
        "–",
    ]
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


def test_the_terminal_shows_the_claims_and_a_line_a_treatment_and_network(
    whole, capsys, monkeypatch
):
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
    scores = [
        row["dice"] for row in whole["rows"] if row["treatment"] == "green" and not row["failure"]
    ]
    every = next(
        line
        for line in lines
        if line.split("│")[1:3] == [" green          ", " all                      "]
    )
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
