"""Verdicts as sentences and badges, and numbers in words."""

import math
from dataclasses import replace

import numpy as np
import pytest
from made_audits import audit_of, method_of

from evenslice.evidence.result import Check
from evenslice.evidence.stats import Interval
from evenslice.report.verdict import (
    badge,
    cell_badge,
    comparison_badge,
    fixed,
    headline,
    interval,
    listed,
    p_value,
    pooled_badge,
    sanity_checks,
    score_range,
    sentence,
    short,
    signed,
    slot_names,
)
from evenslice.study.results import CellResult, Comparison, PooledIndex


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.26349, "0.263"),
        (-0.1654, "-0.165"),
        (-1e-9, "0.000"),
        (0, "0.000"),
        (np.float32(0.5), "0.500"),
    ]
    + [(missing, "–") for missing in (None, math.nan, math.inf, True, "0.5", [])],
)
def test_fixed(value, text):
    assert fixed(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (64, "64"),
        (127.25, "127.25"),
        (31234.56, "31234.6"),
        (0.0, "0"),
        (3.1e-5, "3.1e-05"),
        (0.0005, "0.0005"),
        ([1.0, 2.5], "1, 2.5"),
        ([], "–"),
        (None, "–"),
        (math.nan, "–"),
        ("file", "file"),
    ],
)
def test_short(value, text):
    assert short(value) == text


def test_other_numbers():
    assert interval(-0.17, 0.02) == "-0.170 to 0.020"
    assert interval(-0.17, None) == interval(math.nan, 0.1) == "–"
    assert [signed(v) for v in (0.1234, -0.1234, 0.0001)] == ["+0.123", "-0.123", "0.000"]
    assert [p_value(v) for v in (0.0004, 0.04, None)] == ["<\u00a00.001", "0.040", "–"]
    assert score_range([0.7, None, 0.8]) == "0.700 to 0.800"
    assert (score_range([0.7]), score_range([])) == ("0.700", "–")


def test_slot_names():
    assert slot_names(1) == ["centre"]
    assert slot_names(3) == ["previous", "centre", "next"]
    assert slot_names(5) == ["-2", "-1", "centre", "+1", "+2"]


@pytest.mark.parametrize(
    ("shares", "index", "direction", "symbol"),
    [
        ((0.263, 0.549, 0.189), "-0.164", "the previous slice counts more than the next", "←"),
        ((0.189, 0.549, 0.263), "0.164", "the next slice counts more than the previous", "→"),
    ],
)
def test_a_positive_index_is_asymmetry_towards_the_next_slice(shares, index, direction, symbol):
    audit = audit_of({"gradient": method_of(shares)})
    text = sentence(audit)
    assert text.startswith(f"Asymmetric by gradient (mirror index {index}, 95 % interval ")
    assert direction in text
    for one in (badge(audit), badge(audit, "gradient")):
        assert (one.symbol, one.word, one.kind) == (symbol, "asymmetric", "asymmetric")


def test_methods_that_split_are_all_named():
    methods = {
        "gradient": method_of((0.25, 0.5, 0.25), 0.001, "symmetric"),
        "ablation": method_of((0.2, 0.5, 0.3)),
        "shapley": method_of((0.21, 0.5, 0.29)),
        "integrated-gradients": method_of((0.24, 0.5, 0.26), 0.06, "inconclusive"),
    }
    audit = audit_of(methods)
    assert sentence(audit) == (
        "Asymmetric by ablation (mirror index 0.200, 95 % interval 0.190 to 0.210: the next slice "
        "counts more than the previous slice) and shapley; symmetric by gradient; inconclusive by "
        "integrated-gradients."
    )
    assert headline(audit) == "ablation"  # the row shown first has the verdict shown first
    assert [badge(audit, name).word for name in methods] == [
        "symmetric",
        "asymmetric",
        "asymmetric",
        "inconclusive",
    ]


def test_methods_that_find_opposite_sides_both_have_figures():
    methods = {"ablation": method_of((0.2, 0.5, 0.3)), "gradient": method_of((0.3, 0.5, 0.2))}
    audit = audit_of(methods)
    text = sentence(audit)
    assert text.startswith("Asymmetric by gradient (mirror index -0.200")
    assert "and ablation (mirror index 0.200" in text
    assert badge(audit).symbol == "↔"
    assert badge(audit, "ablation").symbol == "→"


def test_opposite_pairs_that_cancel_in_the_index_are_still_asymmetric():
    audit = audit_of({"gradient": method_of((0.2, 0.1, 0.4, 0.2, 0.1))})
    assert audit.methods["gradient"].index.value == pytest.approx(0)
    assert "slice +1 counts more than slice -1" in sentence(audit)
    assert badge(audit).symbol == "↔"


def test_five_slices_name_the_strongest_pair():
    audit = audit_of({"gradient": method_of((0.1, 0.15, 0.4, 0.18, 0.2))})
    assert "(mirror pair 2: 0.333" in sentence(audit)
    assert "slice +2 counts more than slice -2" in sentence(audit)


