"""One self-contained HTML page about a study; formatting only, nothing is computed here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from evenslice.report import study_cells as cells
from evenslice.report import study_words as told
from evenslice.report import svg
from evenslice.report.made import provenance_rows
from evenslice.report.rendering import render_html, write_html
from evenslice.report.study_cells import ALL, Look, Row
from evenslice.report.study_curves import curve_chart, index_limits, panels_of
from evenslice.report.study_effects import effect_chart
from evenslice.report.study_plots import finding_chart, shared_of, slope_chart
from evenslice.report.verdict import DASH, confidence, is_number, short

FILTERS = {
    "Network": "network",
    "Treatment": "treatment",
    "Data set": "dataset",
    "Target": "target",
    "Seed": "seed",
}
VERDICT_COLUMN = 10


def write_study_page(path: Path, study: Mapping[str, Any], command: str) -> None:
    """Write the page of a study; one that was there before is replaced only once the new one is whole.

    Parameters
    ----------
    path
        The HTML file. Its folder is made when missing.
    study
        The study as written to JSON (schema ``evenslice.study/1``), finished or not.
    command
        The command that makes it again.
    """
    write_html(path, render_study(study, command))


def render_study(study: Mapping[str, Any], command: str) -> str:
    """Turn a study into HTML that needs no other file and no network.

    Parameters
    ----------
    study
        The study as written to JSON (schema ``evenslice.study/1``), finished or not.
    command
        The command that makes it again.

    Returns
    -------
    str
        The whole document. Every text that came from outside is escaped.
    """
    control = str(study.get("control") or "the control")
    claims = [_claim(claim, control) for claim in study.get("claims") or []]
    values = {
        "title": f"Study: {study.get('name') or 'without a name'}",
        "intro": study.get("title"),
        "partial": " ".join(
            [told.progress(study), *([] if claims else ["No claim is decided: no cell is done."])]
        ).strip(),
        "verdicts": claims,
        "verdicts_told": "What the study found",
        "study": study,
        "control": control,
        "command": command,
        "confidence": confidence(study),
        "failures": cells.failures(study),
        "facts": _settings(study),
        **_effects(study),
        **_charts(study),
        **_table(study),
        "leans": _leans(study),
        "signed_interval": told.signed_interval,
        "p_words": told.p_words,
    }
    filters = {"signed": told.signed, "cell_name": cells.cell_name, "key": _key}
    values["contents"] = _contents(values)
    return render_html("study.html", ["study.css"], ["study_table.js"], values, filters)


def _contents(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    parts = [
        ("effects", "Effects", "effects"),
        ("finding", "Shares and accuracy", "findings"),
        ("slopes", "Before and after", "findings"),
        ("curves", "Learning curves", "curves"),
    ]
    there = [(ident, words) for ident, words, key in parts if values[key]]
    return [*there, ("cells", "Cells"), ("failures", "Failures"), ("method", "Statistics")]


def _claim(claim: Row, control: str) -> dict[str, Any]:
    answer, sentence = told.answer(claim, control), claim.get("sentence") or ""
    return {
        "badge": told.sign(claim),
        "who": told.question(claim),
        "what": answer or sentence,
        "figures": sentence if answer else "",
    }


def _effects(study: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the comparisons, a chart an outcome, and list them."""
    found = study.get("comparisons") or []
    outcomes = cells.names(found, "outcome")
    charts = [
        {
            "title": told.OUTCOMES.get(outcome, (outcome,))[0],
            "drawing": effect_chart(
                [one for one in found if one.get("outcome") == outcome], f"effect-{number}"
            ),
        }
        for number, outcome in enumerate(outcomes, start=1)
    ]
    listed = [
        {
            "found": one,
            "name": told.named(one),
            "short": told.OUTCOMES.get(str(one.get("outcome")), ("", one.get("outcome")))[1],
            "badge": told.comparison_badge(one),
        }
        for one in found
    ]
    return {"effects": charts, "comparisons": listed}


