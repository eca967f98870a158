"""What was seen during training, as inline SVG: loss, validation Dice and mirror index against steps, a line a cell."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from evenslice.report import svg
from evenslice.report.study_cells import Look, Row, names
from evenslice.report.study_words import signed_interval
from evenslice.report.svg import BAND, GRID, QUIET, Limits, Scale
from evenslice.report.verdict import fixed, is_number

WIDE, TALL, TOP, FOOT = 1010.0, 228.0, 30.0, 180.0  # px
PANELS = {
    "loss": (40.0, 312.0, "Loss"),
    "dice": (382.0, 654.0, "Validation Dice"),
    "mirror_index": (724.0, 996.0, "Mirror index"),
}


@dataclass(frozen=True)
class Panel:
    """The curves of one network on one data set."""

    title: str
    curves: tuple[Row, ...]


def panels_of(curves: Sequence[Row]) -> list[Panel]:
    """Return the curves by network, data set and target."""
    several = len(names(curves, "target")) > 1
    keys = dict.fromkeys(
        (str(c.get("network")), str(c.get("dataset")), str(c.get("target"))) for c in curves
    )
    return [
        Panel(
            f"{network} on {dataset}{f' ({target})' if several else ''}",
            tuple(
                c
                for c in curves
                if (str(c.get("network")), str(c.get("dataset")), str(c.get("target")))
                == (network, dataset, target)
            ),
        )
        for network, dataset, target in keys
    ]


def index_limits(curves: Sequence[Row], margin: float | None) -> Limits:
    """Return one scale of the mirror index for all curves of a page."""
    keys = ("mirror_index", "mirror_low", "mirror_high")
    values = [
        point.get(key) for curve in curves for point in curve.get("points") or [] for key in keys
    ]
    even = [] if margin is None else [margin, -margin]
    return svg.rounded(
        [min(1.0, max(-1.0, value)) for value in (*values, *even) if is_number(value)], 5, least=0.1
    )


def curve_chart(
    panel: Panel, looks: Mapping[str, Look], index: Limits, margin: float | None, ident: str
) -> Markup:
    """Draw the three panels of one network on one data set.

    Parameters
    ----------
    panel
        Its curves.
    looks
        Colour, dash and marker of each treatment.
    index
        Limits of the scale of the mirror index.
    margin
        Within which it counts as even, or None.
    ident
        Unique on the page.
    """
    told = f"{len(panel.curves)} cells, a line each; where they ended stands in the table of cells."
    chart = svg.drawing(WIDE, TALL, ident, f"Learning curves, {panel.title}", told)
    steps = [
        p["steps"] for c in panel.curves for p in c.get("points") or [] if is_number(p.get("steps"))
    ]
    for key, (left, right, title) in PANELS.items():
        values = [
            p[key] for c in panel.curves for p in c.get("points") or [] if is_number(p.get(key))
        ]
        svg.words(chart, (left, 14), title, "start", weight="600", size=13)
        if not values:
            svg.words(chart, (left, TOP + 40), "not looked at during training", "start", QUIET)
            continue
        across = Scale(*svg.rounded([0, *steps], 4), left, right)
        up = Scale(
            *(index if key == "mirror_index" else svg.rounded(values, 4, least=0.02)), FOOT, TOP
        )
        _ground(
            chart,
            across,
            up,
            margin if key == "mirror_index" else None,
            signs=key == "mirror_index",
        )
        for curve in panel.curves:
            _curve(chart, curve, key, looks[str(curve.get("treatment"))], across, up)
    return svg.markup(chart)


def _ground(chart: ET.Element, across: Scale, up: Scale, margin: float | None, signs: bool) -> None:
    """Draw the band that counts as even, and both scales."""
    if margin is not None:
        top = up(margin)
        svg.bar(
            chart,
            (across.start, top),
            (across.end - across.start, up(-margin) - top),
            BAND,
            css="margin",
        )
    draw_scales(chart, across, up, signs)


def draw_scales(
    chart: ET.Element, across: Scale, up: Scale, signs: bool = False, most: int = 4
) -> None:
    """Draw the scales of values, with signs if asked for, and of steps, which has about ``most`` of them."""
    places = svg.ticks((up.low, up.high), 5)
    for value, words in zip(places, svg.tick_words(places, sign=signs), strict=True):
        stroke = QUIET if signs and words == "0" else GRID
        svg.line(chart, (across.start, up(value)), (across.end, up(value)), stroke, 1)
        svg.words(chart, (across.start - 6, up(value) + 4), words, "end", QUIET, 11)
    places = svg.ticks((across.low, across.high), most)
    for value, words in zip(places, svg.tick_words(places), strict=True):
        svg.line(chart, (across(value), FOOT), (across(value), FOOT + 4), QUIET, 1)
        svg.words(chart, (across(value), FOOT + 18), words, fill=QUIET, size=11)
    svg.words(chart, ((across.start + across.end) / 2, FOOT + 36), "steps", fill=QUIET, size=11)


def _curve(chart: ET.Element, curve: Row, key: str, look: Look, across: Scale, up: Scale) -> None:
    """Draw one cell: its line, a marker a look, and the intervals of the mirror index."""
    seen = [
        p for p in curve.get("points") or [] if is_number(p.get(key)) and is_number(p.get("steps"))
    ]
    places = [(across(p["steps"]), up(p[key])) for p in seen]
    svg.polyline(chart, places, look.colour, 1.3, look.dashes)
    name = f"{curve.get('treatment')}, seed {curve.get('seed')}"
    for point, place in zip(seen, places, strict=True):
        told = f"{name}, step {point['steps']}: {fixed(point[key])}"
        if key == "mirror_index":
            low, high = point.get("mirror_low"), point.get("mirror_high")
            told += f", {signed_interval(low, high)}"
            if is_number(low) and is_number(high):
                svg.line(chart, (place[0], up(low)), (place[0], up(high)), look.colour, 1)
        svg.marker(chart, look.shape, place, 3, look.colour, told=told)
