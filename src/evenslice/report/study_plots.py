"""Charts of a study as inline SVG: shares and accuracy of every cell, and the mirror index before and after training."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evenslice.report import svg
from evenslice.report.plots import slot_colour
from evenslice.report.study_cells import Group, Look, Row, cell_name, shapes_of, shares_of
from evenslice.report.study_words import lean_badge, signed, signed_interval
from evenslice.report.svg import BAND, GRID, INK, QUIET, Limits, Scale
from evenslice.report.verdict import fixed, is_number, slot_names

WIDE = 1010.0  # px, of a chart that fills the page
ROW, TOP = 78.0, 40.0  # px: from one treatment to the next, and above the first
PANELS = {"_before": (178.0, "before training"), "": (388.0, "after training")}
BARS, NOTE, DICE = 184.0, 594.0, (780.0, 990.0)
SLOPE, TALL = (110.0, 190.0), 210.0


@dataclass(frozen=True)
class Shared:
    """What all charts of a page share, so that they can be compared.

    Attributes
    ----------
    looks
        Colour, dash and marker of each treatment.
    datasets
        In the order to draw them.
    lean
        Pooled leans by treatment, network and when.
    margin
        Within which a mirror index counts as even, or None.
    share_top
        Top of the scale of shares.
    dice, index
        Limits of the scales of Dice and of the mirror index.
    """

    looks: Mapping[str, Look]
    datasets: Sequence[str]
    lean: Mapping[tuple[str, str, str], Row]
    margin: float | None
    share_top: float
    dice: Limits
    index: Limits


def finding_chart(group: Group, shared: Shared, ident: str) -> Markup:
    """Draw a line a treatment: the share of every slot in every cell before and after training, the pooled index, and Dice.

    Parameters
    ----------
    group
        The cells of one network.
    shared
        Scales and colours of the page.
    ident
        Unique on the page.
    """
    foot = TOP + ROW * len(group.treatments)
    told = "; ".join(_told(group, name, shared) for name in group.treatments)
    chart = svg.drawing(WIDE, foot + 34, ident, f"Shares and accuracy, {group.title}", told)
    _finding_ground(chart, group, shared, foot)
    for number, name in enumerate(group.treatments):
        top = TOP + ROW * number
        rows = group.of(name)
        lines = svg.wrapped(name, 20)
        for place, words in enumerate(lines):
            svg.words(
                chart,
                (0, top + 42 + 15 * place - 7 * (len(lines) - 1)),
                words,
                "start",
                weight="600",
                size=13,
            )
        if not rows:
            svg.words(chart, (PANELS["_before"][0], top + 42), "no finished cells", "start", QUIET)
            continue
        for end, (left, _) in PANELS.items():
            _share_bars(chart, rows, end, group.slices, (left, top), shared.share_top)
        _pooled_note(chart, group, name, shared, top)
        _dice_dots(chart, rows, shared, top)
    return svg.markup(chart)


def _finding_ground(chart: ET.Element, group: Group, shared: Shared, foot: float) -> None:
    """Draw what lies under the marks: heads, lines between treatments, slots and the scale of Dice."""
    for left, words in PANELS.values():
        svg.words(chart, (left, 14), f"Share, {words}", "start", weight="600", size=13)
        step = BARS / group.slices
        for slot, name in enumerate(slot_names(group.slices)):
            svg.words(chart, (left + step * (slot + 0.5), 31), name, fill=QUIET, size=11)
    svg.words(chart, (NOTE, 14), "Mirror index, mean", "start", weight="600", size=13)
    svg.words(chart, (DICE[0], 14), "Dice of each cell", "start", weight="600", size=13)
    scale = Scale(*shared.dice, *DICE)
    places = svg.ticks(shared.dice, 4)
    for value, words in zip(places, svg.tick_words(places), strict=True):
        svg.line(chart, (scale(value), TOP - 2), (scale(value), foot), GRID)
        svg.words(chart, (scale(value), foot + 17), words, fill=QUIET, size=11)
    for number in range(len(group.treatments) + 1):
        svg.line(chart, (0, TOP + ROW * number), (WIDE, TOP + ROW * number), GRID, 1)


def _share_bars(
    chart: ET.Element,
    rows: Sequence[Row],
    end: str,
    slices: int,
    corner: svg.Point,
    share_top: float,
) -> None:
    """Draw a group of bars a slot, a bar a cell, and a dashed line where every slot would count the same."""
    step, tall = BARS / slices, ROW - 14
    wide = min(7.0, (step - 6) / len(rows))
    foot = corner[1] + ROW - 6
    for slot in range(slices):
        left = corner[0] + step * (slot + 0.5) - wide * len(rows) / 2
        colour, name = slot_colour(slot - (slices - 1) // 2), slot_names(slices)[slot]
        for number, row in enumerate(rows):
            share = shares_of(row, end)[slot]
            if share is not None:
                high = tall * min(share / share_top, 1.0)
                gap = 0.8 if wide > 2 else 0.0
                place = (left + wide * number, foot - high)
                svg.bar(
                    chart,
                    place,
                    (wide - gap, high),
                    colour,
                    f"{cell_name(row)}: {name} {fixed(share)}",
                    "bar",
                )
    level = foot - tall / slices / share_top
    svg.line(chart, (corner[0], level), (corner[0] + BARS, level), INK, 1, "4 3")
    svg.line(chart, (corner[0], foot), (corner[0] + BARS, foot), QUIET, 1)


def _pooled_note(chart: ET.Element, group: Group, name: str, shared: Shared, top: float) -> None:
    """Write the pooled index before and after training with its interval and its verdict."""
    for place, when in enumerate(("before", "after")):
        found = shared.lean.get((name, group.network, when))
        y = top + 24 + 30 * place
        if found is None:
            continue
        badge = lean_badge(found)
        words = f"{when} {signed(found.get('value'))} {badge.symbol} {badge.word}"
        svg.words(chart, (NOTE, y), words, "start", weight="600" if when == "after" else "")
        svg.words(
            chart,
            (NOTE, y + 13),
            signed_interval(found.get("low"), found.get("high")),
            "start",
            QUIET,
            11,
        )


def _dice_dots(chart: ET.Element, rows: Sequence[Row], shared: Shared, top: float) -> None:
    """Draw Dice of every cell, a line and a shape a data set."""
    scale, shapes = Scale(*shared.dice, *DICE), shapes_of(shared.datasets)
    step = (ROW - 16) / max(1, len(shared.datasets))
    for place, dataset in enumerate(shared.datasets):
        own = [
            row for row in rows if str(row.get("dataset")) == dataset and is_number(row.get("dice"))
        ]
        for number, row in enumerate(own, start=1):
            y = top + 8 + step * (place + number / (len(own) + 1))
            told = f"{cell_name(row)}: Dice {fixed(row['dice'])}"
            svg.marker(chart, shapes[dataset], (scale(row["dice"]), y), 3.6, INK, told=told)


def _told(group: Group, name: str, shared: Shared) -> str:
    """Put a treatment in words for readers who do not see the chart."""
    parts = [f"{name}: {len(group.of(name))} cells"]
    for when in ("before", "after"):
        found: Row = shared.lean.get((name, group.network, when)) or {}
        parts.append(f"mean mirror index {when} training {signed(found.get('value'))}")
    return ", ".join(parts)


def slope_chart(group: Group, shared: Shared, ident: str) -> Markup:
    """Draw the mirror index of every cell before and after training, joined by a line; diamonds are pooled means.

    Parameters
    ----------
    group
        The cells of one network.
    shared
        Scales and colours of the page.
    ident
        Unique on the page.
    """
    slope = min(SLOPE[1], max(SLOPE[0], (WIDE - 56) / max(1, len(group.treatments))))
    width = 56 + slope * len(group.treatments)
    told = "; ".join(_told(group, name, shared) for name in group.treatments)
    chart = svg.drawing(
        max(width, 320),
        TALL + 76,
        ident,
        f"Mirror index before and after training, {group.title}",
        told,
    )
    scale = Scale(*shared.index, TALL + 20, 20)
    if shared.margin is not None:
        high, low = scale(shared.margin), scale(-shared.margin)
        svg.bar(chart, (50, high), (width - 56, low - high), BAND, css="margin")
    places = svg.ticks(shared.index, 6)
    for value, words in zip(places, svg.tick_words(places, sign=True), strict=True):
        svg.line(
            chart, (50, scale(value)), (width - 6, scale(value)), QUIET if words == "0" else GRID, 1
        )
        svg.words(chart, (44, scale(value) + 4), words, "end", QUIET, 11)
    for number, name in enumerate(group.treatments):
        left = 50 + slope * number
        _slopes(chart, group, name, shared, (left + 0.28 * slope, left + 0.72 * slope), scale)
        for place, words in enumerate(svg.wrapped(name, 20)):
            svg.words(chart, (left + slope / 2, TALL + 54 + 14 * place), words, weight="600")
        if number:
            svg.line(chart, (left, 20), (left, TALL + 20), GRID, 1)
    return svg.markup(chart)


def _slopes(
    chart: ET.Element, group: Group, name: str, shared: Shared, across: Limits, scale: Scale
) -> None:
    """Draw the cells of one treatment, and its pooled means beside them."""
    look = shared.looks[name]
    for row in group.of(name):
        ends = [row.get("mirror_index_before"), row.get("mirror_index")]
        points = [
            (x, scale(value)) for x, value in zip(across, ends, strict=True) if is_number(value)
        ]
        svg.polyline(chart, points, look.colour, 1.2)
        told = f"{name}, {cell_name(row)}: {signed(ends[0])} before, {signed(ends[1])} after"
        for point in points:
            svg.marker(chart, "circle", point, 3, look.colour, told=told)
    for x, when, side in zip(across, ("before", "after"), (-17, 17), strict=True):
        found = shared.lean.get((name, group.network, when))
        svg.words(chart, (x, TALL + 36), when, fill=QUIET, size=11)
        if found is not None and is_number(found.get("value")):
            _pooled(chart, found, x + side, scale, f"{name}, mean {when} training")


def _pooled(chart: ET.Element, found: Row, x: float, scale: Scale, what: str) -> None:
    """Draw a pooled mean with its interval; a wedge where the interval goes on beyond the frame."""
    low, high, value = found.get("low"), found.get("high"), found["value"]
    if is_number(low) and is_number(high):
        svg.line(chart, (x, scale(low)), (x, scale(high)), INK, 2)
        if low < scale.low:
            svg.marker(chart, "wedge", (x, scale(low)), 4, INK)
        if high > scale.high:
            svg.marker(chart, "triangle", (x, scale(high)), 4, INK)
    told = f"{what}: {signed(value)}, {signed_interval(low, high)}"
    svg.marker(chart, "diamond", (x, scale(value)), 4.5, INK, told=told)


def shared_of(
    rows: Sequence[Row],
    looks: Mapping[str, Look],
    datasets: Sequence[str],
    lean: Mapping[tuple[str, str, str], Row],
    margin: Any,
) -> Shared:
    """Choose scales that hold all cells of a page.

    Parameters
    ----------
    rows
        The finished cells.
    looks, datasets, lean, margin
        As in ``Shared``.
    """
    shares = [
        share
        for row in rows
        for end in PANELS
        for share in shares_of(row, end)
        if share is not None
    ]
    values = [row.get(key) for row in rows for key in ("mirror_index", "mirror_index_before")]
    values += [one.get("value") for one in lean.values()]
    even = [margin, -margin] if is_number(margin) else []
    index = [min(1.0, max(-1.0, value)) for value in (*values, *even) if is_number(value)]
    return Shared(
        looks,
        datasets,
        lean,
        float(margin) if is_number(margin) else None,
        svg.rounded([0.0, *shares, 0.1], 10)[1],
        svg.rounded([row["dice"] for row in rows if is_number(row.get("dice"))], 4, least=0.02),
        svg.rounded(index, 6, least=0.1),
    )
