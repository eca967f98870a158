"""How the figures for papers and documents look, and how they are written: the same input gives the same file."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenslice.errors import BadInputError
from evenslice.report.svg import GRID, INK, QUIET
from evenslice.volume.atomic import written_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 7.2  # inches: two columns of most journals
MARKS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D", "wedge": "v"}
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
ENDINGS: dict[str, dict[str, Any]] = {
    ".svg": {"Date": None, "Creator": "evenslice"},
    ".pdf": {"CreationDate": None, "Creator": "evenslice"},
    ".png": {"Software": "evenslice"},
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of this project, whatever the user's settings are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def blank(width: float, height: float) -> "Figure":
    """Return an empty figure of so many inches that a notebook shows by itself; the state of pyplot is left alone."""
    from matplotlib.figure import Figure

    class Drawing(Figure):
        """A figure with its picture."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            with styled():
                self.savefig(buffer, format="png", metadata=ENDINGS[".png"], facecolor="white")
            return buffer.getvalue()

    return Drawing(figsize=(width, height), layout="constrained")


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a figure as SVG, PDF or PNG, by the ending of the name.

    Parameters
    ----------
    figure
        What to write.
    path
        The file; one that was there is replaced only once the new one is whole.

    Raises
    ------
    BadInputError
        If the name ends in something else.
    """
    path = Path(path)
    metadata = ENDINGS.get(path.suffix.lower())
    if metadata is None:
        raise BadInputError(
            f"{path} ends in {path.suffix!r}, expected .svg, .pdf or .png; choose another name"
        )
    with styled(), written_beside(path) as part:
        figure.savefig(part, format=path.suffix.lower()[1:], metadata=metadata, facecolor="white")