def _charts(study: Mapping[str, Any]) -> dict[str, Any]:
    """Draw all cells of each network, and their curves, on scales that the page shares."""
    rows, treatments = cells.finished(study), cells.treatments_of(study)
    looks, datasets = cells.looks_of(treatments), cells.names(rows, "dataset")
    shared = shared_of(rows, looks, datasets, cells.lean_of(study), study.get("margin"))
    findings = [
        {
            "title": group.title,
            "finding": finding_chart(group, shared, f"finding-{number}"),
            "slope": slope_chart(group, shared, f"slope-{number}"),
        }
        for number, group in enumerate(cells.groups_of(study), start=1)
    ]
    curves = [one for one in study.get("curves") or [] if str(one.get("treatment")) in looks]
    limits = index_limits(curves, shared.margin)
    panels = enumerate(panels_of(curves), start=1)
    return {
        "findings": findings,
        "curves": [
            {
                "title": panel.title,
                "drawing": curve_chart(panel, looks, limits, shared.margin, f"curve-{number}"),
            }
            for number, panel in panels
        ],
        "dataset_legend": [
            {"name": name, "swatch": _swatch(Look(svg.INK, (), shape), lined=False)}
            for name, shape in cells.shapes_of(datasets).items()
        ],
        "treatment_legend": [
            {"name": name, "swatch": _swatch(looks[name])}
            for name in cells.names(curves, "treatment")
        ],
    }


def _swatch(look: Look, lined: bool = True) -> Markup:
    """Draw how something looks, for a legend; the words beside it say what it is."""
    import xml.etree.ElementTree as ET

    width = 40 if lined else 14
    drawing = ET.Element(
        "svg",
        {"viewBox": f"0 0 {width} 14", "width": f"{width}", "height": "14", "aria-hidden": "true"},
    )
    if lined:
        svg.line(drawing, (0, 7), (40, 7), look.colour, 1.6, look.dashes)
    svg.marker(drawing, look.shape, (width / 2, 7), 4, look.colour)
    return svg.markup(drawing)


def _leans(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the pooled leans, before and after beside each other, all networks together first."""
    found = cells.lean_of(study)
    pairs = dict.fromkeys((treatment, network) for treatment, network, _ in found)
    ordered = sorted(pairs, key=lambda pair: pair[1] != ALL)
    return [
        {
            "treatment": treatment,
            "network": network,
            "before": found.get((treatment, network, "before"), {}),
            "after": found.get((treatment, network, "after"), {}),
            "badges": [
                told.lean_badge(found.get((treatment, network, when)))
                for when in ("before", "after")
            ],
        }
        for treatment, network in ordered
    ]


def _table(study: Mapping[str, Any]) -> dict[str, Any]:
    """List all rows, and what each of the filters offers."""
    rows: Sequence[Row] = study.get("rows") or []
    views = [
        {
            "row": row,
            "shares": _shares(row),
            "indices": [_index(row, end) for end in ("_before", "")],
            "badge": told.cell_badge(row, study.get("margin")),
        }
        for row in rows
    ]
    choices = [
        {"label": label, "column": column, "options": _options(rows, key)}
        for column, (label, key) in enumerate(FILTERS.items())
    ]
    verdicts = sorted({told.cell_badge(row, study.get("margin")).word for row in rows})
    choices.append({"label": "Verdict after", "column": VERDICT_COLUMN, "options": verdicts})
    return {"cells": views, "choices": choices}


def _options(rows: Sequence[Row], key: str) -> list[str]:
    found = cells.names(rows, key)
    return sorted(found, key=float) if all(is_number(row.get(key)) for row in rows) else found


def _shares(row: Row) -> str:
    shares = cells.shares_of(row)
    return (
        " / ".join(f"{share:.2f}" if share is not None else DASH for share in shares)
        if any(shares)
        else DASH
    )


def _index(row: Row, end: str) -> tuple[Any, Any, Any]:
    return row.get(f"mirror_index{end}"), row.get(f"mirror_low{end}"), row.get(f"mirror_high{end}")


def _key(value: Any) -> str:
    """Return a number as the table is sorted by it; nothing where there is none."""
    return f"{value:.9g}" if is_number(value) else ""


def _settings(study: Mapping[str, Any]) -> dict[str, str]:
    counts = {
        "cells": f"{short(study.get('cells'))}, of which {short(study.get('done'))} are done and {short(study.get('failed'))} failed",
        "control": short(study.get("control")),
        "confidence": confidence(study),
        "margin of the mirror index": short(study.get("margin")),
        "margin of Dice": short(study.get("dice_margin")),
    }
    made = provenance_rows(study.get("provenance") or {"versions": study.get("versions")})
    return (
        counts
        | {str(name): str(value) for name, value in (study.get("settings") or {}).items()}
        | made
    )
