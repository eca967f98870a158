"""One self-contained HTML page about one or more audited models; formatting only, nothing is computed here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from evenslice.evidence.window_view import Look
from evenslice.report import plots, verdict
from evenslice.report.rendering import render_html, write_html
from evenslice.report.viewer import viewer_of


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
    charts = _charts(page.rows)
    widest = max((len(_shares(row.audit)) for row in page.rows), default=0)
    rows = [_row_view(row, number, widest) for number, row in enumerate(page.rows)]
    viewer = viewer_of(page.looks)
    details = [
        (view["id"], f"Details: {view['row'].label}" if len(rows) > 1 else "Details")
        for view in rows
    ]
    contents = [("summary", "Results"), *([("shares", "Shares")] if charts else [])]
    values = {
        "title": page.title,
        "intro": page.intro,
        "verdicts": [
            {"badge": view["badge"], "who": view["row"].label, "what": view["sentence"]}
            for view in rows
        ],
        "contents": [*contents, *([("looks", "Windows")] if viewer else []), *details],
        "facts": page.facts,
        "command": page.command,
        "rows": rows,
        "slots": verdict.slot_names(widest) if widest else [],
        "charts": charts,
        "chart_width": max((chart["width"] for chart in charts), default=0),
        "strip": _strip(page.rows),
        "viewer": viewer,
        "pairs": any(int(row.audit.get("slices") or 0) > 3 for row in page.rows),
        "any_iou": any(row.iou is not None for row in page.rows),
    }
    return render_html("audit.html", ["viewer.css"], ["viewer.js"], values)


def write_page(page: Page, path: Path) -> None:
    """Write a page to a file; a page that was there before is replaced only once the new one is whole.

    Parameters
    ----------
    page
        What to show.
    path
        The HTML file. Its folder is made when missing.
    """
    write_html(path, render(page))


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
        [entry.get(f"{stem}{end}") or [] for end in ("", "_low", "_high")]
        for stem in ("shares", "mirror_pairs")
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
            plots.Bars(
                name, entry["shares"], entry.get("shares_low") or [], entry.get("shares_high") or []
            )
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
                dots += [
                    plots.Dot(row.label, f"{name} ±{j + 1}", *_take(columns, j)) for j in pairs
                ]
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