def test_asymmetry_without_intervals_is_still_a_sentence():
    method = replace(method_of((0.3, 0.5, 0.2)), index=Interval(-0.2, math.nan, math.nan))
    audit = audit_of({"gradient": method})
    assert sentence(audit) == "Asymmetric by gradient."
    assert (badge(audit).symbol, badge(audit).word) == ("≠", "asymmetric")


def test_symmetric(symmetric):
    text = sentence(symmetric)
    names = listed(list(symmetric.methods))
    assert text.startswith(f"Symmetric by {names}: the previous and the next slice count the same")
    assert "a margin of 0.05" in text
    assert badge(symmetric).word == "symmetric"
    five = audit_of({"g": method_of((0.102, 0.2, 0.4, 0.2, 0.098), 0.01, "symmetric")}, "symmetric")
    assert "mirror pair 2: -0.020" in sentence(five), "the widest pair"


def test_names_are_listed_as_people_do():
    assert [listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_inconclusive_names_the_method_that_is():
    methods = {
        "gradient": method_of((0.25, 0.5, 0.25), 0.001, "symmetric"),
        "ablation": method_of((0.24, 0.5, 0.26), 0.06, "inconclusive"),
    }
    audit = audit_of(methods, "inconclusive")
    text = sentence(audit)
    assert text.startswith("Inconclusive by ablation: ")
    assert "(ablation: mirror index 0.040, 95 % interval -0.020 to 0.100); symmetric by gra" in text
    assert badge(audit).word == "inconclusive"


def test_slots_that_are_normalised_differently_are_the_reason():
    audit = audit_of({"gradient": method_of((0.25, 0.5, 0.25), 0.001, "symmetric")}, "inconclusive")
    assert "symmetric by gradient, but the slots are normalised by diff" in sentence(audit)


@pytest.mark.parametrize("overall", ["inconclusive", "inconclusive: too few blocks"])
def test_too_few_blocks(overall):
    method = method_of((0.25, 0.5, 0.25), 0.1, "inconclusive: too few blocks")
    audit = audit_of({"gradient": method}, overall, clusters=4)
    assert sentence(audit).startswith("Inconclusive: too few blocks (4)")
    assert badge(audit).kind == badge(audit, "gradient").kind == "inconclusive"


@pytest.mark.parametrize("overall", ["abstained", "inconclusive", "symmetric"])
def test_one_slice_or_neighbours_without_importance_have_no_verdict(overall):
    audit = audit_of({"gradient": method_of((1.0,), 0, "abstained")}, overall)
    assert sentence(audit).startswith("Abstained: this model sees a single slice")
    audit = audit_of({"gradient": method_of((0.004, 0.991, 0.005), 0.001, "abstained")}, overall)
    assert sentence(audit).startswith("Abstained: the slices around the centre hold under 2 %")
    assert "0.991" in sentence(audit)
    assert sentence(audit_of({}, "inconclusive")).startswith("Inconclusive: no method measured")


def test_sanity_checks_say_what_failed_and_what_was_not_made():
    unmade = Check(None, None, None, "no weights")
    passed = audit_of({}, checks={"agreement": Check(0.1, 0.2, True, ""), "twin": unmade})
    assert sanity_checks(passed) == "Sanity checks passed (not made: twin)"
    failed = audit_of({}, checks={"agreement": Check(0.3, 0.2, False, "")})
    assert sanity_checks(failed) == "Sanity checks failed (agreement): the result is unreliable"


@pytest.mark.parametrize(
    ("changes", "symbol", "word"),
    [
        ({}, "←", "asymmetric"),
        ({"mirror_low": 0.1, "mirror_high": 0.2}, "→", "asymmetric"),
        ({"mirror_high": 0.0}, "≠", "asymmetric"),
        ({"verdict": "inconclusive: too few blocks"}, "?", "inconclusive"),
        ({"failure": "x"}, "✗", "failed"),
    ],
)
def test_badges_of_cells_name_the_side(changes, symbol, word):
    row = {"slices": 3, "verdict": "asymmetric", "mirror_low": -0.2, "mirror_high": -0.1}
    badge = cell_badge(CellResult.model_validate(row | changes), 0.05)
    assert (badge.symbol, badge.word) == (symbol, word)


@pytest.mark.parametrize(
    ("outcome", "verdict", "kind"),
    [
        ("lean", "lower", "symmetric"),
        ("lean", "higher", "asymmetric"),
        ("dice", "lower", "asymmetric"),
        ("dice", "higher", "symmetric"),
        ("dice", "equivalent", "symmetric"),
        ("dice", "undecided", "inconclusive"),
    ],
)
def test_badges_of_comparisons_know_what_is_good(outcome, verdict, kind):
    assert comparison_badge(Comparison(outcome=outcome, verdict=verdict, margin=0.01)).kind == kind


@pytest.mark.parametrize(
    ("verdict", "shown"),
    [
        ("leans", "→ asymmetric"),
        ("asymmetric", "→ asymmetric"),
        ("even", "= symmetric"),
        ("undecided", "? undecided"),
        ("", "– no cells"),
    ],
)
def test_badges_of_pooled_indices_read_the_words_of_every_version(verdict, shown):
    found = pooled_badge(PooledIndex(verdict=verdict, value=0.1))
    assert f"{found.symbol} {found.word}" == shown
