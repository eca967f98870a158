import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image
from studies import NETWORKS, study

from evenslice.errors import BadInputError
from evenslice.report import study_cells
from evenslice.report.figures import effects_figure, finding_figure, save_figure, steps_figure
from evenslice.report.plots import AFTER, BEFORE, CENTRE

KINDS = [finding_figure, steps_figure, effects_figure]


@pytest.fixture(scope="module")
def small():
    return study(NETWORKS[:1], ("ISBI 2012",), seeds=2, treatments=("rgb", "green"), five=False)


@pytest.fixture(scope="module")
def whole():
    return study(NETWORKS[:1], seeds=2, treatments=("rgb", "green", "random weights, mirror tie"))


def marks(axis, marker):
    """Places (x, y) of the marks of one kind, in the order they were drawn."""
    found = [line.get_xydata() for line in axis.lines if line.get_marker() == marker]
    return np.concatenate(found) if found else np.empty((0, 2))


@pytest.mark.parametrize(
    ("ending", "start"),
    [("svg", b"<?xml"), ("PDF", b"%PDF"), ("png", b"\x89PNG")],
    ids=["svg", "pdf", "png"],
)
def test_the_same_study_gives_the_same_file_of_the_kind_that_was_asked_for(
    small, tmp_path, ending, start
):
    paths = [tmp_path / f"{name}.{ending}" for name in ("one", "two")]
    for path in paths:
        save_figure(effects_figure(small), path)
    written = paths[0].read_bytes()
    assert written.startswith(start)
    assert written == paths[1].read_bytes()
    assert b"dc:date" not in written
    assert b"/CreationDate" not in written
    assert sorted(tmp_path.iterdir()) == paths


def test_another_ending_is_refused(small, tmp_path):
    with pytest.raises(
        BadInputError,
        match=r"f\.jpg ends in '\.jpg', expected \.svg, \.pdf or \.png; choose another name",
    ):
        save_figure(effects_figure(small), tmp_path / "f.jpg")
    assert list(tmp_path.iterdir()) == []


def test_the_looks_do_not_depend_on_the_settings_of_the_user(small, tmp_path):
    save_figure(effects_figure(small), tmp_path / "plain.svg")
    with matplotlib.rc_context(
        {"font.size": 20, "axes.facecolor": "black", "lines.linewidth": 9, "svg.hashsalt": "x"}
    ):
        before = dict(matplotlib.rcParams)
        save_figure(effects_figure(small), tmp_path / "own.svg")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "own.svg").read_bytes() == (tmp_path / "plain.svg").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_no_words_leave_the_figure_or_lie_over_each_other(whole, kind, monkeypatch):
    figure, drawn, draw = kind(whole), {}, Text.draw
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    monkeypatch.setattr(
        Text, "draw", lambda self, *rest: (drawn.update({self: None}), draw(self, *rest))[1]
    )
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = [one for one in drawn if one.get_visible() and one.get_text().strip()]
    assert len(texts) > 12
    boxes = [one.get_window_extent(renderer) for one in texts]
    width, height = figure.bbox.size
    for one, box in zip(texts, boxes, strict=True):
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, (
            one.get_text()
        )
    for number, box in enumerate(boxes):
        for other, words in zip(boxes[number + 1 :], texts[number + 1 :], strict=True):
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            up = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across < 2 or up < 2, (texts[number].get_text(), words.get_text())


@pytest.mark.parametrize("slices", [3, 5])
def test_the_finding_draws_every_share_in_the_colour_of_its_side(slices):
    found = study(
        [NETWORKS[0]], ("ISBI 2012",), seeds=2, treatments=("rgb", "green"), five=slices == 5
    )
    figure = finding_figure(found)
    group = next(one for one in study_cells.groups_of(found) if one.slices == slices)
    axes = figure.axes[-4:]
    half = slices // 2
    colours = [*reversed(BEFORE[:half]), CENTRE, *AFTER[:half]]
    for axis, end in zip(axes[:2], ("_before", ""), strict=True):
        dots = [line for line in axis.lines if line.get_marker() == "o"]
        expected = [
            (colours[slot], [study_cells.shares_of(row, end)[slot] for row in group.of(name)])
            for name in group.treatments
            for slot in range(slices)
        ]
        assert [(line.get_color(), list(line.get_xdata())) for line in dots] == expected
    assert axes[0].get_xlim() == axes[1].get_xlim()


def test_the_finding_draws_pooled_means_cells_and_dice(small):
    axes = finding_figure(small).axes
    lean = study_cells.lean_of(small)
    rows = {
        name: [row for row in small["rows"] if row["treatment"] == name]
        for name in ("rgb", "green")
    }
    pooled = [
        lean[name, NETWORKS[0], when]["value"] for name in rows for when in ("before", "after")
    ]
    assert list(marks(axes[2], "D")[:, 0]) == pooled
    cells = [
        row[key]
        for own in rows.values()
        for key in ("mirror_index_before", "mirror_index")
        for row in own
    ]
    assert list(marks(axes[2], "o")[:, 0]) == cells
    assert list(marks(axes[3], "o")[:, 0]) == [row["dice"] for own in rows.values() for row in own]
    low, high = axes[2].get_xlim()
    assert low < min(cells) < max(cells) < high


