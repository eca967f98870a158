"""One self-contained HTML page about one or more audited models; formatting only, nothing is computed here."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChainableUndefined, Environment
from markupsafe import Markup
from numpy.typing import NDArray

from evenslice.evidence.look import Look
from evenslice.report import plots, verdict

PICTURE_BYTES = 4_200_000  # of raw pixels on the whole page: under 6 MB once encoded, whatever they hold
MOST_PIXELS = 512 * 512


@dataclass(frozen=True)
class Row:
    """One audited model, as a line of the table.

    Attributes
    ----------
    label
        Name of the model, for example ``"green"``.
    audit
        Its audit, as written to JSON (schema ``evenslice.audit/1``).
    dice, iou
        Scores on labelled slices, or None.
    note
        A remark shown under the label.
    """

    label: str
    audit: Mapping[str, Any]
    dice: float | None = None
    iou: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Page:
    """Everything the page shows.

    Attributes
    ----------
    title
        Heading of the page.
    rows
        The models, in the order to show them.
    looks
        Windows to look at, of any of the models.
    facts
        Settings, for example the volume, the seed, the number of training steps.
    command
        The command that makes the page again.
    intro
        A sentence or two under the heading.
    """

    title: str
    rows: Sequence[Row]
    looks: Sequence[Look]
    facts: Mapping[str, str]
    command: str
    intro: str = ""


@dataclass(frozen=True)
class Picture:
    """One picture with its caption; ``bar`` is the scale bar (per cent of the width, words) or None."""

    source: str
    caption: str
    text: str
    kind: str
    bar: tuple[float, str] | None = None


def render(page: Page) -> str:
    """Turn a page into HTML that needs no other file and no network.

    Parameters
    ----------
    page
        What to show.

    Returns
    -------
    str
        The whole document. Every text that came from outside is escaped.
    """
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=ChainableUndefined)
    environment.filters.update(fixed=verdict.fixed, short=verdict.short)
    environment.globals.update(interval=verdict.interval, badge=verdict.badge, slot_names=verdict.slot_names)
    source = resources.files("evenslice.report").joinpath("template.html").read_text(encoding="utf-8")
    charts = _charts(page.rows)
    widest = max((len(_shares(row.audit)) for row in page.rows), default=0)
    return environment.from_string(source).render(
        page=page,
        rows=[_row_view(row, number, widest) for number, row in enumerate(page.rows)],
        slots=verdict.slot_names(widest) if widest else [],
        charts=charts,
        chart_width=max((chart["width"] for chart in charts), default=0),
        strip=_strip(page.rows),
        looks=_look_views(page.looks),
        key=plots.colour_key(),
        pairs=any(int(row.audit.get("slices") or 0) > 3 for row in page.rows),
        any_iou=any(row.iou is not None for row in page.rows),
    )


def write_page(page: Page, path: Path) -> None:
    """Write a page to a file; a page that was there before is replaced only once the new one is whole.

    Parameters
    ----------
    page
        What to show.
    path
        The HTML file. Its folder is made when missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(render(page).encode("utf-8", errors="backslashreplace"))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _shares(audit: Mapping[str, Any]) -> Sequence[Any]:
    return verdict.headline(audit)[1].get("shares") or []


