"""The course of one training as inline SVG: loss of every step and its mean, learning rate, Dice of the validation slices."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from evenslice.report import svg
from evenslice.report.study_curves import FOOT, TALL, TOP, WIDE, draw_scales
from evenslice.report.svg import QUIET, Point, Scale
from evenslice.report.verdict import fixed, is_number

PANELS = {"loss": (44.0, 480.0, "Loss"), "dice": (540.0, 996.0, "Validation Dice")}
MOST_POINTS, SMOOTH = 400, 40
LINE, PALE = "#0072b2", "#bcd9ec"


def training_chart(rows: Sequence[Mapping[str, float | None]]) -> Markup | None:
    """Draw how a training went.

    Parameters
    ----------
    rows
        A row a step, as the log has them: ``steps``, ``loss``, and ``dice`` where the validation slices were looked at.

    Returns
    -------
    Markup or None
        The drawing; None without rows. Loss is drawn pale (means of equal stretches where there are over 400 steps) with means of
        40 stretches over it.
    """
    if not rows:
        return None
    course = {key: [(row["steps"], row[key]) for row in rows] for key in PANELS}
    found = {
        key: [(a, b) for a, b in pairs if is_number(a) and is_number(b)]
        for key, pairs in course.items()
    }
    ends = ", ".join(f"last {key} {fixed(pairs[-1][1])}" for key, pairs in found.items() if pairs)
    chart = svg.drawing(
        WIDE, TALL, "course", "Course of the training", f"{len(rows)} steps; {ends}"
    )
    for key, (left, right, title) in PANELS.items():
        svg.words(chart, (left, 14), title, "start", weight="600", size=13)
        if not found[key]:
            svg.words(chart, (left, TOP + 40), "not looked at during training", "start", QUIET)
            continue
        across = Scale(*svg.rounded([0, *(steps for steps, _ in found[key])], 5), left, right)
        up = Scale(*svg.rounded([value for _, value in found[key]], 4, least=0.02), FOOT, TOP)
        draw_scales(chart, across, up, most=5)
        if key == "loss":
            svg.polyline(chart, _places(means_of(found[key], MOST_POINTS), across, up), PALE, 1)
            svg.polyline(chart, _places(means_of(found[key], SMOOTH), across, up), LINE, 2)
        else:
            svg.polyline(chart, _places(found[key], across, up), LINE, 1.6)
            for steps, value in found[key]:
                place = (across(steps), up(value))
                svg.marker(chart, "circle", place, 4, LINE, told=f"step {steps:g}: {fixed(value)}")
    return svg.markup(chart)


def means_of(points: Sequence[Point], most: int) -> list[Point]:
    """Return at most ``most`` points: the means of equal stretches, or the points themselves where there are no more."""
    size = -(-len(points) // most)
    parts = [points[n : n + size] for n in range(0, len(points), size)]
    return [
        (sum(a for a, _ in part) / len(part), sum(b for _, b in part) / len(part)) for part in parts
    ]


def _places(points: Sequence[Point], across: Scale, up: Scale) -> list[Point]:
    return [(across(a), up(b)) for a, b in points]
