"""One style for every chart: matplotlib figures as inline SVG for a page or files for a paper."""

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from evenslice.errors import BadInputError, escape_control_chars
from evenslice.options import JsonObject
from evenslice.report.verdict import is_number
from evenslice.volume.atomic import written_beside

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, QUIET, GRID, BAND = "#1f242b", "#5b636e", "#e3e5e8", "#e4efe9"
BEFORE = ("#0072b2", "#4a9bcb", "#86bfdf", "#bbddef")
AFTER = ("#d55e00", "#e68a45", "#f0b184", "#f8d6bf")
CENTRE = "#8b8f96"
MARKERS = ("o", "s", "^", "D", "v")
WIDTH = 7.2  # inches: two columns of most journals
ON_PAGE = 2  # CSS pixels of a page per point: a figure of 7.2 inches fills it
FONT = " font-family: 'DejaVu Sans';"  # wider than the fonts of pages, which it makes room for
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.6,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": QUIET,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 0.9,
    "pdf.fonttype": 42,
    "svg.hashsalt": "evenslice",
    "savefig.dpi": 200,
}
METADATA: dict[str, JsonObject] = {
    ".svg": {"Date": None, "Creator": "evenslice"},
    ".pdf": {"CreationDate": None, "Creator": "evenslice"},
    ".png": {"Software": "evenslice"},
}
TOOLTIP = "tooltip: "
COORDINATES = ("d", "x", "y", "transform")
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_REFERENCE = re.compile(r"(?:url\()?#([\w-]+)\)?")


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of this project, whatever the user's settings are."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a browser has more fonts
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def blank(width: float, height: float) -> "Figure":
    """Return an empty figure of so many inches that a notebook shows by itself, without pyplot."""
    from matplotlib.figure import Figure

    class Drawing(Figure):
        """A figure with its picture."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            with styled():
                self.savefig(buffer, format="png", metadata=METADATA[".png"], facecolor="white")
            return buffer.getvalue()

    return Drawing(figsize=(width, height), layout="constrained")


def slot_colour(offset: int) -> str:
    """Colour a slot by side: blue before the centre, orange after it, paler farther out."""
    if offset == 0:
        return CENTRE
    return (BEFORE if offset < 0 else AFTER)[min(abs(offset), 4) - 1]


def numbers(values: Iterable[float | None]) -> list[float]:
    """Return the values that are finite numbers."""
    return [value for value in values if is_number(value)]


def add_tooltip(artist: "Artist", text: str) -> None:
    """Give a mark the words that a page shows when the pointer rests on it."""
    artist.set_gid(TOOLTIP + text)


def add_mark(
    axis: "Axes",
    place: tuple[float, float],
    colour: str,
    tooltip: str,
    marker: str = "o",
    size: float = 3.2,
    **style: Any,
) -> None:
    """Draw one mark with a thin white edge."""
    drawn = {"mew": 0.3, "mec": "white", "color": colour, **style}
    mark = axis.plot([place[0]], [place[1]], marker, ms=size, **drawn)
    add_tooltip(mark[0], tooltip)


def add_interval(
    axis: "Axes",
    ends: tuple[float | None, float | None],
    place: float,
    colour: str = INK,
    width: float = 1.2,
) -> None:
    """Draw a horizontal interval; nothing where an end is missing."""
    low, high = ends
    if is_number(low) and is_number(high):
        axis.plot([low, high], [place, place], color=colour, lw=width, solid_capstyle="butt")


def add_margin(axis: "Axes", margin: float | None, across: bool = True) -> None:
    """Shade what counts as symmetric, and draw the line of no difference."""
    shade, zero = (axis.axvspan, axis.axvline) if across else (axis.axhspan, axis.axhline)
    if is_number(margin):
        shade(-margin, margin, color=BAND, lw=0, zorder=0)
    zero(0, color=QUIET, lw=0.7, zorder=0.5)


def set_rows(axis: "Axes", names: Sequence[str]) -> None:
    """Give an axis one named row per entry, the first on top."""
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_yticks(range(len(names)), names)
    axis.tick_params(axis="y", length=0)


def to_svg(figure: "Figure", ident: str, title: str, description: str = "") -> Markup:
    """Turn a figure into an inline ``<svg>`` that a screen reader announces; the text stays text.

    ``ident`` is unique on the page: all identifiers in the drawing start with it. The same figure
    gives the same text.
    """
    import matplotlib

    buffer, own = io.StringIO(), {"svg.fonttype": "none", "svg.hashsalt": ident}
    with styled(), matplotlib.rc_context(own):
        figure.savefig(buffer, format="svg", metadata=METADATA[".svg"], transparent=True)
    root = ET.fromstring(escape_control_chars(buffer.getvalue()))
    _simplify(root)
    width = ON_PAGE * float(root.attrib["viewBox"].split()[2])
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"{ident}-title {ident}-description",
        "stroke-linejoin": "round",
        "style": f"max-width: {width:g}px",
    }
    for place, (tag, name, text) in enumerate(
        (("title", "title", title), ("desc", "description", description))
    ):
        root.insert(place, _element(tag, text, id=f"{ident}-{name}"))
    return Markup(ET.tostring(root, encoding="unicode").replace(FONT, ""))


def _element(tag: str, text: str, **attributes: str) -> ET.Element:
    element = ET.Element(tag, attributes)
    element.text = escape_control_chars(text)
    return element


def _simplify(root: ET.Element) -> None:
    """Leave the names that HTML knows, two decimals, what is referred to, and write tooltips."""
    elements = list(root.iter())
    values = [value for element in elements for value in element.attrib.values()]
    used = {found[1] for value in values if (found := _REFERENCE.fullmatch(value))}
    for element in elements:
        for child in list(element):
            if child.tag.endswith(("}metadata", "}style")):  # a style would reach the page
                element.remove(child)
        element.tag = element.tag.rpartition("}")[2]
        name = element.attrib.get("id", "")
        if name not in used:
            element.attrib.pop("id", None)
        for key in list(element.attrib):
            value = element.attrib.pop(key)
            short = _DECIMALS.sub(r"\1", value) if key in COORDINATES else value
            element.attrib[key.rpartition("}")[2]] = short
        if name.startswith(TOOLTIP):
            element.insert(0, _element("title", name.removeprefix(TOOLTIP)))
        if not (element.tail or "").strip():
            element.tail = None


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a figure as SVG, PDF or PNG by its ending; the same figure gives the same bytes.

    Raises
    ------
    BadInputError
        If the name ends in something else.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in METADATA:
        raise BadInputError(
            f"{path} ends in {path.suffix!r}, expected .svg, .pdf or .png; choose another name"
        )
    for artist in figure.findobj():
        if str(artist.get_gid()).startswith(TOOLTIP):
            artist.set_gid(None)
    with styled(), written_beside(path) as part:
        figure.savefig(part, format=ending[1:], metadata=METADATA[ending], facecolor="white")