def _row_view(row: Row, number: int, widest: int) -> dict[str, Any]:
    """Gather what the template says about one model; shares are centred when models see unlike numbers of slices."""
    name, entry = verdict.headline(row.audit)
    columns = [entry.get(key) or [] for key in ("shares", "shares_low", "shares_high")]
    cells: list[Any] = [_take(columns, slot) for slot in range(len(columns[0]))]
    pad: list[Any] = [(None, None, None)] * ((widest - len(cells)) // 2)
    return {
        "row": row,
        "id": f"model-{number + 1}",
        "audit": row.audit,
        "sentence": verdict.sentence(row.audit),
        "badge": verdict.badge(row.audit),
        "method": name,
        "entry": entry,
        "cells": [*pad, *cells, *pad],
        "methods": {each: _method_view(row.audit, each) for each in row.audit.get("methods") or {}},
        "slots": verdict.slot_names(int(row.audit.get("slices") or len(cells) or 1)),
        "confidence": verdict.confidence(row.audit),
    }


def _method_view(audit: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Zip the lists of one method into slots and mirror pairs with their intervals."""
    entry = audit["methods"][name]
    shares, pairs = (
        [entry.get(f"{stem}{end}") or [] for end in ("", "_low", "_high")] for stem in ("shares", "mirror_pairs")
    )
    return {
        "entry": entry,
        "cells": [_take(shares, slot) for slot in range(len(shares[0]))],
        "pairs": [_take(pairs, pair) for pair in range(len(pairs[0]))],
        "badge": verdict.badge(audit, name),
    }


def _take(columns: Sequence[Sequence[Any]], place: int) -> tuple[Any, ...]:
    """Read one place of value, low and high; None where a list is too short."""
    return tuple(column[place] if place < len(column) else None for column in columns)


def _charts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Draw the shares of every model, all on one scale."""
    models = []
    for row in rows:
        methods = (row.audit.get("methods") or {}).items()
        shares = [
            plots.Bars(name, entry["shares"], entry.get("shares_low") or [], entry.get("shares_high") or [])
            for name, entry in methods
            if entry.get("shares")
        ]
        models.append((row.label, shares))
    top = plots.share_top(bars for _, shares in models for bars in shares)
    drawn = enumerate((label, shares) for label, shares in models if shares)
    return [
        {
            "label": label,
            "drawing": plots.share_bars(label, shares, top, f"shares-{number + 1}"),
            "width": plots.chart_width(shares) * 4 // 5,
        }
        for number, (label, shares) in drawn
    ]


def _strip(rows: Sequence[Row]) -> Markup | None:
    """Draw every mirror index, or every mirror pair where models see more than three slices."""
    dots = []
    for row in rows:
        for name, entry in (row.audit.get("methods") or {}).items():
            columns = [entry.get(f"mirror_pairs{end}") or [] for end in ("", "_low", "_high")]
            if len(columns[0]) > 1:
                pairs = range(len(columns[0]))
                dots += [plots.Dot(row.label, f"{name} ±{j + 1}", *_take(columns, j)) for j in pairs]
            elif columns[0] or entry.get("mirror_index") is not None:
                ends = entry.get("mirror_low"), entry.get("mirror_high")
                dots.append(plots.Dot(row.label, name, entry.get("mirror_index"), *ends))
    if not dots:
        return None
    margins = {row.audit.get("margin") for row in rows}
    margin = margins.pop() if len(margins) == 1 else None
    three = all(row.audit.get("slices") == 3 for row in rows)
    sides = ("previous", "next") if three else ("earlier slices", "later slices")
    return plots.index_strip(dots, margin if verdict.is_number(margin) else None, sides, "indices")


def _look_views(looks: Sequence[Look]) -> list[dict[str, Any]]:
    """Make the pictures of all windows in one grey scale, small enough for one page."""
    if not looks:
        return []
    limits = plots.grey_limits(look.slices for look in looks)
    most = min(MOST_PIXELS, PICTURE_BYTES // sum(4 * len(look.slices) + 6 for look in looks))
    return [_look_view(look, limits, max(most, 1)) for look in looks]


def _look_view(look: Look, limits: plots.Limits, most: int) -> dict[str, Any]:
    slices, height, width = look.slices.shape
    z, y, x = look.origin
    importance = plots.strength(look.attribution)
    named = [(slot, name, f"z {z + slot - (slices - 1) // 2}") for slot, name in enumerate(verdict.slot_names(slices))]
    bar = plots.scale_bar(width, look.voxel_nm[2]) if look.voxel_nm else None
    raw = [
        Picture(plots.grey_png(look.slices[s], limits, most), f"{name}, {at}", f"Raw slice, {name}, {at}", "raw", bar)
        for s, name, at in named
    ]
    laid = [
        Picture(
            plots.overlay_png(look.slices[s], importance[s], limits, most),
            f"importance, {name}",
            f"Importance laid over the {name} slice, {at}",
            "laid",
        )
        for s, name, at in named
    ]
    tall = look.voxel_nm[1] / look.voxel_nm[2] if look.voxel_nm and bar else 1.0
    return {
        "label": look.label,
        "place": f"z {z}, y {y} to {y + height - 1}, x {x} to {x + width - 1}",
        "raw": raw,
        "laid": laid,
        "maps": _maps(look.prediction, look.truth, most),
        "columns": slices + 1,
        "aspect": f"{width} / {height * tall:.6g}",
        "small": width < 100,
    }


def _maps(prediction: NDArray[Any], truth: NDArray[Any] | None, most: int) -> list[Picture]:
    """Draw prediction and truth alike: both in class colours when the prediction holds class numbers."""
    both = [prediction] if truth is None else [prediction, truth]
    whole = bool(np.all(prediction == np.round(prediction)))
    numbered = whole and not all(plots.is_probability(each) for each in both)
    maps = []
    for kind, each in zip(("prediction", "truth"), both, strict=False):
        grey = plots.is_probability(each) and not numbered
        scale = "black 0, white 1" if grey else "one colour per number"
        source = plots.labels_png(each, most, numbered=not grey)
        maps.append(Picture(source, f"{kind}, {scale}", f"{kind.capitalize()} for the centre slice, {scale}", kind))
    return maps
