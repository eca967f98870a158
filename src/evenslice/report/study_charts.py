"""Charts of a study: shares, indices and Dice of every cell, training curves, and effects."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evenslice.errors import BadInputError
from evenslice.options import JsonObject
from evenslice.report import charts, verdict
from evenslice.report.charts import CENTRE, INK, MARKERS, QUIET, WIDTH, add_mark, slot_colour
from evenslice.report.verdict import fixed, is_number, signed, signed_interval, slot_names
from evenslice.study.results import CellResult, Comparison, Curve, Group, PooledIndex, Study, unique

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_SPAN = 0.02  # of a scale of differences: what is nothing shall look like nothing
USUAL = ("rgb", "green", "mean", "random weights", "rgb, reverse-z", "mirror", "centre")
COLOURS = ("#1f242b", "#00805d", "#b0468e", "#b06f00", "#4a86ff", "#8a3b12", "#4b2e83")
DASHES = (
    (),
    (3.6, 1.2),
    (1.2, 1.2),
    (4.8, 1.2, 1.2, 1.2),
    (2.4, 0.6),
    (6, 1.8),
    (3, 1.2, 0.6, 1.2),
)
EFFECTS = {"symmetric": "#00694b", "asymmetric": "#c14d00"}
QUANTITIES = {"loss": "Loss", "dice": "Validation Dice", "mirror_index": "Mirror index"}


Style = JsonObject


def line_styles(treatments: Sequence[str]) -> dict[str, Style]:
    """Choose how each treatment is drawn; colours, dashes and markers each tell them apart.

    The control is black. Against ``rgb`` the treatments of the paper are drawn the same in every
    study, whichever of them it has.
    """
    places: dict[str, int] = {}
    if treatments[:1] == list(USUAL[:1]):
        places = {name: n for n, name in enumerate(USUAL) if name in treatments}
    free = (n for n in itertools.count() if n not in places.values())
    places |= {name: next(free) for name in treatments if name not in places}
    return {name: _style(places[name]) for name in treatments}


def _style(place: int) -> Style:
    dash = DASHES[place % len(DASHES)]
    return {
        "color": COLOURS[place % len(COLOURS)],
        "ls": (0, dash) if dash else "-",
        "marker": MARKERS[place % len(MARKERS)],
    }


def finding_figure(study: Study) -> "Figure":
    """Draw shares of every cell before and after training, mirror indices, and Dice.

    A row of four panels per network, a line per treatment: a dot is a cell, a thin line joins its
    mirror index before and after training, a diamond is a pooled mean with its interval.
    ``BadInputError`` if no cell is finished.
    """
    groups = study.groups
    if not groups:
        raise _nothing("finished cell")
    lines = [len(group.treatments) for group in groups]
    with charts.styled():
        figure = charts.blank(WIDTH, 0.75 + sum(0.62 + 0.25 * n for n in lines))
        ratios = {"height_ratios": [n + 0.6 for n in lines], "width_ratios": [1.15, 1.15, 1.2, 0.9]}
        grid = figure.subplots(len(groups), 4, squeeze=False, sharex="col", gridspec_kw=ratios)
        _set_scales(grid[-1], study)
        for axes, group in zip(grid, groups, strict=True):
            _draw_group(axes, group, study)
        titles = (
            "share, before training",
            "share, after training",
            "mirror index\n← earlier    later slice →",
            "Dice",
        )
        for axis, title in zip(grid[-1], titles, strict=True):
            axis.set_xlabel(title)
            axis.tick_params(labelbottom=True)
        _add_finding_key(figure, max(group.slices for group in groups), study.datasets)
    return figure


def _draw_group(axes: Sequence["Axes"], group: Group, study: Study) -> None:
    """Draw the four panels of one network."""
    for axis in axes:
        charts.set_rows(axis, [""] * len(group.treatments))
    axes[0].set_yticklabels(group.treatments)
    axes[0].set_title(group.title)
    charts.add_margin(axes[2], study.margin)
    pooled = study.pooled
    for place, name in enumerate(group.treatments):
        cells = group.of(name)
        _draw_shares(axes[0], cells, place, before=True)
        _draw_shares(axes[1], cells, place, before=False)
        _draw_indices(axes[2], cells, place)
        for when, lift, colour in (("before", -0.14, QUIET), ("after", 0.14, INK)):
            found = pooled.get((name, group.network, when))
            if found is not None:
                _draw_pooled(axes[2], found, place + lift, colour)
        _draw_dice(axes[3], cells, place, study.datasets)


def _draw_shares(axis: "Axes", cells: Sequence[CellResult], place: int, before: bool) -> None:
    """Draw the share of every slot in every cell, earlier slots above later ones."""
    for cell in cells:
        half, names = (cell.slices - 1) // 2, slot_names(cell.slices)
        for slot, share in enumerate(cell.shares_before if before else cell.shares):
            if share is not None:
                height = place + 0.22 * (slot - half) / max(1, half)
                text = f"{cell.name}, {names[slot]}: {fixed(share)}"
                add_mark(axis, (share, height), slot_colour(slot - half), text)


def _draw_indices(axis: "Axes", cells: Sequence[CellResult], place: int) -> None:
    """Draw the mirror index of every cell before and after training, joined by a line."""
    for cell in cells:
        before, after = cell.index_before.value, cell.index.value
        if before is not None and after is not None:
            axis.plot([before, after], [place - 0.3, place + 0.3], color=CENTRE, lw=0.5)
        text = f"{cell.name}: {signed(before)} before, {signed(after)} after"
        for value, height, colour in ((before, place - 0.3, QUIET), (after, place + 0.3, INK)):
            if value is not None:
                add_mark(axis, (value, height), colour, text, size=2.8, mew=0, alpha=0.6)


def _draw_pooled(axis: "Axes", found: PooledIndex, place: float, colour: str) -> None:
    """Draw a pooled mean with its interval; an arrow where that goes on beyond the frame."""
    if found.value is None:
        return
    charts.add_interval(axis, (found.low, found.high), place, colour, 1.1)
    left, right = axis.get_xlim()
    arrow: JsonObject = {"ms": 3, "mew": 0, "color": colour, "clip_on": False}
    if found.low is not None and found.low < left:
        axis.plot([left], [place], "<", **arrow)
    if found.high is not None and found.high > right:
        axis.plot([right], [place], ">", **arrow)
    face = colour if found.when == "after" else "white"
    text = f"{signed(found.value)}, {signed_interval(found.low, found.high)}"
    text = f"{found.treatment}, mean {found.when} training: {text}"
    add_mark(axis, (found.value, place), face, text, "D", 3.6, mew=0.8, mec=colour)


def _draw_dice(
    axis: "Axes", cells: Sequence[CellResult], place: int, datasets: Sequence[str]
) -> None:
    """Draw Dice of every cell, a line and a marker per dataset."""
    for cell in cells:
        if cell.dice is not None:
            number = datasets.index(cell.dataset)
            height = place + 0.18 * (number - (len(datasets) - 1) / 2)
            text = f"{cell.name}: Dice {fixed(cell.dice)}"
            add_mark(axis, (cell.dice, height), INK, text, MARKERS[number % len(MARKERS)], 3)


def _set_scales(axes: Sequence["Axes"], study: Study) -> None:
    """Give both panels of shares one scale, and the indices that of cells and means.

    Wide intervals do not shrink it.
    """
    cells = study.finished
    shares = charts.numbers(
        share for cell in cells for share in (*cell.shares, *cell.shares_before)
    )
    values = charts.numbers(end.value for cell in cells for end in (cell.index, cell.index_before))
    values += charts.numbers(one.value for one in study.lean)
    if study.margin is not None:
        values += [-study.margin, study.margin]
    for axis, known in ((axes[0], shares), (axes[1], shares), (axes[2], values)):
        if known:
            spare = 0.06 * (max(known) - min(known)) + 1e-3
            axis.set_xlim(min(known) - spare, max(known) + spare)


def _add_finding_key(figure: "Figure", slices: int, datasets: Sequence[str]) -> None:
    """Say below the figure what the marks mean."""
    from matplotlib.lines import Line2D

    half = (slices - 1) // 2
    dot: JsonObject = {"ls": "", "marker": "o", "ms": 4, "mew": 0}
    keys = [
        Line2D([], [], color=slot_colour(slot - half), label=name, **dot)
        for slot, name in enumerate(slot_names(slices))
    ]
    pooled: JsonObject = {"marker": "D", "ms": 3.6, "lw": 1.1}
    keys.append(Line2D([], [], color=QUIET, mfc="white", label="pooled, before", **pooled))
    keys.append(Line2D([], [], color=INK, label="pooled, after", **pooled))
    for number, name in enumerate(datasets):
        marker = MARKERS[number % len(MARKERS)]
        keys.append(Line2D([], [], color=INK, ls="", marker=marker, ms=3.6, mew=0, label=name))
    columns = len(keys) if len(keys) <= 7 else max(slices, 5)
    by_rows = [key for column in range(columns) for key in keys[column::columns]]
    figure.legend(handles=by_rows, loc="outside lower center", ncols=columns)


def steps_figure(study: Study, quantity: str = "mirror_index") -> "Figure":
    """Draw what was validated during training against steps: a line per cell.

    ``quantity`` is ``mirror_index`` (whiskers: the intervals of each audit), ``loss`` or ``dice``.
    A panel per network and dataset, on one scale. ``BadInputError`` if no cell has it.
    """
    from matplotlib.lines import Line2D

    curves = [
        curve
        for curve in study.courses
        if any(is_number(getattr(point, quantity)) for point in curve.points)
    ]
    if not curves:
        raise _nothing(f"cell with a {QUANTITIES[quantity].lower()} during training")
    panels = _panels(curves)
    columns = min(3, len(panels))
    if len(panels) > 3:
        columns = min(3, len(unique(curve.dataset for curve in curves)))
    rows = -(-len(panels) // columns)
    styles = line_styles(unique([*study.treatments, *(curve.treatment for curve in curves)]))
    with charts.styled():
        figure = charts.blank(max(4.4, WIDTH * columns / 3), 0.7 + 1.75 * rows)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axis, (title, shown) in zip(grid.flat, panels.items(), strict=False):
            if quantity == "mirror_index":
                charts.add_margin(axis, study.margin, across=False)
            axis.set_title(title, fontsize=7)
            for curve in shown:
                _draw_curve(axis, curve, quantity, styles[curve.treatment])
        for axis in grid.flat[len(panels) :]:
            axis.set_visible(False)
        above = "\n(above 0: later slice)" if quantity == "mirror_index" else ""
        for axis in grid[:, 0]:
            axis.set_ylabel(QUANTITIES[quantity] + above)
        figure.supxlabel("training steps", fontsize=7)
        used = unique(curve.treatment for curve in curves)
        keys = [Line2D([], [], ms=3.4, label=name, **styles[name]) for name in used]
        most = min(len(keys), 5 if columns > 2 else 3)
        figure.legend(handles=keys, loc="outside upper center", ncols=most)
    return figure


def _panels(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Return the curves by network, dataset and target."""
    several = len({curve.target for curve in curves}) > 1
    panels: dict[str, list[Curve]] = {}
    for curve in curves:
        target = f" ({curve.target})" if several else ""
        panels.setdefault(f"{curve.network}\non {curve.dataset}{target}", []).append(curve)
    return panels


def _draw_curve(axis: "Axes", curve: Curve, quantity: str, style: Style) -> None:
    """Draw one cell, with the intervals of its audits."""
    points = [p for p in curve.points if is_number(p.steps) and is_number(getattr(p, quantity))]
    steps = charts.numbers(point.steps for point in points)
    values = charts.numbers(getattr(point, quantity) for point in points)
    line = axis.plot(steps, values, ms=2.6, mew=0.3, mec="white", **style)
    text = f"{curve.treatment}, seed {curve.seed}: last {fixed(values[-1])}"
    charts.add_tooltip(line[0], text)
    if quantity == "mirror_index":
        for step, point in zip(steps, points, strict=True):
            if is_number(point.mirror_low) and is_number(point.mirror_high):
                ends = point.mirror_low, point.mirror_high
                axis.vlines(step, *ends, color=style["color"], lw=0.6)


def effects_figure(study: Study) -> "Figure":
    """Draw the mean paired differences from the control with intervals, a panel per outcome.

    ``BadInputError`` if nothing was compared.
    """
    found = study.comparisons
    if not found:
        raise _nothing("comparison with the control")
    outcomes = unique(one.outcome for one in found)
    lines = unique(one.name for one in found)
    with charts.styled():
        figure = charts.blank(WIDTH, 0.85 + 0.3 * len(lines))
        axes = figure.subplots(1, len(outcomes), squeeze=False, sharey=True)[0]
        for axis, outcome in zip(axes, outcomes, strict=True):
            _draw_effects(axis, [one for one in found if one.outcome == outcome], lines)
        charts.set_rows(axes[0], lines)
    return figure


