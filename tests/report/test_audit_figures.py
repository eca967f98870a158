"""Figures and tables of audits and scores, for notebooks and papers."""

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from studies import NETWORKS, study

from evenslice import evaluate
from evenslice.errors import BadInputError
from evenslice.evidence.result import Audit, Check, MethodResult
from evenslice.evidence.stats import Interval
from evenslice.labels.metrics import Scores
from evenslice.report.audit_figures import audit_figure, scores_figure, window_figure
from evenslice.report.figure_files import save_figures
from evenslice.report.plots import AFTER, BEFORE, CENTRE
from evenslice.volume.normalisation import Normalisation

EVIL = "<script>alert('&')</script>"


def exact(value, spread=0.01):
    return Interval(value, value - spread, value + spread)


def method(shares, verdict="asymmetric"):
    half = len(shares) // 2
    pairs = [
        (shares[half + j] - shares[half - j]) / (shares[half + j] + shares[half - j])
        for j in range(1, half + 1)
    ]
    index = exact(pairs[0]) if pairs else None
    return MethodResult(
        tuple(exact(s) for s in shares), tuple(exact(p) for p in pairs), index, verdict
    )


def audit_of(shares, names=("gradient", "ablation"), **facts):
    methods = {name: method(shares) for name in names}
    norm = Normalisation((0.0,), (1.0,))
    made = Audit(
        len(shares),
        12,
        9,
        0,
        0,
        0.05,
        0.95,
        (64, 64),
        (),
        norm,
        methods,
        0.1,
        0.01,
        {},
        "asymmetric",
    )
    return replace(made, **facts)


def scores_of(**facts):
    per_slice = (
        {"z": 4, "dice": 0.5, "iou": 1 / 3},
        {"z": 5, "dice": None, "iou": None},
        {"z": 6, "dice": 1.0, "iou": 1.0},
    )
    return replace(
        Scores(0.75, 0.6, {1: {"dice": 0.75, "iou": 0.6, "voxels": 9}}, 90, per_slice=per_slice),
        **facts,
    )


def objects():
    truth = np.zeros((2, 8, 8), np.int32)
    truth[:, :4], truth[:, 5:] = 1, 2
    return evaluate(np.where(truth == 2, 1, truth), truth, as_="instances")


def words_of(html):
    """The text of every cell and paragraph; fails on tags that are not ours."""
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            assert tag in {"p", "small", "table", "thead", "tbody", "tr", "th", "td"} and not attrs

        def handle_data(self, data):
            found.append(data)

    Reader().feed(html)
    return found


def test_the_bars_are_the_shares_in_the_colours_of_the_slots():
    figure = audit_figure(audit_of((0.1, 0.6, 0.3)))
    left, right = figure.axes
    bars = [(bar.get_x(), bar.get_width()) for bar in left.patches]
    np.testing.assert_allclose(bars, 2 * [(0.0, 0.1), (0.1, 0.6), (0.7, 0.3)])
    colours = [bar.get_facecolor() for bar in left.patches[:3]]
    from matplotlib.colors import to_rgba

    assert colours == [to_rgba(code) for code in (BEFORE[0], CENTRE, AFTER[0])]
    assert [label.get_text() for label in left.get_yticklabels()] == ["gradient", "ablation"]
    marks = [line for line in right.lines if line.get_marker() == "o"]
    np.testing.assert_allclose([mark.get_xdata()[0] for mark in marks], [0.5, 0.5])
    assert {mark.get_color() for mark in marks} == {AFTER[0]}, (
        "beyond the margin, to the later side"
    )
    assert "trusts the next slice more" in figure.get_suptitle().replace("\n", " ")


def test_within_the_margin_a_pair_has_no_colour():
    figure = audit_figure(audit_of((0.25, 0.5, 0.25), verdict="symmetric"))
    assert {
        line.get_color() for line in figure.axes[1].lines if line.get_marker() == "o"
    }.isdisjoint({*BEFORE, *AFTER})


def test_more_slices_have_a_mark_a_pair_and_the_lag_a_panel():
    figure = audit_figure(audit_of((0.1, 0.2, 0.3, 0.3, 0.1), lag=exact(0.004)))
    assert len(figure.axes) == 3
    assert [line.get_marker() for line in figure.axes[1].lines if line.get_marker() != "None"] == [
        "o",
        "s",
    ] * 2
    assert len(audit_figure(audit_of((1.0,))).axes) == 1, "one slice has no pairs"


