"""Charts of audits and of scores: shares, mirror pairs, windows, Dice and IoU."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evenslice.options import JsonObject
from evenslice.report import charts, pictures, verdict
from evenslice.report.charts import AFTER, BEFORE, INK, MARKERS, QUIET, WIDTH, slot_colour
from evenslice.report.verdict import fixed, slot_names
from evenslice.volume.array import Voxels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from evenslice.evidence.result import Audit
    from evenslice.evidence.stats import Interval
    from evenslice.evidence.window_view import WindowView
    from evenslice.labels.metrics import Scores

LINE_LETTERS = 118  # of a title
BAR = 0.115  # inches, of the share of one slot
LEAST_REACH = 2.0  # margins that are shown to each side at least
FEW_CLASSES = 4  # whose scores are written beside their bars


def audit_figure(audit: "Audit") -> "Figure":
    """Draw one audit with its verdict as the title: see ``audits_figure``."""
    return audits_figure({"": audit}, verdict.sentence(audit))


def audits_figure(audits: Mapping[str, "Audit"], title: str = "") -> "Figure":
    """Draw the shares and mirror pairs of every method with intervals, and the lag where measured.

    The audits, by the name of the model, share their scales.
    """
    slices = max(audit.slices for audit in audits.values())
    heights = [
        len(audit.methods) * (BAR * audit.slices + 0.12) + 0.25 * bool(name)
        for name, audit in audits.items()
    ]
    lags = {name: audit.lag for name, audit in audits.items() if audit.lag is not None}
    if lags:
        heights.append(0.25 + 0.2 * len(lags))
    with charts.styled():
        figure = charts.blank(WIDTH, 0.95 + sum(heights) + 0.45 * bool(lags) + 0.15 * bool(title))
        grid = figure.subplots(len(heights), 2, squeeze=False, height_ratios=heights)
        for axes, (name, audit) in zip(grid, audits.items(), strict=False):
            _draw_shares(axes[0], audit)
            _draw_pairs(axes[1], audit)
            axes[0].set_title(name)
        rows = grid[: len(audits)]
        _label_audits(rows, list(audits.values()))
        if lags:
            grid[-1, 0].set_visible(False)
            _draw_lags(grid[-1, 1], lags)
        if title:
            lines = textwrap.wrap(title, LINE_LETTERS)
            figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=8)
        _add_slot_key(figure, slices)
    return figure


def _draw_shares(axis: "Axes", audit: "Audit") -> None:
    """Draw a group of bars per method, one per slot, with intervals and a line at 1/S."""
    names, half = slot_names(audit.slices), audit.slices // 2
    height = 0.84 / audit.slices
    for row, (method, result) in enumerate(audit.methods.items()):
        for slot, share in enumerate(result.shares):
            place = row + height * (slot - half)
            colour = slot_colour(slot - half)
            bar = axis.barh(place, share.value, 0.86 * height, color=colour)[0]
            charts.add_tooltip(bar, f"{method}, {names[slot]}: {fixed(share.value)}")
            charts.add_interval(axis, (share.low, share.high), place, width=0.8)
            end = max(charts.numbers([share.value, share.high]), default=0.0)
            axis.annotate(
                f"{share.value:.2f}" if verdict.is_number(share.value) else verdict.DASH,
                (end, place),
                xytext=(2, 0),
                textcoords="offset points",
                va="center",
                fontsize=6,
                bbox={"fc": "white", "ec": "none", "pad": 0.4},  # over the line of equal shares
            )
    axis.axvline(1 / audit.slices, color=INK, lw=0.7, ls=(0, (5, 4)))
    charts.set_rows(axis, list(audit.methods))
    axis.grid(visible=False, axis="y")


def _draw_pairs(axis: "Axes", audit: "Audit") -> None:
    """Draw a mark per mirror pair; coloured by its side where it lies beyond the margin."""
    charts.add_margin(axis, audit.margin)
    for row, (method, result) in enumerate(audit.methods.items()):
        for number, pair in enumerate(result.pairs):
            place = row + 0.2 * (number - (len(result.pairs) - 1) / 2)
            marker = MARKERS[number % len(MARKERS)]
            what = method if len(result.pairs) == 1 else f"{method}, pair {number + 1}"
            _draw_estimate(axis, pair, place, what, audit.margin, marker)
    charts.set_rows(axis, [""] * len(audit.methods))
    axis.grid(visible=False, axis="y")


def _draw_estimate(
    axis: "Axes",
    found: "Interval",
    place: float,
    what: str,
    margin: float | None = None,
    marker: str = "o",
) -> None:
    colour = INK
    if margin is not None and (found.low > margin or found.high < -margin):
        colour = (AFTER if found.value > 0 else BEFORE)[0]
    charts.add_interval(axis, (found.low, found.high), place, colour)
    text = f"{verdict.signed(found.value)}, {verdict.interval(found.low, found.high)}"
    charts.add_mark(axis, (found.value, place), colour, f"{what}: {text}", marker, 4.2)


def _label_audits(rows: Voxels, audits: Sequence["Audit"]) -> None:
    """Give all models one scale of shares and one of mirror pairs, and name them below."""
    methods = [result for audit in audits for result in audit.methods.values()]
    shares = charts.numbers(end for one in methods for s in one.shares for end in (s.value, s.high))
    pairs = _largest([pair for one in methods for pair in one.pairs])
    reach = 1.08 * max(pairs, *(LEAST_REACH * audit.margin for audit in audits))
    for axes in rows:
        axes[0].set_xlim(0, 1.12 * max([*shares, 0.1]))
        axes[1].set_xlim(-reach, reach)
    before, after = verdict.sides(max(audit.slices for audit in audits))
    rows[-1][0].set_xlabel("share of importance; dashed: all slots alike")
    rows[-1][1].set_xlabel(
        f"mirror pairs; shaded: symmetric, within the margin\n← {before}    {after} →"
    )


def _largest(found: "Iterable[Interval]") -> float:
    """Return how far from 0 the values and intervals reach."""
    ends = (abs(end) for one in found for end in (one.value, one.low, one.high))
    return max(charts.numbers(ends), default=0.0)


def _draw_lags(axis: "Axes", lags: Mapping[str, "Interval"]) -> None:
    """Draw by how many slices each prediction fits a neighbour better."""
    for row, (name, lag) in enumerate(lags.items()):
        _draw_estimate(axis, lag, row, f"{name} lag".strip())
    reach = 1.3 * max(_largest(lags.values()), 1e-3)
    axis.axvline(0, color=QUIET, lw=0.7, zorder=0.5)
    charts.set_rows(axis, [f"{name} lag".strip() for name in lags])
    axis.set(xlim=(-reach, reach), xlabel="lag of the prediction, slices")
    axis.locator_params(axis="x", nbins=5)
    axis.grid(visible=False, axis="y")


def _add_slot_key(figure: "Figure", slices: int) -> None:
    """Say below which colour is which slot, and which marker which pair."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    half = slices // 2
    keys: list[Any] = [
        Patch(color=slot_colour(slot - half), label=name)
        for slot, name in enumerate(slot_names(slices))
    ]
    if half > 1:
        style: JsonObject = {"ls": "", "ms": 4.2, "mew": 0, "color": INK}
        keys += [
            Line2D([], [], marker=MARKERS[j % len(MARKERS)], label=f"pair {j + 1}", **style)
            for j in range(half)
        ]
    columns = min(len(keys), 9)
    figure.legend(
        handles=keys, loc="outside lower left", ncols=columns, handlelength=1, columnspacing=1.2
    )