def test_data_sets_have_a_marker_and_a_line_each(whole):
    axis = finding_figure(whole).axes[3]
    for marker, dataset in (("o", "ISBI 2012"), ("s", "VNC")):
        group = study_cells.groups_of(whole)[0]
        expected = [
            row["dice"]
            for name in group.treatments
            for row in group.of(name)
            if row["dataset"] == dataset
        ]
        assert list(marks(axis, marker)[:, 0]) == expected
    assert not set(marks(axis, "o")[:, 1]) & set(marks(axis, "s")[:, 1])


def test_wide_intervals_do_not_shrink_the_cells():
    found = study(NETWORKS[:1], ("ISBI 2012",), seeds=2, treatments=("rgb", "green"), five=False)
    before = finding_figure(found).axes[2].get_xlim()
    for one in found["lean"]:
        one |= {"low": -3.0, "high": 3.0}
    assert finding_figure(found).axes[2].get_xlim() == before


def test_steps_are_a_line_a_cell_with_the_interval_of_each_audit(small):
    axis = steps_figure(small).axes[0]
    looks = study_cells.looks_of(["rgb", "green"])
    lines = [line for line in axis.lines if len(line.get_xdata()) == 5]
    assert len(lines) == len(small["curves"])
    for line, curve in zip(lines, small["curves"], strict=True):
        assert list(line.get_xdata()) == [point["steps"] for point in curve["points"]]
        assert list(line.get_ydata()) == [point["mirror_index"] for point in curve["points"]]
        assert line.get_color() == looks[curve["treatment"]].colour
    spans = [tuple(line.get_ydata()) for line in axis.lines if line.get_linewidth() == 0.6]
    assert spans == [
        (p["mirror_low"], p["mirror_high"]) for curve in small["curves"] for p in curve["points"]
    ]


def test_there_is_a_panel_a_network_and_data_set(whole):
    titles = [
        axis.get_title(loc="left").replace("\n", " ")
        for axis in steps_figure(whole).axes
        if axis.get_visible()
    ]
    assert titles == [f"{NETWORKS[0]} on {dataset}" for dataset in ("ISBI 2012", "VNC")]


def test_effects_lie_where_they_were_measured(whole):
    axes = effects_figure(whole).axes
    for axis, outcome in zip(axes, ("lean", "dice", "iou"), strict=True):
        found = [one for one in whole["comparisons"] if one["outcome"] == outcome]
        assert list(marks(axis, "o")[:, 0]) == [one["value"] for one in found]
        spans = [tuple(line.get_xdata()) for line in axis.lines if line.get_linewidth() == 1.2]
        assert spans == [(one["low"], one["high"]) for one in found]
    bands = [patch for patch in axes[1].patches if patch.get_width() == pytest.approx(0.02)]
    assert len(bands) == 1
    assert [label.get_text() for label in axes[0].get_yticklabels()] == [
        "green",
        "random weights, mirror tie",
    ]


def test_differences_of_nothing_look_like_nothing(small):
    tiny = [
        one | {"value": -0.0004, "low": -0.0006, "high": -0.0002} for one in small["comparisons"]
    ]
    for axis in effects_figure(small | {"comparisons": tiny}).axes:
        low, high = axis.get_xlim()
        assert high - low >= 0.0199
        assert low < -0.0006 < 0 < high


def test_missing_numbers_leave_gaps_not_errors(small, tmp_path):
    found = study(NETWORKS[:1], ("ISBI 2012",), seeds=2, treatments=("rgb", "green"), five=False)
    found["rows"][0] |= {"dice": None, "share_0": None, "mirror_index_before": None}
    found["lean"][0] |= {"low": None, "high": None}
    found["comparisons"][0] |= {"low": None, "high": None}
    found["comparisons"][1] |= {"value": None}
    found["curves"][0]["points"][2] = {"steps": 100}
    for kind in KINDS:
        save_figure(kind(found), tmp_path / "f.png")
        assert np.asarray(Image.open(tmp_path / "f.png")).std() > 5


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (finding_figure, "finished cell"),
        (steps_figure, "cell with a mirror index during training"),
        (effects_figure, "comparison with the control"),
    ],
)
def test_nothing_to_draw_is_said(kind, what):
    for found in ({}, {"rows": [], "curves": [{"points": [{"steps": 0}]}], "comparisons": []}):
        with pytest.raises(
            BadInputError,
            match=f"the study has no {what}, expected at least one to draw; run it first",
        ):
            kind(found)