def test_a_window_shows_every_slice_with_its_share_and_the_prediction(make_look):
    look = make_look("green", (0.2, 0.5, 0.3), shape=(40, 60))
    axes = window_figure(look).axes
    assert len(axes) == 4
    sums = look.attribution.sum(axis=(1, 2), dtype=float)
    assert [axis.get_title().split("\n")[1] for axis in axes[:3]] == [
        f"{s:.2f}" for s in sums / sums.sum()
    ]
    assert [len(axis.images) for axis in axes] == [2, 2, 2, 2]
    assert any("nm" in text.get_text() for text in axes[0].texts), "a scale bar"
    plain = window_figure(replace(look, attribution=None, truth=None, voxel_nm=None))
    assert [len(axis.images) for axis in plain.axes] == [1, 1, 1, 2] and not plain.axes[0].texts


def test_scores_are_drawn_per_class_and_slice_and_objects_by_threshold():
    left, right = scores_figure(scores_of()).axes
    assert [bar.get_height() for bar in left.patches] == [0.75, 0.6]
    assert right.lines[0].get_xydata().tolist() == [[4, 0.5], [6, 1.0]], (
        "a slice without foreground has no score"
    )
    found = objects()
    f1 = scores_figure(found).axes[-1].lines[0]
    assert f1.get_ydata().tolist() == [
        found.to_dict()["matching"][level]["f1"] for level in found.to_dict()["matching"]
    ]


def test_a_notebook_shows_all_words_as_words():
    check = Check(1.0, 0.1, False, "")
    audit = audit_of((0.1, 0.6, 0.3), names=(EVIL,), checks={EVIL: check}, lag=exact(0.5))
    words = words_of(audit._repr_html_())
    assert EVIL in words and f"Do not believe this audit: {EVIL} failed" in words
    assert "12 windows of 64 x 64 in 9 blocks, seed 0" in words
    shown = words_of(scores_of(warnings=(EVIL,), trained_slices=((0, 3),), ignore=9)._repr_html_())
    assert shown[:6] == ["class", "Dice", "IoU", "1", "0.750", "0.600"] and EVIL in shown
    assert any("trained on slices 0:3" in word and "label 9" in word for word in shown)
    assert "VOI merge, H(truth | prediction), bits" in words_of(objects()._repr_html_())


def test_figures_are_shown_without_a_screen_or_pyplot(monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    for result in (audit_of((0.1, 0.6, 0.3)), scores_of()):
        assert result.plot()._repr_png_().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("kind", ["audit", "scores", pytest.param("study", marks=pytest.mark.slow)])
def test_the_same_result_gives_the_same_files(tmp_path, make_look, kind):
    made = {
        "audit": lambda: audit_of(
            (0.1, 0.6, 0.3), looks=(make_look("green", (1, 2, 1), shape=(30, 30)),)
        ),
        "scores": scores_of,
        "study": lambda: study(
            NETWORKS[:1], ("ISBI 2012",), seeds=2, treatments=("rgb", "green"), five=False
        ),
    }[kind]
    names = {
        "audit": ["audit", "window-1"],
        "scores": ["scores"],
        "study": ["finding", "steps", "effects"],
    }[kind]
    one, two = (save_figures(made(), tmp_path / folder / "deep") for folder in "ab")
    assert [path.name for path in one] == [
        f"{name}.{end}" for name in names for end in ("svg", "pdf")
    ]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert not any(re.search(rb"dc:date|CreationDate", path.read_bytes()) for path in one)


def test_what_cannot_be_drawn_is_refused_and_nothing_written(tmp_path):
    for result, options, words in (
        (
            scores_of(),
            {"formats": ("jpg",)},
            "the format is 'jpg', expected any of svg, pdf and png",
        ),
        (scores_of(), {"formats": ()}, "the format is empty"),
        ([1], {}, "no figures of a list"),
        ({"rows": []}, {}, "nothing to draw"),
    ):
        with pytest.raises(BadInputError, match=words):
            save_figures(result, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []
