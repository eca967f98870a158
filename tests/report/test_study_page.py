"""The page of a study: whole, escaped, and true to every number."""

import json
import re

import pytest
from studies import NETWORKS, cell, failed, study
from test_page import EVIL, Reader, check_whole

from evenslice.report import verdict
from evenslice.report.run_pages import render_study, write_study_page
from evenslice.report.tables import print_study
from evenslice.report.verdict import fixed, p_value, signed, signed_interval
from evenslice.study.results import Study

COMMAND = "evenslice study studies/small.toml --out small"
SECTIONS = ("effects", "finding", "before-after", "curves", "cells", "failures", "method")
SECTIONS += ("settings", "reproduce", "cite")


def small_study(**changes):
    options = {"seeds": 2, "treatments": ("rgb", "green"), "five": False, **changes}
    return study(NETWORKS[:1], ("ISBI 2012",), **options)


def rendered(found, command="c"):
    return render_study(Study.of(found), command)


@pytest.fixture(scope="module")
def whole():
    return study(NETWORKS[:2], seeds=2, treatments=("rgb", "green", "mean"), five=False, pending=6)


@pytest.fixture(scope="module")
def page(whole):
    return rendered(whole, COMMAND)


def section(html, ident):
    return html.partition(f'<section id="{ident}"')[2].partition("</section>")[0]


def test_the_page_is_whole_ordered_and_every_control_has_a_label(page):
    reader = check_whole(page)
    assert re.findall(r'<section id="([a-z-]+)"', page) == list(SECTIONS)
    assert page.count("<select") == page.count("<label>Network<") * 6 == 6
    assert all("aria-label" in attrs for _, attrs in reader.tags if attrs.get("role") == "region")


def test_the_claims_come_first_with_their_answers(page, whole):
    text, last = Reader(page).text, 0
    for claim in Study.of(whole).claims:
        shown = f"{verdict.QUESTIONS[claim.name]} {claim.sentence}"
        assert last < text.index(shown) < text.index("What each treatment changes")
        last = text.index(shown)


def test_every_text_from_outside_is_escaped():
    def spoiled(value, key=""):
        if isinstance(value, dict):
            renamed = {EVIL: EVIL} if key in ("settings", "versions") else value
            return {name: spoiled(one, name) for name, one in renamed.items()}
        if isinstance(value, list):
            return [spoiled(one) for one in value]
        keep = key in ("schema", "when", "outcome", "verdict") or value in verdict.QUESTIONS
        keep = keep or (key == "failure" and not value)
        return EVIL if isinstance(value, str) and not keep else value

    html = rendered(spoiled(small_study()), EVIL)
    assert check_whole(html).text.count(EVIL) > 30
    for ident in set(SECTIONS) - {"failures", "cite"}:
        assert "&lt;script&gt;" in section(html, ident), ident


def test_every_number_of_every_cell_is_in_the_table(page, whole):
    table = page.partition('<table id="cells-table">')[2].partition("</table>")[0]
    text = Reader(f"<p>{table}</p>").text
    for row in whole["rows"]:
        if row["failure"]:
            names = f"{row['network']} {row['treatment']} {row['dataset']} foreground"
            assert f"{names} {row['seed']} – – – – – ✗ failed" in text
            continue
        assert f"{row['seed']} {fixed(row['dice'])} {fixed(row['iou'])}" in text
        for end in ("_before", ""):
            ends = signed_interval(row[f"mirror_low{end}"], row[f"mirror_high{end}"])
            assert f"{signed(row[f'mirror_index{end}'])} {ends}" in text


def test_every_comparison_and_every_pooled_index_is_in_a_table(page, whole):
    text, record = Reader(page).text, Study.of(whole)
    for one in (*record.comparisons, *record.lean):
        assert f"{signed(one.value)} {signed_interval(one.low, one.high)}" in text
    for one in record.comparisons:
        ps = " ".join(p_value(value) for value in (one.p, one.p_holm, one.p_signflip))
        same = "– –"
        if one.margin is not None:
            same = f"0.01 {p_value(one.p_equivalence)} ({p_value(one.p_equivalence_holm)})"
        badge = verdict.comparison_badge(one)
        ends = signed_interval(one.low, one.high)
        shown = f"{ends} {ps} {same} {one.cells} {one.datasets} {badge.symbol} {badge.word}"
        assert shown.replace("\u00a0", " ") in text