def window_figure(window: "WindowView") -> "Figure":
    """Draw one window that an audit kept: every slice under its importance, and the prediction.

    A panel per slot with its share, one with the prediction and the outline of the ground truth.
    """
    slices, height, width = window.slices.shape
    panel = min(1.8, (WIDTH - 0.1) / (slices + 1))
    limits = pictures.grey_limits([window.slices])
    with charts.styled():
        figure = charts.blank(panel * (slices + 1), panel * height / width + 0.65)
        axes = figure.subplots(1, slices + 1, squeeze=False)[0]
        shown = [*window.slices, window.slices[slices // 2]]
        for axis, title, raw in zip(axes, _titles(window), shown, strict=True):
            grey = pictures.grey_levels(raw, limits)
            axis.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_title(title, loc="center", fontsize=7)
            axis.set_axis_off()
        if window.attribution is not None:
            for axis, importance in zip(axes, pictures.strength(window.attribution), strict=False):
                colours, alphas = pictures.heat(importance)
                axis.imshow(np.dstack([colours / 255, alphas]), interpolation="nearest")
        axes[-1].imshow(_prediction(window), interpolation="nearest")
        if window.truth is not None:
            outline = np.asarray(window.truth) > 0
            axes[-1].contour(outline, levels=[0.5], colors=[pictures.TRUE], linewidths=0.8)
        if window.voxel_nm is not None:
            _add_scale_bar(axes[0], width, height, window.voxel_nm[2])
        figure.supxlabel(_caption(window), fontsize=6.5, color=QUIET)
    return figure


def _titles(window: "WindowView") -> list[str]:
    """Name every panel, with the slot's share in this window."""
    names = slot_names(len(window.slices))
    if window.attribution is not None and window.attribution.sum() > 0:
        sums = window.attribution.sum(axis=(1, 2), dtype=np.float64)
        shares = sums / sums.sum()
        names = [f"{name}\n{share:.2f}" for name, share in zip(names, shares, strict=True)]
    return [*names, "prediction"]


def _caption(window: "WindowView") -> str:
    z, y, x = window.origin
    parts = [f"{window.label}, slice {z}, from y {y}, x {x}"]
    if window.attribution is not None:
        parts.append("below each name the share of this window; the brighter, the more important")
    if window.truth is not None:
        parts.append("yellow: outline of the ground truth")
    return "; ".join(parts)


def _prediction(window: "WindowView") -> NDArray[np.float64]:
    """Colour the prediction (y, x, RGBA): the more certain the denser, a colour per number."""
    from matplotlib.colors import to_rgb

    if window.numbered:
        places = pictures.palette_places(window.prediction)
        colours = np.array([to_rgb(code) for code in pictures.CLASSES])[places]
        return np.dstack([colours, 0.62 * (places > 0)])
    flat = np.broadcast_to(to_rgb(pictures.PREDICTED), (*window.prediction.shape, 3))
    return np.dstack([flat, 0.75 * np.clip(np.nan_to_num(window.prediction), 0, 1)])


def _add_scale_bar(axis: "Axes", width: int, height: int, pixel_nm: float) -> None:
    """Draw a bar of a round length in the lower left corner."""
    from matplotlib.patheffects import withStroke

    found = pictures.scale_bar(width, pixel_nm)
    if found is None:
        return
    share, text = found
    left, foot = 0.05 * width, 0.94 * height
    ends = [left, left + share / 100 * width]
    around = [withStroke(linewidth=3.2, foreground=INK)]
    axis.plot(ends, [foot, foot], color="white", lw=2, solid_capstyle="butt", path_effects=around)
    above = axis.text(left, foot - 0.03 * height, text, color="white", fontsize=6, va="bottom")
    above.set_path_effects([withStroke(linewidth=1.6, foreground=INK)])


def scores_figure(scores: "Scores") -> "Figure":
    """Draw Dice and IoU per class, and per slice where known; for objects F1 per IoU threshold."""
    matched = None if scores.matching is None else scores.matching.to_dict()["matching"]
    panels = 1 + bool(scores.per_slice) + (matched is not None)
    with charts.styled():
        figure = charts.blank(min(WIDTH, 2.6 * panels), 2.1)
        axes = list(figure.subplots(1, panels, squeeze=False)[0])
        _draw_classes(axes.pop(0), scores)
        if scores.per_slice:
            axis = axes.pop(0)
            for name, colour, dash in (("dice", BEFORE[0], "-"), ("iou", AFTER[0], "--")):
                known = [row for row in scores.per_slice if row[name] is not None]
                places = [row["z"] for row in known]
                axis.plot(places, [row[name] for row in known], color=colour, ls=dash, lw=1)
            axis.set(ylim=(0, 1.02), xlabel="slice", title="slice by slice, IoU dashed")
        if matched is not None:
            levels = [float(level) for level in matched]
            axes[0].plot(levels, [found["f1"] for found in matched.values()], "o-", ms=3, color=INK)
            axes[0].set(ylim=(0, 1.02), title="F1 of objects")
            axes[0].set_xlabel("IoU above which objects match")
    return figure


def _draw_classes(axis: "Axes", scores: "Scores") -> None:
    """Draw two bars per class, Dice and then IoU, with their values where there is room."""
    many = len(scores.per_class)
    for number, values in enumerate(scores.per_class.values()):
        for name, colour, shift in (("dice", BEFORE[0], -0.2), ("iou", AFTER[0], 0.2)):
            bar = axis.bar(number + shift, values[name], 0.36, color=colour)
            if many <= FEW_CLASSES:
                axis.bar_label(bar, [f"{values[name]:.2f}"], fontsize=6)
    axis.set_xticks(range(many), [str(label) for label in scores.per_class])
    across = "class" if scores.as_ == "semantic" else "all that is not label 0"
    axis.set(xlim=(-0.8, max(many, 1) - 0.2), ylim=(0, 1.08), xlabel=across)
    axis.set_title("Dice (left) and IoU (right)")
    axis.grid(visible=False, axis="x")