def _draw_effects(axis: "Axes", found: Sequence[Comparison], lines: Sequence[str]) -> None:
    """Draw the comparisons of one outcome; filled where something was decided."""
    outcome = verdict.OUTCOMES[found[0].outcome]
    margins = charts.numbers(one.margin for one in found)
    charts.add_margin(axis, max(margins, default=None))
    for one in found:
        if one.value is None:
            continue
        place, badge = lines.index(one.name), verdict.comparison_badge(one)
        charts.add_interval(axis, (one.low, one.high), place)
        text = f"{signed(one.value)}, {signed_interval(one.low, one.high)}, {badge.word}"
        text, edge = f"{one.name}: {text}", EFFECTS.get(badge.kind, INK)
        face = EFFECTS.get(badge.kind, "white")
        add_mark(axis, (one.value, place), face, text, size=4.6, mew=0.9, mec=edge)
    axis.set_title(outcome.title)
    axis.set_xlabel(
        f"difference in {outcome.short} from {found[0].control}\n"
        f"← {outcome.lower}    {outcome.higher} →"
    )
    axis.tick_params(axis="y", length=0)
    ends = [0.0, *margins, *(-margin for margin in margins)]
    ends += charts.numbers(end for one in found for end in (one.value, one.low, one.high))
    low, high = min(ends), max(ends)
    spare = max(0.06 * (high - low), (LEAST_SPAN - high + low) / 2)
    axis.set_xlim(low - spare, high + spare)
    axis.locator_params(axis="x", nbins=5)


def _nothing(what: str) -> BadInputError:
    return BadInputError(f"the study has no {what}, expected at least one to draw; run it first")