def test_every_mark_of_a_cell_says_which_it_is(page, whole):
    row = whole["rows"][0]
    name = f"{row['dataset']}, foreground, seed 0"
    text = Reader(section(page, "finding").join(["<p", "</p>"])).text
    assert f"{name}: Dice {fixed(row['dice'])}" in text
    assert f"{name}, next: {fixed(row['share_2'])}" in text


def test_an_unfinished_study_says_so_on_top(whole, page):
    shown = (
        f"This study is not finished: {whole['done']} of {whole['cells']} cells are done, 6 pend"
    )
    assert shown in Reader(page).text
    assert page.index(shown) < page.index('class="verdicts"')
    assert verdict.progress(Study.of(small_study())) == ""


def test_failures_the_method_the_settings_and_the_command(page):
    failures = Reader(section(page, "failures").join(["<p", "</p>"])).text
    assert "ISBI 2012, foreground, seed 0 out of GPU memory; use a smaller batch" in failures
    assert "RuntimeError: the loss is not finite at step 57" in failures
    text = Reader(page).text
    for part in ("dataset as a block", "Holm", "two one-sided tests", "0.01 Dice", "±0.05", "95 %"):
        assert part in text
    assert COMMAND in text and "gradient; margin 0.05" in text
    assert "torch 2.9.0" in text and "arXiv 2505.14105" in text


def test_a_study_of_which_nothing_is_done_is_still_a_page():
    assert "No claim is decided" in check_whole(rendered({})).text


def test_missing_numbers_are_dashes():
    found = small_study()
    row = found["rows"][0]
    row |= dict.fromkeys(("dice", "iou", "mirror_low", "mirror_high_before", "share_0", "seconds"))
    row["mirror_index_before"] = float("nan")
    found["lean"][0] |= dict.fromkeys(("low", "high", "p_holm"))
    found["comparisons"][0] |= dict.fromkeys(("value", "low", "high", "p"))
    html = rendered(found)
    assert "nan" not in re.findall("[a-z]+", html.lower())
    text = check_whole(html).text
    assert "no interval" in text and "– / 0.50 / " in text


def test_a_failed_row_may_lack_all_that_was_not_measured():
    rows = [failed(cell("unet a", "rgb", "d", 0), "no data"), cell("unet a", "rgb", "d", 1)]
    found = {"name": "n", "control": "rgb", "rows": rows, "cells": 2, "done": 2, "failed": 1}
    assert [one.failure for one in Study.of(found).failures] == ["no data"]
    assert "1 of 2 cells that were run failed" in Reader(rendered(found)).text


def test_a_page_of_a_thousand_cells_stays_under_eight_megabytes(page, whole):
    axes_and_styles = 150_000
    assert (len(page.encode()) - axes_and_styles) / len(whole["rows"]) < 8_000


def test_the_same_study_gives_the_same_page_written_whole(tmp_path, page, whole):
    path = tmp_path / "new" / "report.html"
    write_study_page(path, json.loads(json.dumps(whole)), COMMAND)
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8") == page


def test_what_comes_from_the_data_and_how_labels_fit(capsys):
    found = small_study()
    text = "Labels (foreground): fit the previous <slice> better"
    found["rows"][0]["label_asymmetry_text"] = text
    ends = {"value": -0.25, "low": -0.3, "high": -0.2}
    parts = {"method": "ablation", "treatment": "green", "network": "n", "dataset": "d", "seeds": 2}
    found["causes"] = [parts | {"data": ends, "slots": {"value": 0.03}, "spread": 0.015}]
    html = rendered(found)
    text = section(check_whole(html) and html, "causes")
    assert "fit the previous &lt;slice&gt; better" in text
    for number in ("−0.250", "−0.300 to −0.200", "+0.030", "no interval", "0.015"):
        assert number in text or number.replace("−", "-") in text, number
    print_study(Study.of(found))
    shown = " ".join(capsys.readouterr().out.split())
    assert "fit the previous <slice> better" in shown
    assert "ablation" in shown
