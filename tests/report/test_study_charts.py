"""The charts of a study: every mark lies at its number."""

import numpy as np
import pytest
from matplotlib.lines import Line2D
from skimage.color import rgb2lab
from studies import NETWORKS, TREATMENTS, study

from evenslice.errors import BadInputError
from evenslice.report.charts import AFTER, BEFORE, CENTRE
from evenslice.report.study_charts import (
    COLOURS,
    effects_figure,
    finding_figure,
    line_styles,
    steps_figure,
)
from evenslice.study.results import Study

KINDS = [finding_figure, steps_figure, effects_figure]


def small_study(**changes):
    options = {"seeds": 2, "treatments": ("rgb", "green"), "five": False, **changes}
    return study(NETWORKS[:1], options.pop("datasets", ("ISBI 2012",)), **options)


@pytest.fixture(scope="module")
def small():
    return Study.of(small_study())


def marks(axis, marker):
    """Places (x, y) of the marks of one kind, in the order they were drawn."""
    found = [line.get_xydata() for line in axis.lines if line.get_marker() == marker]
    return np.concatenate(found) if found else np.empty((0, 2))


def test_groups_are_networks_and_numbers_of_slices():
    groups = Study.of(study(pending=6)).groups
    assert [(group.title, group.slices, len(group.cells)) for group in groups] == [
        ("unet resnet18, 3 slices", 3, 29),
        ("unet mobilenetv2_100, 3 slices", 3, 30),
        ("dpt vit_tiny_patch16_224, 3 slices", 3, 30),
        ("unet resnet18, 5 slices", 5, 29),
    ]
    assert all(group.treatments == TREATMENTS for group in groups)


@pytest.mark.parametrize("slices", [3, 5])
def test_the_finding_draws_every_share_in_the_colour_of_its_side(slices):
    found = Study.of(small_study(five=slices == 5))
    group = next(one for one in found.groups if one.slices == slices)
    axes = finding_figure(found).axes[-4:]
    half = slices // 2
    colours = [*reversed(BEFORE[:half]), CENTRE, *AFTER[:half]]
    for axis, key in zip(axes[:2], ("shares_before", "shares"), strict=True):
        dots = [line for line in axis.lines if line.get_marker() == "o"]
        expected = [
            (colours[slot], share)
            for name in group.treatments
            for cell in group.of(name)
            for slot, share in enumerate(getattr(cell, key))
        ]
        assert [(line.get_color(), line.get_xdata()[0]) for line in dots] == expected
    assert axes[0].get_xlim() == axes[1].get_xlim()


def test_the_finding_joins_the_index_before_and_after_and_draws_means_and_dice(small):
    axes = finding_figure(small).axes
    group, pooled = small.groups[0], small.pooled
    means = [
        pooled[name, group.network, when].value
        for name in group.treatments
        for when in ("before", "after")
    ]
    assert list(marks(axes[2], "D")[:, 0]) == means
    cells = [cell for name in group.treatments for cell in group.of(name)]
    ends = [end.value for cell in cells for end in (cell.index_before, cell.index)]
    assert list(marks(axes[2], "o")[:, 0]) == ends
    joined = [list(line.get_xdata()) for line in axes[2].lines if line.get_linewidth() == 0.5]
    assert joined == [[cell.index_before.value, cell.index.value] for cell in cells]
    assert list(marks(axes[3], "o")[:, 0]) == [cell.dice for cell in cells]
    low, high = axes[2].get_xlim()
    assert low < min(ends) < max(ends) < high


def test_data_sets_have_a_marker_and_a_line_each():
    found = Study.of(small_study(datasets=("ISBI 2012", "VNC")))
    axis, group = finding_figure(found).axes[3], found.groups[0]
    for marker, dataset in (("o", "ISBI 2012"), ("s", "VNC")):
        own = [cell for name in group.treatments for cell in group.of(name)]
        expected = [cell.dice for cell in own if cell.dataset == dataset]
        assert list(marks(axis, marker)[:, 0]) == expected
    assert not set(marks(axis, "o")[:, 1]) & set(marks(axis, "s")[:, 1])


def test_wide_intervals_end_in_arrows_and_do_not_shrink_the_cells(small):
    limits = finding_figure(small).axes[2].get_xlim()
    wide = [one.model_copy(update={"low": -3.0, "high": 3.0}) for one in small.lean]
    axis = finding_figure(small.model_copy(update={"lean": tuple(wide)})).axes[2]
    assert axis.get_xlim() == limits
    assert set(marks(axis, "<")[:, 0]) == {limits[0]} and len(marks(axis, ">")) == 4


def test_steps_are_a_line_per_cell_with_the_interval_of_each_audit(small):
    axis = steps_figure(small).axes[0]
    styles = line_styles(["rgb", "green"])
    lines = [line for line in axis.lines if len(line.get_xdata()) == 5]
    for line, curve in zip(lines, small.courses, strict=True):
        assert list(line.get_xdata()) == [point.steps for point in curve.points]
        assert list(line.get_ydata()) == [point.mirror_index for point in curve.points]
        assert line.get_color() == styles[curve.treatment]["color"]
    spans = [one.get_segments()[0][:, 1].tolist() for one in axis.collections]
    points = [point for curve in small.courses for point in curve.points]
    assert spans == [[point.mirror_low, point.mirror_high] for point in points]


