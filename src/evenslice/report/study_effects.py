"""Effects of a study as inline SVG: mean paired differences with their intervals, and the margin of equivalence."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from markupsafe import Markup

from evenslice.report import svg
from evenslice.report.study_cells import Row
from evenslice.report.study_words import OUTCOMES, comparison_badge, named, signed, signed_interval
from evenslice.report.svg import BAND, GRID, INK, QUIET, Scale
from evenslice.report.verdict import is_number

WIDE, LEFT, RIGHT, TOP, ROW = 1010.0, 230.0, 690.0, 40.0, 38.0  # px
COLOURS = {"symmetric": "#00694b", "asymmetric": "#a84300"}


def effect_chart(found: Sequence[Row], ident: str) -> Markup:
    """Draw the comparisons of one outcome with the control, a line each.

    Parameters
    ----------
    found
        Comparisons that share their outcome; at least one.
    ident
        Unique on the page.
    """
    control, outcome = str(found[0].get("control")), str(found[0].get("outcome"))
    _, short, lower, higher = OUTCOMES.get(outcome, (outcome, outcome, "lower", "higher"))
    foot = TOP + ROW * len(found)
    told = "; ".join(_told(one) for one in found)
    chart = svg.drawing(WIDE, foot + 44, ident, f"Difference from {control}: {short}", told)
    margins = {one["margin"] for one in found if is_number(one.get("margin"))}
    ends = [one.get(key) for one in found for key in ("value", "low", "high")]
    values = [value for value in ends if is_number(value)]
    limits = svg.rounded(
        [0.0, *values, *(1.4 * m for m in margins), *(-1.4 * m for m in margins)], 6, least=0.01
    )
    scale = Scale(*limits, LEFT, RIGHT)
    for margin in margins:
        svg.bar(
            chart,
            (scale(-margin), TOP - 8),
            (scale(margin) - scale(-margin), foot - TOP + 8),
            BAND,
            css="margin",
        )
    places = svg.ticks(limits, 6)
    for value, words in zip(places, svg.tick_words(places, sign=True), strict=True):
        svg.line(
            chart, (scale(value), TOP - 8), (scale(value), foot), QUIET if words == "0" else GRID, 1
        )
        svg.words(chart, (scale(value), foot + 17), words, fill=QUIET, size=11)
    svg.words(chart, (LEFT, 18), f"← {lower} than {control}", "start", QUIET)
    svg.words(chart, (RIGHT, 18), f"{higher} than {control} →", "end", QUIET)
    svg.words(
        chart, ((LEFT + RIGHT) / 2, foot + 36), f"difference in {short} from {control}", fill=QUIET
    )
    for number, one in enumerate(found):
        _effect(chart, one, TOP + ROW * number + ROW / 2 - 4, scale)
    return svg.markup(chart)


def _effect(chart: ET.Element, one: Row, y: float, scale: Scale) -> None:
    """Draw one difference with its interval, and write them beside."""
    value, low, high = (one.get(key) for key in ("value", "low", "high"))
    lines = svg.wrapped(named(one), 32)
    for place, words in enumerate(lines):
        svg.words(
            chart, (0, y + 4 + 14 * place - 7 * (len(lines) - 1)), words, "start", weight="600"
        )
    if not is_number(value):
        return
    badge = comparison_badge(one)
    if is_number(low) and is_number(high):
        svg.line(chart, (scale(low), y), (scale(high), y), INK, 2)
        for end in (low, high):
            svg.line(chart, (scale(end), y - 4), (scale(end), y + 4), INK, 1.2)
    svg.marker(
        chart, "circle", (scale(value), y), 5.5, COLOURS.get(badge.kind, INK), told=_told(one)
    )
    svg.words(chart, (RIGHT + 22, y - 3), f"{badge.symbol} {badge.word}", "start", weight="600")
    svg.words(
        chart,
        (RIGHT + 22, y + 12),
        f"{signed(value)} ({signed_interval(low, high)})",
        "start",
        QUIET,
    )


def _told(one: Row) -> str:
    numbers = f"{signed(one.get('value'))}, {signed_interval(one.get('low'), one.get('high'))}"
    return f"{named(one)}: {numbers}, {comparison_badge(one).word}"
