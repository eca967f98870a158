"""Marks of inline SVG: drawings that screen readers announce, lines, bars, words, markers, and their scales."""

import itertools
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

INK, QUIET, GRID, BAND = "#1f242b", "#5b636e", "#e3e5e8", "#e4efe9"
Point = tuple[float, float]
Limits = tuple[float, float]
OUTLINES: dict[str, tuple[Point, ...]] = {
    "square": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    "diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
    "triangle": ((0, -1.2), (1.15, 0.85), (-1.15, 0.85)),
    "wedge": ((0, 1.2), (1.15, -0.85), (-1.15, -0.85)),
}


@dataclass(frozen=True)
class Scale:
    """Values from ``low`` to ``high`` laid out from ``start`` to ``end``, in px; what lies beyond is put at the end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        part = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)


def step_of(span: float, most: int) -> float:
    """Return the smallest of 1, 2, 5, 10, ... (times any power of ten) that spans ``span`` in at most ``most`` steps."""
    decade = 10.0 ** math.floor(math.log10(span / most))
    return next(
        step * decade for step in (1, 2, 5, 10) if step * decade * most >= span * (1 - 1e-9)
    )


def rounded(values: Iterable[float], most: int = 5, least: float = 0.0) -> Limits:
    """Return round limits around values, at least ``least`` apart; 0 to 1 when there is no value."""
    numbers = list(values)
    if not numbers:
        return 0.0, 1.0
    low, high = min(numbers), max(numbers)
    short = max(0.0, max(least, 1e-6 * max(1.0, abs(low), abs(high))) - (high - low)) / 2
    low, high = low - short, high + short
    step = step_of(high - low, most)
    return step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9)


def ticks(limits: Limits, most: int = 5) -> list[float]:
    """Return round values within limits that were rounded to ``most`` steps (rounding adds up to two)."""
    low, high = limits
    step = step_of(high - low, most + 2)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [step * number for number in range(first, last + 1)]


def tick_words(values: Sequence[float], sign: bool = False) -> list[str]:
    """Write the values of an axis with as many decimals as tell them apart."""
    gap = min((b - a for a, b in itertools.pairwise(values)), default=1.0)
    decimals = max(0, -math.floor(math.log10(gap) + 1e-9))
    return ["0" if abs(v) < gap / 1e6 else f"{v:{'+' if sign else ''}.{decimals}f}" for v in values]


def drawing(width: float, height: float, ident: str, title: str, told: str) -> ET.Element:
    """Open a drawing that a screen reader announces by title and description; ``ident`` is unique on the page."""
    size = {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}", "height": f"{height:g}"}
    svg = ET.Element(
        "svg", {**size, "role": "img", "aria-labelledby": f"{ident}-title {ident}-told"}
    )
    ET.SubElement(svg, "title", {"id": f"{ident}-title"}).text = clean(title)
    ET.SubElement(svg, "desc", {"id": f"{ident}-told"}).text = clean(told)
    return svg


def markup(svg: ET.Element) -> Markup:
    """Write a drawing as text; all words in it are escaped."""
    return Markup(ET.tostring(svg, encoding="unicode"))


def line(
    svg: ET.Element,
    start: Point,
    end: Point,
    stroke: str = INK,
    width: float = 1.2,
    dash: str = "",
    css: str = "",
) -> None:
    """Draw a line."""
    shape = {
        "x1": _px(start[0]),
        "y1": _px(start[1]),
        "x2": _px(end[0]),
        "y2": _px(end[1]),
        "stroke": stroke,
    }
    shape |= {"stroke-width": f"{width:g}"} | ({"stroke-dasharray": dash} if dash else {})
    ET.SubElement(svg, "line", shape | ({"class": css} if css else {}))


def polyline(
    svg: ET.Element, points: Sequence[Point], stroke: str, width: float = 1.2, dash: str = ""
) -> None:
    """Draw a line through points."""
    shape = {
        "points": " ".join(f"{_px(x)},{_px(y)}" for x, y in points),
        "fill": "none",
        "stroke": stroke,
    }
    shape |= {"stroke-width": f"{width:g}", "stroke-linejoin": "round"} | (
        {"stroke-dasharray": dash} if dash else {}
    )
    ET.SubElement(svg, "polyline", shape)


def bar(
    svg: ET.Element, corner: Point, size: Point, fill: str, told: str = "", css: str = ""
) -> None:
    """Draw a filled box from its upper left corner, with an optional tooltip."""
    shape = {
        "x": _px(corner[0]),
        "y": _px(corner[1]),
        "width": _px(size[0]),
        "height": _px(size[1]),
        "fill": fill,
    }
    _tip(ET.SubElement(svg, "rect", shape | ({"class": css} if css else {})), told)


def words(
    svg: ET.Element,
    place: Point,
    text: str,
    anchor: str = "middle",
    fill: str = INK,
    size: float = 12,
    weight: str = "",
    halo: bool = False,
) -> None:
    """Write words; ``place`` is the foot of their start, middle or end. A halo keeps them legible over lines."""
    look = {
        "x": _px(place[0]),
        "y": _px(place[1]),
        "text-anchor": anchor,
        "fill": fill,
        "font-size": f"{size:g}",
    }
    look |= {"stroke": "#fff", "stroke-width": "3", "paint-order": "stroke"} if halo else {}
    ET.SubElement(svg, "text", look | ({"font-weight": weight} if weight else {})).text = clean(
        text
    )


def marker(
    svg: ET.Element,
    shape: str,
    place: Point,
    radius: float,
    fill: str,
    edge: str = "#fff",
    told: str = "",
) -> None:
    """Draw a circle, square, diamond, triangle or wedge, with an optional tooltip."""
    look = {"fill": fill, "stroke": edge, "stroke-width": "1"}
    if shape == "circle":
        mark = ET.SubElement(
            svg, "circle", {"cx": _px(place[0]), "cy": _px(place[1]), "r": f"{radius:g}"} | look
        )
    else:
        points = " ".join(
            f"{_px(place[0] + radius * x)},{_px(place[1] + radius * y)}" for x, y in OUTLINES[shape]
        )
        mark = ET.SubElement(svg, "polygon", {"points": points} | look)
    _tip(mark, told)


def wrapped(text: str, most: int, lines: int = 2) -> list[str]:
    """Break words into at most ``lines`` lines of about ``most`` characters; what does not fit ends in an ellipsis."""
    rows = [""]
    for word in text.split() or [""]:
        if rows[-1] and len(rows[-1]) + 1 + len(word) > most:
            rows.append(word)
        else:
            rows[-1] = f"{rows[-1]} {word}".strip()
    kept = rows[:lines]
    if len(rows) > lines:
        kept[-1] = f"{kept[-1]} …"
    return [row if len(row) <= most + 2 else row[: most - 1] + "…" for row in kept]


def clean(text: str) -> str:
    """Drop control characters, which no XML may hold."""
    return "".join(character for character in text if character.isprintable())


def _tip(mark: ET.Element, told: str) -> None:
    if told:
        ET.SubElement(mark, "title").text = clean(told)


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
