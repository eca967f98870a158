"""Figures of a study for papers and documents, drawn by matplotlib: the same input gives the same file, byte for byte."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evenslice.errors import BadInputError
from evenslice.report import study_cells as cells
from evenslice.report.figure_style import MARKS, WIDTH, blank, save_figure, styled
from evenslice.report.plots import slot_colour
from evenslice.report.study_cells import Group, Row
from evenslice.report.study_curves import panels_of
from evenslice.report.study_words import OUTCOMES, comparison_badge, named
from evenslice.report.svg import BAND, INK, QUIET
from evenslice.report.verdict import is_number, slot_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_SPAN = 0.02  # of a scale of differences: what is nothing shall look like nothing

__all__ = ["effects_figure", "finding_figure", "save_figure", "steps_figure"]


def finding_figure(study: Mapping[str, Any]) -> "Figure":
    """Draw the finding: shares of every cell before and after training, the pooled mirror index, and Dice.

    Parameters
    ----------
    study
        The study as written to JSON (schema ``evenslice.study/1``).

    Returns
    -------
    Figure
        A row of four panels a network, a line a treatment: a dot is a cell, a diamond a pooled mean with its interval.

    Raises
    ------
    BadInputError
        If no cell is finished.
    """
    groups = cells.groups_of(study)
    if not groups:
        raise _nothing("finished cell")
    lines = [len(group.treatments) for group in groups]
    with styled():
        figure = blank(WIDTH, 0.75 + sum(0.62 + 0.25 * n for n in lines))
        ratios = {"height_ratios": [n + 0.6 for n in lines], "width_ratios": [1.15, 1.15, 1.2, 0.9]}
        grid = figure.subplots(len(groups), 4, squeeze=False, sharex="col", gridspec_kw=ratios)
        for axes, group in zip(grid, groups, strict=True):
            _finding_row(axes, group, study)
        titles = (
            "share, before training",
            "share, after training",
            "mirror index\n← earlier    later slice →",
            "Dice",
        )
        for axis, title in zip(grid[-1], titles, strict=True):
            axis.set_xlabel(title)
            axis.tick_params(labelbottom=True)
        _scales(grid[-1], study)
        _finding_key(
            figure,
            max(group.slices for group in groups),
            cells.names(cells.finished(study), "dataset"),
        )
    return figure


def _finding_row(axes: Sequence["Axes"], group: Group, study: Mapping[str, Any]) -> None:
    """Draw the four panels of one network."""
    places = range(len(group.treatments))
    for axis in axes:
        axis.set_ylim(len(group.treatments) - 0.5, -0.5)
        axis.set_yticks(list(places), [""] * len(places))
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticklabels(group.treatments)
    axes[0].set_title(group.title)
    shapes = cells.shapes_of(cells.names(cells.finished(study), "dataset"))
    lean, margin = cells.lean_of(study), study.get("margin")
    _even_band(axes[2], margin)
    for place, name in enumerate(group.treatments):
        rows = group.of(name)
        for axis, end in zip(axes, ("_before", ""), strict=False):
            _share_dots(axis, rows, end, group.slices, place)
        for when, end, lift in (("before", "_before", -0.2), ("after", "", 0.2)):
            values = _numbers(row.get(f"mirror_index{end}") for row in rows)
            colour = QUIET if when == "before" else INK
            axes[2].plot(
                values, [place + lift] * len(values), "o", ms=2.6, mew=0, alpha=0.45, color=colour
            )
            _pooled(
                axes[2],
                lean.get((name, group.network, when)),
                place + lift,
                colour,
                filled=when == "after",
            )
        for dataset, shape in shapes.items():
            own = _numbers(row.get("dice") for row in rows if str(row.get("dataset")) == dataset)
            lift = 0.18 * (list(shapes).index(dataset) - (len(shapes) - 1) / 2)
            axes[3].plot(
                own, [place + lift] * len(own), MARKS[shape], ms=3, mew=0.3, mec="white", color=INK
            )


def _share_dots(axis: "Axes", rows: Sequence[Row], end: str, slices: int, place: int) -> None:
    """Draw the share of every slot in every cell, earlier slots above later ones."""
    half = (slices - 1) // 2
    for slot in range(slices):
        values = _numbers(cells.shares_of(row, end)[slot] for row in rows)
        lift = 0.22 * (slot - half) / max(1, half)
        axis.plot(
            values,
            [place + lift] * len(values),
            "o",
            ms=3.2,
            mew=0.3,
            mec="white",
            color=slot_colour(slot - half),
        )


def _pooled(axis: "Axes", found: Row | None, place: float, colour: str, filled: bool) -> None:
    """Draw a pooled mean with its interval."""
    if found is None or not is_number(found.get("value")):
        return
    low, high = found.get("low"), found.get("high")
    if is_number(low) and is_number(high):
        axis.plot([low, high], [place, place], color=colour, lw=1.1)
    axis.plot(
        [found["value"]],
        [place],
        "D",
        ms=3.6,
        mew=0.8,
        mec=colour,
        color=colour if filled else "white",
    )


def _even_band(axis: "Axes", margin: Any, across: bool = True) -> None:
    """Shade what counts as even, and draw the line of no difference."""
    shade, zero = (axis.axvspan, axis.axvline) if across else (axis.axhspan, axis.axhline)
    if is_number(margin):
        shade(-margin, margin, color=BAND, lw=0, zorder=0)
    zero(0, color=QUIET, lw=0.7, zorder=0.5)


def _scales(axes: Sequence["Axes"], study: Mapping[str, Any]) -> None:
    """Give both panels of shares one scale, and the indices that of cells and means, which wide intervals do not shrink."""
    rows, margin = cells.finished(study), study.get("margin")
    shares = _numbers(
        share for row in rows for end in ("_before", "") for share in cells.shares_of(row, end)
    )
    values = _numbers(
        row.get(key) for row in rows for key in ("mirror_index", "mirror_index_before")
    )
    values += _numbers(one.get("value") for one in study.get("lean") or []) + (
        [-margin, margin] if is_number(margin) else []
    )
    for axis, numbers in ((axes[0], shares), (axes[1], shares), (axes[2], values)):
        if numbers:
            spare = 0.06 * (max(numbers) - min(numbers)) + 1e-3
            axis.set_xlim(min(numbers) - spare, max(numbers) + spare)


def _finding_key(figure: "Figure", slices: int, datasets: Sequence[str]) -> None:
    """Say below the figure what the marks mean."""
    from matplotlib.lines import Line2D

    half = (slices - 1) // 2
    dot: dict[str, Any] = {"ls": "", "marker": "o", "ms": 4, "mew": 0}
    keys = [
        Line2D([], [], color=slot_colour(s - half), label=n, **dot)
        for s, n in enumerate(slot_names(slices))
    ]
    pooled: dict[str, Any] = {"marker": "D", "ms": 3.6, "lw": 1.1}
    keys.append(Line2D([], [], color=QUIET, mfc="white", label="pooled, before", **pooled))
    keys.append(Line2D([], [], color=INK, label="pooled, after", **pooled))
    for name, shape in cells.shapes_of(datasets).items():
        keys.append(
            Line2D([], [], color=INK, ls="", marker=MARKS[shape], ms=3.6, mew=0, label=name)
        )
    columns = len(keys) if len(keys) <= 7 else max(slices, 5)
    by_rows = [key for column in range(columns) for key in keys[column::columns]]
    figure.legend(handles=by_rows, loc="outside lower center", ncols=columns)


def steps_figure(study: Mapping[str, Any]) -> "Figure":
    """Draw the mirror index against the number of training steps, a line a cell.

    Parameters
    ----------
    study
        The study as written to JSON (schema ``evenslice.study/1``).

    Returns
    -------
    Figure
        A panel a network and data set, on one scale; whiskers are the intervals of each audit.

    Raises
    ------
    BadInputError
        If no cell was looked at during training.
    """
    from matplotlib.lines import Line2D

    curves = [
        one
        for one in study.get("curves") or []
        if any(is_number(p.get("mirror_index")) for p in one["points"])
    ]
    if not curves:
        raise _nothing("cell with a mirror index during training")
    panels, looks = panels_of(curves), cells.looks_of(cells.treatments_of(study))
    columns = min(3, len(cells.names(curves, "dataset")) if len(panels) > 3 else len(panels))
    rows = -(-len(panels) // columns)
    with styled():
        size = (max(4.4, WIDTH * columns / 3), 0.7 + 1.75 * rows)
        figure = blank(*size)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axis, panel in zip(grid.flat, panels, strict=False):
            _even_band(axis, study.get("margin"), across=False)
            axis.set_title(panel.title.replace(" on ", "\non ", 1), fontsize=7)
            for curve in panel.curves:
                _index_curve(axis, curve, looks[str(curve.get("treatment"))])
        for axis in grid.flat[len(panels) :]:
            axis.set_visible(False)
        for axis in grid[:, 0]:
            axis.set_ylabel("mirror index\n(above 0: later slice)")
        figure.supxlabel("training steps", fontsize=7)
        used = cells.names(curves, "treatment")
        styles = {
            n: {"color": looks[n].colour, "ls": _dash(looks[n]), "marker": MARKS[looks[n].shape]}
            for n in used
        }
        keys = [Line2D([], [], ms=3.4, label=name, **style) for name, style in styles.items()]
        figure.legend(
            handles=keys, loc="outside upper center", ncols=min(len(keys), 5 if columns > 2 else 3)
        )
    return figure


def _index_curve(axis: "Axes", curve: Row, look: cells.Look) -> None:
    """Draw the mirror index of one cell, with the interval of each audit."""
    seen = [
        p for p in curve["points"] if is_number(p.get("mirror_index")) and is_number(p.get("steps"))
    ]
    across, up = [p["steps"] for p in seen], [p["mirror_index"] for p in seen]
    axis.plot(
        across,
        up,
        color=look.colour,
        ls=_dash(look),
        marker=MARKS[look.shape],
        ms=2.6,
        mew=0.3,
        mec="white",
    )
    for point in seen:
        low, high = point.get("mirror_low"), point.get("mirror_high")
        if is_number(low) and is_number(high):
            axis.plot([point["steps"]] * 2, [low, high], color=look.colour, lw=0.6)


def _dash(look: cells.Look) -> Any:
    return (0, tuple(0.6 * length for length in look.dash)) if look.dash else "-"


def effects_figure(study: Mapping[str, Any]) -> "Figure":
    """Draw the mean paired differences from the control with their intervals, a panel an outcome.

    Parameters
    ----------
    study
        The study as written to JSON (schema ``evenslice.study/1``).

    Raises
    ------
    BadInputError
        If nothing was compared.
    """
    found = study.get("comparisons") or []
    if not found:
        raise _nothing("comparison with the control")
    outcomes = cells.names(found, "outcome")
    lines = list(dict.fromkeys(named(one) for one in found))
    with styled():
        figure = blank(WIDTH, 0.85 + 0.3 * len(lines))
        axes = figure.subplots(1, len(outcomes), squeeze=False, sharey=True)[0]
        for axis, outcome in zip(axes, outcomes, strict=True):
            _effects(axis, [one for one in found if one.get("outcome") == outcome], lines)
        axes[0].set_yticks(range(len(lines)), lines)
        axes[0].set_ylim(len(lines) - 0.5, -0.5)
    return figure


def _effects(axis: "Axes", found: Sequence[Row], lines: Sequence[str]) -> None:
    """Draw the comparisons of one outcome; filled where something was decided."""
    title, short, lower, higher = OUTCOMES.get(
        str(found[0].get("outcome")), (str(found[0].get("outcome")),) * 4
    )
    margins = _numbers(one.get("margin") for one in found)
    _even_band(axis, max(margins) if margins else None)
    for one in found:
        place, value, low, high = (
            lines.index(named(one)),
            *(one.get(key) for key in ("value", "low", "high")),
        )
        if not is_number(value):
            continue
        if is_number(low) and is_number(high):
            axis.plot([low, high], [place, place], color=INK, lw=1.2)
        kind = comparison_badge(one).kind
        colour = {"symmetric": "#00694b", "asymmetric": "#c14d00"}.get(kind, "white")
        axis.plot(
            [value],
            [place],
            "o",
            ms=4.6,
            mew=0.9,
            mec=INK if colour == "white" else colour,
            color=colour,
        )
    axis.set_title(title)
    axis.set_xlabel(
        f"difference in {short} from {found[0].get('control')}\n← {lower}    {higher} →"
    )
    axis.tick_params(axis="y", length=0)
    ends = _numbers(
        [
            0.0,
            *margins,
            *(-m for m in margins),
            *(one.get(k) for one in found for k in ("value", "low", "high")),
        ]
    )
    spare = max(0.06 * (max(ends) - min(ends)), (LEAST_SPAN - max(ends) + min(ends)) / 2)
    axis.set_xlim(min(ends) - spare, max(ends) + spare)
    axis.locator_params(axis="x", nbins=5)


def _numbers(values: Iterable[Any]) -> list[float]:
    return [value for value in values if is_number(value)]


def _nothing(what: str) -> BadInputError:
    return BadInputError(f"the study has no {what}, expected at least one to draw; run it first")
