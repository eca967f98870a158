import math

import numpy as np
import pytest

from evenslice.report.verdict import badge, fixed, interval, sentence, short, slot_names


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


def test_interval_needs_both_ends():
    assert interval(-0.17, 0.02) == "-0.170 to 0.020"
    assert interval(-0.17, None) == interval(math.nan, 0.1) == "–"


def test_slot_names():
    assert slot_names(1) == ["centre"]
    assert slot_names(3) == ["previous", "centre", "next"]
    assert slot_names(5) == ["-2", "-1", "centre", "+1", "+2"]


@pytest.mark.parametrize(
    ("shares", "words", "word"),
    [
        (
            (0.263, 0.549, 0.189),
            "the previous slice more than the next slice (mirror index -0.164",
            "leans to previous",
        ),
        (
            (0.189, 0.549, 0.263),
            "the next slice more than the previous slice (mirror index 0.164",
            "leans to next",
        ),
    ],
)
def test_positive_index_leans_to_the_next_slice(make_audit, make_method, shares, words, word):
    audit = make_audit({"gradient": make_method(shares, 0.01, "asymmetric")}, "asymmetric")
    text = sentence(audit)
    assert text.startswith("This model leans: it trusts ")
    assert words in text
    assert "95 % interval" in text
    assert badge(audit).word == badge(audit, "gradient").word == word
    assert badge(audit).symbol == ("←" if "previous" in word else "→")


def test_the_interval_is_the_one_measured(leaning):
    gradient = leaning["methods"]["gradient"]
    ends = interval(gradient["mirror_low"], gradient["mirror_high"])
    assert sentence(leaning).endswith(
        f"(mirror index -0.165, 95 % interval {ends}; 3 of 4 methods)."
    )


def test_leaning_is_told_by_a_method_that_leans(make_audit, make_method):
    methods = {
        "gradient": make_method((0.25, 0.5, 0.25), 0.001, "symmetric"),
        "ablation": make_method((0.2, 0.5, 0.3), 0.01, "asymmetric"),
    }
    text = sentence(make_audit(methods, "asymmetric"))
    assert "the next slice more than the previous slice (mirror index 0.200" in text
    assert "1 of 2 methods" in text


def test_methods_that_lean_to_opposite_sides_are_both_told(make_audit, make_method):
    methods = {
        "gradient": make_method((0.3, 0.5, 0.2), 0.01, "asymmetric"),
        "ablation": make_method((0.2, 0.5, 0.3), 0.01, "asymmetric"),
    }
    audit = make_audit(methods, "asymmetric")
    text = sentence(audit)
    assert text.startswith(
        "This model leans, but not to one side: by gradient it trusts the previous slice more"
    )
    assert "by ablation it trusts the next slice more" in text
    assert badge(audit).word == "leans both ways"
    assert badge(audit, "ablation").word == "leans to next"


def test_opposite_pairs_that_cancel_in_the_index_still_lean(make_audit, make_method):
    audit = make_audit(
        {"gradient": make_method((0.2, 0.1, 0.4, 0.2, 0.1), 0.01, "asymmetric")}, "asymmetric"
    )
    assert audit["methods"]["gradient"]["mirror_index"] == pytest.approx(0)
    text = sentence(audit)
    assert "slice +1 more than slice -1 (mirror pair 1: 0.333" in text
    assert "slice -2 more than slice +2 (mirror pair 2: -0.333" in text


def test_five_slices_name_the_strongest_pair(make_audit, make_method):
    audit = make_audit(
        {"gradient": make_method((0.1, 0.15, 0.4, 0.18, 0.2), 0.01, "asymmetric")}, "asymmetric"
    )
    assert "it trusts slice +2 more than slice -2 (mirror pair 2: 0.333" in sentence(audit)
    assert badge(audit).word == "leans to later slices"


def test_leaning_without_numbers_is_still_a_sentence(make_audit, make_method):
    entry = make_method((0.3, 0.5, 0.2), 0.01, "asymmetric") | {"mirror_low": None}
    audit = make_audit({"gradient": entry}, "asymmetric")
    assert (
        sentence(audit)
        == "This model leans: the slices before and after the centre do not count the same."
    )
    assert badge(audit).word == "leans"


def test_even(even):
    text = sentence(even)
    assert text.startswith(
        "Even: the previous and the next slice count the same, within a margin of 0.05 (mirror"
    )
    assert "mirror index 0.000" in text
    assert "4 of 4 methods" in text
    assert badge(even).word == "even"


def test_even_with_five_slices_tells_the_widest_pair(make_audit, make_method):
    audit = make_audit(
        {"gradient": make_method((0.102, 0.2, 0.4, 0.2, 0.098), 0.01, "symmetric")}, "symmetric"
    )
    assert "mirror pair 2: -0.020" in sentence(audit)


def test_methods_that_abstained_do_not_vote(make_audit, make_method):
    methods = {
        "gradient": make_method((0.25, 0.5, 0.25), 0.001, "symmetric"),
        "ablation": make_method((0.001, 0.998, 0.001), 0.0001, "abstained"),
        "shapley": make_method((0.25, 0.5, 0.25), 0.001, "symmetric"),
    }
    assert "2 of 2 methods" in sentence(make_audit(methods, "symmetric"))


def test_inconclusive_tells_the_method_that_is(make_audit, make_method):
    methods = {
        "gradient": make_method((0.25, 0.5, 0.25), 0.001, "symmetric"),
        "ablation": make_method((0.24, 0.5, 0.26), 0.06, "inconclusive"),
    }
    audit = make_audit(methods, "inconclusive")
    text = sentence(audit)
    assert text.startswith("Inconclusive: ")
    assert "(mirror index 0.040, 95 % interval -0.020 to 0.100; by ablation)" in text
    assert badge(audit).word == "inconclusive"


@pytest.mark.parametrize("overall", ["inconclusive", "inconclusive: too few blocks"])
def test_too_few_blocks(make_audit, make_method, overall):
    entry = make_method((0.25, 0.5, 0.25), 0.1, "inconclusive: too few blocks")
    audit = make_audit({"gradient": entry}, overall, clusters=4)
    assert sentence(audit).startswith("Inconclusive: too few blocks (4)")
    assert badge(audit).kind == badge(audit, "gradient").kind == "inconclusive"


def test_one_slice_abstains(make_audit, make_method):
    audit = make_audit({"gradient": make_method((1.0,), 0, "abstained")}, "abstained")
    assert sentence(audit).startswith(
        "Abstained: no verdict, because this model sees a single slice"
    )


@pytest.mark.parametrize("overall", ["abstained", "inconclusive", "symmetric"])
def test_neighbours_without_importance_abstain(make_audit, make_method, overall):
    audit = make_audit(
        {"gradient": make_method((0.004, 0.991, 0.005), 0.001, "abstained")}, overall
    )
    assert sentence(audit).startswith(
        "Abstained: no verdict, because the slices around the centre hold too little"
    )
    assert "0.991" in sentence(audit)


def test_nothing_measured(make_audit):
    assert sentence(make_audit({}, "inconclusive")).startswith("Inconclusive: no method measured")
    assert sentence({}) == "No verdict was recorded for this model."
    assert badge({}).word == "no verdict"


def test_no_sentence_promises_accuracy(leaning, even):
    for audit in (leaning, even):
        assert not {"accura", "better", "dice"} & set(sentence(audit).lower().split())
