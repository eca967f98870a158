"""Figures of an audit and of scores, in the style of this project; no display is needed."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evenslice.report.figure_style import MARKS, WIDTH, blank, styled
from evenslice.report.pictures import (
    CLASSES,
    PREDICTED,
    TRUE,
    grey_levels,
    grey_limits,
    scale_bar,
    strength,
    turns_of,
)
from evenslice.report.plots import AFTER, BEFORE, slot_colour
from evenslice.report.svg import BAND, INK, QUIET
from evenslice.report.verdict import sentence, slot_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from evenslice.evidence.result import Audit
    from evenslice.evidence.stats import Interval
    from evenslice.evidence.window_view import Look
    from evenslice.labels.metrics import Scores

SHAPES = tuple(MARKS.values())
LETTERS = 118  # that fit on a line of a title
COVER = 0.92  # how much the most important pixel covers the slice below
LIGHTEST = 0.3  # of the colour map, where importance begins to show
FEW_CLASSES = 4  # whose scores are written beside their bars
LEAST_REACH = 2.0  # margins that are shown to each side at least


def audit_figure(audit: "Audit") -> "Figure":
    """Draw the shares of every method, its mirror pairs with intervals and the margin, and the lag where it was measured."""
    names = list(audit.methods)
    pairs = audit.slices // 2
    lines, lagging = len(names) * (1 + 0.25 * max(0, pairs - 1)), audit.lag is not None
    with styled():
        figure = blank(WIDTH, 1.15 + 0.3 * lines + 0.75 * lagging)
        heights = [lines + 0.6, 1.6] if lagging else [1.0]
        grid = figure.add_gridspec(1 + lagging, 2, height_ratios=heights)
        left = figure.add_subplot(grid[0, 0])
        _shares(left, audit, names)
        if pairs:
            right = figure.add_subplot(grid[0, 1], sharey=left)
            _pairs(right, audit)
        if audit.lag is not None:
            _lag(figure.add_subplot(grid[1, 1]), audit.lag)
        figure.suptitle(
            "\n".join(textwrap.wrap(sentence(audit.to_dict()), LETTERS)),
            x=0.01,
            ha="left",
            fontsize=8,
        )
        _slot_key(figure, audit.slices, pairs)
    return figure


def _shares(axis: "Axes", audit: "Audit", names: Sequence[str]) -> None:
    """Draw a bar a method, made of the shares from the first slot to the last."""
    half = audit.slices // 2
    for row, method in enumerate(audit.methods.values()):
        start = 0.0
        for slot, share in enumerate(method.shares):
            axis.barh(
                row,
                share.value,
                0.62,
                left=start,
                color=slot_colour(slot - half),
                edgecolor="white",
                linewidth=0.5,
            )
            if share.value > 0.1:
                ink, place = "white" if abs(slot - half) < 2 else INK, start + share.value / 2
                axis.text(
                    place,
                    row,
                    f"{share.value:.2f}",
                    ha="center",
                    va="center",
                    color=ink,
                    fontsize=6,
                )
            start += share.value
    axis.set(
        xlim=(0, 1), ylim=(len(names) - 0.5, -0.5), xlabel="share of importance, first slot to last"
    )
    axis.set_yticks(range(len(names)), names)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False)


def _pairs(axis: "Axes", audit: "Audit") -> None:
    """Draw a mark a mirror pair with its interval; coloured by its side where it surely lies beyond the margin."""
    reach = LEAST_REACH * audit.margin
    for row, method in enumerate(audit.methods.values()):
        for number, pair in enumerate(method.pairs):
            place = row + 0.2 * (number - (len(method.pairs) - 1) / 2)
            _interval(axis, pair, place, audit.margin, SHAPES[number % len(SHAPES)])
            reach = max(
                [reach, *(abs(v) for v in (pair.value, pair.low, pair.high) if np.isfinite(v))]
            )
    axis.axvspan(-audit.margin, audit.margin, color=BAND, lw=0, zorder=0)
    axis.axvline(0, color=QUIET, lw=0.7, zorder=0.5)
    axis.set(
        xlim=(-1.08 * reach, 1.08 * reach),
        xlabel="mirror pairs; shaded: within the margin\n← earlier slice    later slice →",
    )
    axis.tick_params(axis="y", length=0, labelleft=False)
    axis.grid(visible=False, axis="y")


def _interval(
    axis: "Axes", found: "Interval", place: float, margin: float | None, mark: str
) -> None:
    colour = INK
    if margin is not None and (found.low > margin or found.high < -margin):
        colour = (AFTER if found.value > 0 else BEFORE)[0]
    if np.isfinite(found.low) and np.isfinite(found.high):
        axis.plot(
            [found.low, found.high], [place, place], color=colour, lw=1.2, solid_capstyle="butt"
        )
    axis.plot([found.value], [place], mark, ms=4.2, mew=0.4, mec="white", color=colour)


def _lag(axis: "Axes", lag: "Interval") -> None:
    """Draw by how many slices the prediction fits a neighbour better."""
    _interval(axis, lag, 0, None, "o")
    reach = 1.3 * max(abs(v) for v in (lag.value, lag.low, lag.high, 1e-3) if np.isfinite(v))
    axis.axvline(0, color=QUIET, lw=0.7, zorder=0.5)
    axis.set(xlim=(-reach, reach), ylim=(-1, 1), xlabel="lag of the prediction, slices")
    axis.set_yticks([0], ["lag"])
    axis.locator_params(axis="x", nbins=5)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")


def _slot_key(figure: "Figure", slices: int, pairs: int) -> None:
    """Say below which colour is which slot, and which mark which pair."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    half = slices // 2
    keys: list[Any] = [
        Patch(color=slot_colour(s - half), label=name) for s, name in enumerate(slot_names(slices))
    ]
    if pairs > 1:
        dot: dict[str, Any] = {"ls": "", "ms": 4.2, "mew": 0, "color": INK}
        keys += [
            Line2D([], [], marker=SHAPES[j % len(SHAPES)], label=f"pair {j + 1}", **dot)
            for j in range(pairs)
        ]
    figure.legend(
        handles=keys,
        loc="outside lower left",
        ncols=min(len(keys), 9),
        handlelength=1,
        columnspacing=1.2,
    )


