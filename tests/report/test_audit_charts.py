"""Charts of audits, windows and scores: every bar and mark is as large as its number."""

from dataclasses import replace

import numpy as np
import pytest
from made_audits import around, audit_of, method_of, scores_of
from matplotlib.colors import to_rgba
from test_notebook import objects

from evenslice.evidence.stats import Interval
from evenslice.report.audit_charts import audit_figure, audits_figure, scores_figure, window_figure
from evenslice.report.charts import AFTER, BEFORE, CENTRE, INK, slot_colour


def both(shares, **changes):
    return audit_of({name: method_of(shares) for name in ("gradient", "ablation")}, **changes)


def marks(axis, *kinds):
    return [line for line in axis.lines if line.get_marker() in kinds]


@pytest.mark.parametrize("slices", [1, 3, 5, 9])
def test_bars_are_the_shares_in_the_colours_of_the_slots(slices):
    shares = tuple(np.linspace(1, 2, slices) / np.linspace(1, 2, slices).sum())
    left = audit_figure(both(shares)).axes[0]
    np.testing.assert_allclose([bar.get_width() for bar in left.patches], 2 * shares)
    half = slices // 2
    colours = [*reversed(BEFORE[:half]), CENTRE, *AFTER[:half]]
    assert [slot_colour(slot - half) for slot in range(slices)] == colours
    assert [bar.get_facecolor() for bar in left.patches] == [to_rgba(code) for code in 2 * colours]
    assert [text.get_text() for text in left.get_yticklabels()] == ["gradient", "ablation"]
    places = [bar.get_y() + bar.get_height() / 2 for bar in left.patches]
    assert places == sorted(places)


def test_intervals_and_the_line_of_equal_shares_stand_at_their_values():
    left, right = audit_figure(audit_of({"gradient": method_of((0.2, 0.5, 0.3), 0.02)})).axes
    spans = [tuple(line.get_xdata()) for line in left.lines if line.get_linewidth() == 0.8]
    np.testing.assert_allclose(spans, [(0.18, 0.22), (0.48, 0.52), (0.28, 0.32)])
    assert [line.get_xdata()[0] for line in left.lines if line.is_dashed()] == [1 / 3]
    np.testing.assert_allclose([mark.get_xdata()[0] for mark in marks(right, "o")], [0.2])
    band = right.patches[0]
    assert (band.get_x(), band.get_width()) == (-0.05, 0.1)
    assert left.get_xlim()[1] > 0.52 and right.get_xlim()[1] > 0.22


@pytest.mark.parametrize(
    ("pair", "colour"),
    [
        (Interval(0.2, 0.1, 0.3), AFTER[0]),
        (Interval(-0.2, -0.3, -0.1), BEFORE[0]),
        (Interval(0.06, 0.04, 0.08), INK),
        (Interval(0.2, np.nan, np.nan), INK),
    ],
)
def test_a_pair_is_coloured_only_where_its_interval_lies_beyond_the_margin(pair, colour):
    method = replace(method_of((0.2, 0.5, 0.3)), pairs=(pair,))
    right = audit_figure(audit_of({"gradient": method})).axes[1]
    assert [mark.get_color() for mark in marks(right, "o")] == [colour]


def test_more_slices_have_a_mark_per_pair_and_the_lag_a_panel():
    axes = audit_figure(both((0.1, 0.2, 0.3, 0.3, 0.1), lag=around(0.004, 0.001))).axes
    assert [line.get_marker() for line in marks(axes[1], "o", "s")] == ["o", "s"] * 2
    assert marks(axes[3], "o")[0].get_xdata()[0] == 0.004
    assert not marks(audit_figure(both((1.0,))).axes[1], "o"), "one slice has no pairs"


def test_models_share_their_scales_and_have_a_row_each():
    axes = audits_figure({"rgb": both((0.2, 0.3, 0.5)), "green": both((0.25, 0.5, 0.25))}).axes
    assert [axis.get_title() or axis.get_title("left") for axis in axes[::2]] == ["rgb", "green"]
    assert axes[0].get_xlim() == axes[2].get_xlim() and axes[1].get_xlim() == axes[3].get_xlim()


def test_the_title_says_the_verdict(leaning):
    title = audit_figure(leaning).get_suptitle().replace("\n", " ")
    assert title.startswith("Asymmetric by gradient (mirror index -0.165")


def test_a_window_shows_every_slice_with_its_share_and_the_prediction(make_window):
    window = make_window("green", (0.2, 0.5, 0.3), shape=(40, 60))
    axes = window_figure(window).axes
    sums = window.attribution.sum(axis=(1, 2), dtype=float)
    shares = [axis.get_title().split("\n")[1] for axis in axes[:3]]
    assert shares == [f"{share:.2f}" for share in sums / sums.sum()]
    assert [len(axis.images) for axis in axes] == [2, 2, 2, 2]
    assert any("nm" in text.get_text() for text in axes[0].texts), "a scale bar"
    plain = window_figure(replace(window, attribution=None, truth=None, voxel_nm=None))
    assert [len(axis.images) for axis in plain.axes] == [1, 1, 1, 2] and not plain.axes[0].texts


def test_scores_are_drawn_per_class_and_slice_and_objects_by_threshold():
    left, right = scores_figure(scores_of()).axes
    assert [bar.get_height() for bar in left.patches] == [0.75, 0.6]
    assert right.lines[0].get_xydata().tolist() == [[4, 0.5], [6, 1.0]], "a slice without a score"
    found = objects()
    matching = found.to_dict()["matching"]
    f1 = scores_figure(found).axes[-1].lines[0]
    assert f1.get_ydata().tolist() == [matching[level]["f1"] for level in matching]