@pytest.mark.parametrize("quantity", ["loss", "dice"])
def test_other_quantities_are_drawn_where_they_were_measured(small, quantity):
    axis = steps_figure(small, quantity).axes[0]
    drawn = [list(line.get_ydata()) for line in axis.lines]
    points = [[getattr(point, quantity) for point in curve.points[1:]] for curve in small.courses]
    assert drawn == points, "none before the first step"


def test_a_panel_per_network_and_data_set():
    found = Study.of(study(NETWORKS[:2], seeds=1, treatments=("rgb",), five=False))
    titles = [axis.get_title("left") for axis in steps_figure(found).axes]
    networks = [name for name in NETWORKS[:2] for _ in range(2)]
    datasets = ["ISBI 2012", "VNC"] * 2
    assert titles == [f"{n}\non {d}" for n, d in zip(networks, datasets, strict=True)]


def test_effects_lie_where_they_were_measured_and_the_margin_is_shaded(small):
    axes = effects_figure(small).axes
    for axis, outcome in zip(axes, ("lean", "dice", "iou"), strict=True):
        own = [one for one in small.comparisons if one.outcome == outcome]
        assert list(marks(axis, "o")[:, 0]) == [one.value for one in own]
        spans = [list(line.get_xdata()) for line in axis.lines if line.get_linewidth() == 1.2]
        assert spans == [[one.low, one.high] for one in own]
    bands = [axis.patches[0].get_width() for axis in axes if axis.patches]
    assert bands == [pytest.approx(0.02)]


def test_differences_of_nothing_look_like_nothing(small):
    tiny = {"value": -0.0004, "low": -0.0006, "high": -0.0002}
    found = [one.model_copy(update=tiny) for one in small.comparisons]
    for axis in effects_figure(small.model_copy(update={"comparisons": tuple(found)})).axes:
        low, high = axis.get_xlim()
        assert high - low >= 0.0199 and low < -0.0006 < 0 < high


def test_missing_numbers_leave_gaps_not_errors():
    found = small_study()
    found["rows"][0] |= {"dice": None, "share_0": None, "mirror_index_before": float("nan")}
    for one in (found["lean"][0], found["comparisons"][0]):
        one |= {"low": None, "high": None}
    found["comparisons"][1] |= {"value": None}
    found["curves"][0]["points"][2] = {"steps": 100}
    whole, gaps = Study.of(small_study()), Study.of(found)
    for kind in KINDS:
        lines = (kind(one).findobj(Line2D) for one in (whole, gaps))
        many, fewer = (sum(len(line.get_xdata()) for line in drawn) for drawn in lines)
        assert 0 < fewer < many


NOTHING = ("finished cell", "cell with a mirror index during training", "comparison with the")


@pytest.mark.parametrize(("kind", "what"), list(zip(KINDS, NOTHING, strict=True)))
def test_nothing_to_draw_is_said(kind, what):
    for found in ({}, {"curves": [{"points": [{"steps": 0}]}]}):
        with pytest.raises(BadInputError, match=f"the study has no {what}"):
            kind(Study.of(found))


def test_treatments_differ_in_colour_dash_and_marker_and_the_control_is_first():
    order = ("green", "rgb", "mean", "random weights", "rgb, reverse-z")
    found = Study.of(study(NETWORKS[:1], treatments=order))
    assert found.treatments == ["rgb", "green", "mean", "random weights", "rgb, reverse-z"]
    styles = line_styles(found.treatments).values()
    for part in ("color", "ls", "marker"):
        assert len({style[part] for style in styles}) == 5
    assert len(line_styles([str(number) for number in range(30)])) == 30


def test_the_usual_treatments_look_the_same_in_every_study():
    every = line_styles(["rgb", "green", "mean", "random weights", "rgb, reverse-z"])
    some = line_styles(["rgb", "own", "rgb, reverse-z"])
    assert some["rgb, reverse-z"] == every["rgb, reverse-z"]
    assert some["own"] == every["green"]
    other = line_styles(["green", "rgb"])
    assert (other["green"], other["rgb"]) == (every["rgb"], every["green"])


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
    """By the matrices of Machado, Oliveira and Fernandes 2009, doi:10.1109/TVCG.2009.113."""
    colours = np.array([[int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)] for code in COLOURS])
    light = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(light @ np.array(mixing).T, 0, 1)
    shown = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(shown[None])[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    assert apart[~np.eye(len(lab), dtype=bool)].min() > 10, "far apart for filled marks"
    brightness = light @ (0.2126, 0.7152, 0.0722)
    assert (1.05 / (brightness + 0.05)).min() > 3
