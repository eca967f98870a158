"""Charts of shares and mirror indices as inline SVG; colours are safe for colour-blind readers."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from evenslice.report import svg
from evenslice.report.svg import BAND, GRID, INK, QUIET
from evenslice.report.verdict import DASH, fixed, interval, is_number, slot_names

BEFORE = ("#0072b2", "#4a9bcb", "#86bfdf", "#bbddef")
AFTER = ("#d55e00", "#e68a45", "#f0b184", "#f8d6bf")
CENTRE = "#8b8f96"
PITCH, FLOOR = 32, 182.0  # px: bar to bar, and the foot of the bars
MIDDLE, STRIP = 395.0, 225.0  # px: where the strip's zero is, and how far it reaches to each side


@dataclass(frozen=True)
class Bars:
    """The shares of one method, slot by slot, with their intervals."""

    label: str
    shares: Sequence[float | None]
    low: Sequence[float | None]
    high: Sequence[float | None]


@dataclass(frozen=True)
class Dot:
    """One mirror index or mirror pair with its interval."""

    group: str
    label: str
    value: float | None
    low: float | None
    high: float | None


def slot_colour(offset: int) -> str:
    """Colour a slot by side: blue before the centre, orange after it, paler farther out."""
    if offset == 0:
        return CENTRE
    return (BEFORE if offset < 0 else AFTER)[min(abs(offset), 4) - 1]


def share_top(charts: Iterable[Bars]) -> float:
    """Find one top of the scale for several charts."""
    values = [v for bars in charts for v in (*bars.shares, *bars.high) if is_number(v)]
    return min(1.0, math.ceil(10 * max([*values, 0.1]) + 0.5) / 10)


def chart_width(groups: Sequence[Bars]) -> int:
    """Tell the natural width of a chart of shares, in px."""
    return 68 + len(groups) * _group_width(len(groups[0].shares))


def _group_width(slots: int) -> int:
    return max(slots * PITCH, 84) + 14


def share_bars(title: str, groups: Sequence[Bars], top: float, ident: str) -> Markup:
    """Draw the shares of one model: a group of bars per method, whiskers for intervals, a dashed line at 1/S.

    Parameters
    ----------
    title
        Name of the model.
    groups
        One entry per method, all with the same number of slots.
    top
        Upper end of the scale; give all charts of a page the same.
    ident
        Unique on the page; links the drawing to its title and description.
    """
    slots = len(groups[0].shares)
    wide, scale = _group_width(slots), 158 / top
    right = chart_width(groups) - 26
    drawn = svg.drawing(chart_width(groups), 236, ident, title, _told(groups))
    for tick in range(0, round(top * 10) + 1, 1 if top <= 0.5 else 2):
        y = FLOOR - tick / 10 * scale
        svg.line(drawn, (36, y), (right, y), GRID)
        svg.words(drawn, (30, y + 4), f"{tick / 10:.1f}", anchor="end", fill=QUIET)
    placed = [
        (bars, 42 + wide * number + (wide - slots * PITCH) / 2)
        for number, bars in enumerate(groups)
    ]
    for bars, left in placed:
        _group_bars(drawn, bars, left, scale)
    svg.line(
        drawn,
        (36, FLOOR - scale / slots),
        (right, FLOOR - scale / slots),
        INK,
        dash="5 4",
        css="even-line",
    )
    svg.words(drawn, (right + 4, FLOOR - scale / slots + 4), f"1/{slots}", anchor="start", size=11)
    for bars, left in placed:
        _group_values(drawn, bars, left, scale)
        for line, words in enumerate(_lines(bars.label, wide // 7)):
            svg.words(
                drawn, (left + slots * PITCH / 2, 217 + 14 * line), words, weight="600", size=11
            )
    return svg.markup(drawn)


def _group_bars(drawn: ET.Element, bars: Bars, left: float, scale: float) -> None:
    """Draw the bars of one method, each with its slot name below and its value as a tooltip."""
    slots = len(bars.shares)
    names = slot_names(slots)
    for slot, share in enumerate(bars.shares):
        x, tall = left + PITCH * slot, share * scale if is_number(share) else 0.0
        shape = {
            "class": "bar",
            "x": f"{x + 3:.1f}",
            "y": f"{FLOOR - tall:.1f}",
            "height": f"{tall:.1f}",
        }
        fill = slot_colour(slot - (slots - 1) // 2)
        bar = ET.SubElement(drawn, "rect", {**shape, "width": f"{PITCH - 6}", "fill": fill})
        ET.SubElement(bar, "title").text = svg.clean(f"{bars.label}, {names[slot]}: {fixed(share)}")
        svg.words(
            drawn,
            (x + PITCH / 2, FLOOR + 15),
            names[slot].replace("previous", "prev"),
            size=10,
            fill=QUIET,
        )


def _group_values(drawn: ET.Element, bars: Bars, left: float, scale: float) -> None:
    """Draw the whiskers and the values of one method over its bars."""
    for slot, share in enumerate(bars.shares):
        x = left + PITCH * (slot + 0.5)
        low, high = (end[slot] if slot < len(end) else None for end in (bars.low, bars.high))
        peak = max(share if is_number(share) else 0.0, high if is_number(high) else 0.0)
        if is_number(low) and is_number(high):
            foot, head = FLOOR - low * scale, FLOOR - high * scale
            svg.line(drawn, (x, foot), (x, head), INK, css="whisker")
            svg.line(drawn, (x - 4, foot), (x + 4, foot), INK)
            svg.line(drawn, (x - 4, head), (x + 4, head), INK)
        words = f"{share:.2f}" if is_number(share) else DASH
        svg.words(drawn, (x, FLOOR - peak * scale - 5), words, size=11, halo=True)


def index_strip(
    dots: Sequence[Dot], margin: float | None, sides: tuple[str, str], ident: str
) -> Markup:
    """Draw mirror indices with intervals against the band inside which a model counts as even.

    Parameters
    ----------
    dots
        One per line, in order; the group is written where it changes.
    margin
        Half width of the band, or None to draw none.
    sides
        What lies to the left (negative) and to the right (positive).
    ident
        Unique on the page.
    """
    ends = [abs(v) for dot in dots for v in (dot.value, dot.low, dot.high) if is_number(v)]
    widest = max([*ends, 2 * (margin or 0.05)])
    step = next(s for s in (0.05, 0.1, 0.25, 0.5) if widest <= 4 * s or s == 0.5)
    reach = step * math.ceil(widest / step - 1e-9)
    heads = [n == 0 or dots[n - 1].group != dot.group for n, dot in enumerate(dots)]
    places = [
        30 + 24 * (n + sum(heads[: n + 1])) + 6 * (sum(heads[: n + 1]) - 1)
        for n in range(len(dots))
    ]
    foot, scale = places[-1] + 18.0, STRIP / reach
    told = "; ".join(
        f"{d.group} {d.label}: {fixed(d.value)}, interval {interval(d.low, d.high)}" for d in dots
    )
    drawn = svg.drawing(MIDDLE + STRIP + 30, foot + 28, ident, "Mirror index with interval", told)
    _strip_ground(drawn, margin, sides, foot, scale)
    for tick in range(-round(reach / step), round(reach / step) + 1):
        x = MIDDLE + tick * step * scale
        svg.line(drawn, (x, 26), (x, foot), QUIET if tick == 0 else GRID)
        svg.words(drawn, (x, foot + 17), f"{tick * step:+.2f}" if tick else "0", fill=QUIET)
    for dot, y, head in zip(dots, places, heads, strict=True):
        if head:
            svg.words(drawn, (0, y - 20), _cut(dot.group, 24), anchor="start", weight="600")
        _one_dot(drawn, dot, y, scale, margin)
    return svg.markup(drawn)


def _strip_ground(
    drawn: ET.Element, margin: float | None, sides: tuple[str, str], foot: float, scale: float
) -> None:
    """Draw what lies under the dots: the band that counts as even, and what each side means."""
    if margin:
        band = {
            "x": f"{MIDDLE - margin * scale:.1f}",
            "y": "26",
            "width": f"{2 * margin * scale:.1f}",
        }
        ET.SubElement(
            drawn, "rect", {**band, "class": "margin", "height": f"{foot - 26}", "fill": BAND}
        )
        svg.words(drawn, (MIDDLE, 16), f"even, within {margin:g}", fill=QUIET)
    svg.words(drawn, (MIDDLE - STRIP, 16), f"← leans to {sides[0]}", anchor="start", fill=QUIET)
    svg.words(drawn, (MIDDLE + STRIP, 16), f"leans to {sides[1]} →", anchor="end", fill=QUIET)


def _one_dot(drawn: ET.Element, dot: Dot, y: float, scale: float, margin: float | None) -> None:
    """Draw one line of the strip; a dot takes the colour of a side when its interval lies beyond the margin."""
    svg.words(drawn, (0, y + 4), _cut(dot.label, 24), anchor="start", fill=QUIET)
    if not is_number(dot.value):
        svg.words(drawn, (MIDDLE, y + 4), DASH)
        return
    colour = INK
    if is_number(dot.low) and is_number(dot.high):
        svg.line(
            drawn,
            (MIDDLE + dot.low * scale, y),
            (MIDDLE + dot.high * scale, y),
            INK,
            css="whisker",
            width=2,
        )
        if margin and (dot.low > margin or dot.high < -margin):
            colour = (AFTER if dot.value > 0 else BEFORE)[0]
    place = {
        "class": "dot",
        "cx": f"{MIDDLE + dot.value * scale:.1f}",
        "cy": f"{y:.1f}",
        "r": "5",
        "fill": colour,
    }
    mark = ET.SubElement(drawn, "circle", {**place, "stroke": "#fff", "stroke-width": "1"})
    ET.SubElement(mark, "title").text = svg.clean(f"{dot.label}: {fixed(dot.value)}")


def _told(groups: Sequence[Bars]) -> str:
    """Put the bars in words for readers who do not see them."""
    told = []
    for bars in groups:
        pairs = zip(slot_names(len(bars.shares)), bars.shares, strict=False)
        told.append(
            f"{bars.label}: " + ", ".join(f"{name} {fixed(share)}" for name, share in pairs)
        )
    return "; ".join(told)


def _lines(words: str, most: int) -> list[str]:
    """Break a long name at its last hyphen, so that it fits below its bars."""
    head, hyphen, tail = words.rpartition("-")
    return [
        _cut(part, most)
        for part in ((head + hyphen, tail) if len(words) > most and head else (words,))
    ]


def _cut(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