def window_figure(look: "Look") -> "Figure":
    """Draw one window: every slice with the importance of its slot laid over it, and the prediction with the truth's outline."""
    slices, height, width = look.slices.shape
    panel = min(1.8, (WIDTH - 0.1) / (slices + 1))
    limits = grey_limits([look.slices])
    with styled():
        figure = blank(panel * (slices + 1), panel * height / width + 0.65)
        axes = figure.subplots(1, slices + 1, squeeze=False)[0]
        for axis in axes:
            axis.set_axis_off()
        for axis, title, raw in zip(
            axes, _titles(look), [*look.slices, look.slices[slices // 2]], strict=True
        ):
            axis.imshow(
                grey_levels(raw, limits), cmap="gray", vmin=0, vmax=255, interpolation="nearest"
            )
            axis.set_title(title, loc="center", fontsize=7)
        if look.attribution is not None:
            for axis, importance in zip(axes, strength(look.attribution), strict=False):
                axis.imshow(_heat(importance), interpolation="nearest")
        axes[-1].imshow(_prediction(look), interpolation="nearest")
        if look.truth is not None:
            axes[-1].contour(
                np.asarray(look.truth) > 0, levels=[0.5], colors=[TRUE], linewidths=0.8
            )
        if look.voxel_nm is not None:
            _scale(axes[0], width, height, look.voxel_nm[2])
        z, y, x = look.origin
        figure.supxlabel(
            _caption(look, f"{look.label}, slice {z}, from y {y}, x {x}"), fontsize=6.5, color=QUIET
        )
    return figure


def _titles(look: "Look") -> list[str]:
    """Name every panel, with the slot's share in this window."""
    names, end = slot_names(len(look.slices)), "prediction"
    if look.attribution is None or not look.attribution.sum() > 0:
        return [*names, end]
    sums = look.attribution.astype(np.float64).sum(axis=(1, 2))
    return [
        *(f"{name}\n{share:.2f}" for name, share in zip(names, sums / sums.sum(), strict=True)),
        end,
    ]


def _caption(look: "Look", where: str) -> str:
    parts = [where]
    if look.attribution is not None:
        parts.append("below each name the share of this window; the brighter, the more important")
    if look.truth is not None:
        parts.append("yellow: outline of the truth")
    return "; ".join(parts)


def _heat(importance: "np.ndarray[Any, np.dtype[np.float64]]") -> Any:
    """Colour importance (0..1, (y, x)): (y, x, RGBA), clear where it is 0."""
    from matplotlib import colormaps

    drawn = colormaps["magma"](LIGHTEST + (1 - LIGHTEST) * importance)
    drawn[..., 3] = COVER * importance**0.75
    return drawn


def _prediction(look: "Look") -> Any:
    """Colour the prediction (y, x, RGBA): a probability the denser the more certain, numbers a colour each."""
    from matplotlib.colors import to_rgb

    if look.numbered:
        turns = turns_of(look.prediction)
        colours = np.array([to_rgb(code) for code in CLASSES])[turns]
        return np.dstack([colours, 0.62 * (turns > 0)])
    flat = np.broadcast_to(to_rgb(PREDICTED), (*look.prediction.shape, 3))
    return np.dstack([flat, 0.75 * np.clip(np.nan_to_num(look.prediction), 0, 1)])


def _scale(axis: "Axes", width: int, height: int, pixel_nm: float) -> None:
    """Draw a bar of a round length in the lower left corner."""
    found = scale_bar(width, pixel_nm)
    if found is None:
        return
    share, words = found
    from matplotlib.patheffects import withStroke

    left, foot = 0.05 * width, 0.94 * height
    dark = [withStroke(linewidth=1.6, foreground=INK)]
    around = [withStroke(linewidth=3.2, foreground=INK)]
    ends = [left, left + share / 100 * width]
    axis.plot(ends, [foot, foot], color="white", lw=2, solid_capstyle="butt", path_effects=around)
    axis.text(
        left, foot - 0.03 * height, words, color="white", fontsize=6, va="bottom", path_effects=dark
    )


def scores_figure(scores: "Scores") -> "Figure":
    """Draw Dice and IoU of every class, and of every slice where they are known; for objects F1 at every IoU threshold."""
    matched = None if scores.matching is None else scores.to_dict()["matching"]
    panels = 1 + bool(scores.per_slice) + (matched is not None)
    with styled():
        figure = blank(min(WIDTH, 2.6 * panels), 2.1)
        axes = list(figure.subplots(1, panels, squeeze=False)[0])
        _classes(axes.pop(0), scores)
        if scores.per_slice:
            axis = axes.pop(0)
            for name, colour, dash in (("dice", BEFORE[0], "-"), ("iou", AFTER[0], "--")):
                rows = [(row["z"], row[name]) for row in scores.per_slice if row[name] is not None]
                axis.plot(*np.array(rows, float).reshape(-1, 2).T, color=colour, ls=dash, lw=1)
            axis.set(ylim=(0, 1.02), xlabel="slice", title="slice by slice, IoU dashed")
        if matched is not None:
            levels = [float(level) for level in matched]
            axes[0].plot(levels, [found["f1"] for found in matched.values()], "o-", ms=3, color=INK)
            axes[0].set(
                ylim=(0, 1.02), xlabel="IoU above which objects match", title="F1 of objects"
            )
    return figure


def _classes(axis: "Axes", scores: "Scores") -> None:
    """Draw two bars a class, Dice and then IoU, with their values where there is room."""
    many = len(scores.per_class)
    for number, values in enumerate(scores.per_class.values()):
        for name, colour, lift in (("dice", BEFORE[0], -0.2), ("iou", AFTER[0], 0.2)):
            axis.bar(number + lift, values[name], 0.36, color=colour)
            if many <= FEW_CLASSES:
                axis.text(
                    number + lift,
                    values[name],
                    f"{values[name]:.2f}",
                    ha="center",
                    va="bottom",
                    fontsize=6,
                )
    axis.set_xticks(range(many), [str(label) for label in scores.per_class])
    across = "class" if scores.as_ == "semantic" else "all that is not label 0"
    axis.set(
        xlim=(-0.8, max(many, 1) - 0.2),
        ylim=(0, 1.08),
        xlabel=across,
        title="Dice (left) and IoU (right)",
    )
    axis.grid(visible=False, axis="x")
