"""The page of a study; formatting only."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from evenslice.report import verdict
from evenslice.report.charts import to_svg
from evenslice.report.page import Answer, Head, provenance_rows, render_page, write_page
from evenslice.report.study_charts import QUANTITIES, effects_figure, finding_figure, steps_figure
from evenslice.report.study_record import ALL, StudyRecord, study_record, unique
from evenslice.report.verdict import confidence, is_number, short, signed

if TYPE_CHECKING:
    from evenslice.study.run import Study

FILES = ("study.css",), ("study_table.js",)
FILTERS = {
    "Network": "network",
    "Treatment": "treatment",
    "Data set": "dataset",
    "Target": "target",
    "Seed": "seed",
}
VERDICT_COLUMN = 10


def write_study_page(path: Path, study: "Study | Mapping[str, Any]", command: str) -> None:
    """Write the page of a study; one that was there before is replaced whole.

    Parameters
    ----------
    path
        The HTML file. Its folder is made when missing.
    study
        The study, or what ``study.json`` holds of it, finished or not.
    command
        The command that makes it again.
    """
    write_page(path, render_study(study_record(study), command))


def render_study(study: StudyRecord, command: str) -> str:
    """Turn a study into HTML that needs no other file and no network."""
    control = study.control or "the control"
    undecided = "" if study.claims else "No claim is decided: no cell is done."
    contents = [
        *([("effects", "Effects")] if study.comparisons else []),
        *([("finding", "Shares and accuracy")] if study.finished else []),
        *([("before-after", "Before and after")] if study.lean else []),
        *([("curves", "Training curves")] if study.curves else []),
        ("cells", "Cells"),
        ("failures", "Failures"),
        ("method", "Statistics"),
    ]
    head = Head(
        f"Study: {study.name or 'without a name'}",
        command,
        contents,
        _settings(study),
        [_answer(claim, control) for claim in study.claims],
        "What the study found",
        study.title,
        f"{verdict.progress(study)} {undecided}".strip(),
    )
    return render_page(
        "study.html",
        head,
        FILES,
        study=study,
        control=control,
        effects=_effects(study),
        finding=_finding(study),
        curves=_curves(study),
        pooled=sorted(study.pooled_pairs(), key=lambda pair: pair[0].network != ALL),
        choices=_choices(study),
        sort_key=_sort_key,
        share_list=_share_list,
    )


def _answer(claim: Any, control: str) -> Answer:
    text = verdict.answer(claim, control)
    badge, who = verdict.claim_badge(claim), verdict.question(claim)
    return Answer(badge, who, text or claim.sentence, claim.sentence if text else "")


def _effects(study: StudyRecord) -> Markup | None:
    if not study.comparisons:
        return None
    title = f"Differences from {study.control} with intervals"
    described = "; ".join(
        f"{one.name}, {verdict.outcome_of(one.outcome).short}: {signed(one.value)}"
        for one in study.comparisons
    )
    return to_svg(effects_figure(study), "effects-chart", title, described)


def _finding(study: StudyRecord) -> Markup | None:
    if not study.finished:
        return None
    described = "; ".join(
        f"{after.treatment}, {after.network}: mean mirror index {signed(before.value)} before "
        f"training, {signed(after.value)} after"
        for before, after in study.pooled_pairs()
    )
    title = "Shares, mirror index and Dice of every cell"
    return to_svg(finding_figure(study), "finding-chart", title, described)


def _curves(study: StudyRecord) -> dict[str, Markup]:
    """Draw what was validated during training, a chart per quantity that there is."""
    charts = {}
    for quantity, name in QUANTITIES.items():
        points = (point for curve in study.curves for point in curve.points)
        if any(is_number(getattr(point, quantity)) for point in points):
            title = f"{name[:1].upper()}{name[1:]}"
            described = f"{len(study.curves)} cells, a line each; the table of cells has their ends"
            figure = steps_figure(study, quantity)
            charts[title] = to_svg(figure, f"curve-{quantity}", f"{title} by steps", described)
    return charts


def _choices(study: StudyRecord) -> list[tuple[str, int, list[str]]]:
    """List the filters of the table: label, column and options."""
    choices = []
    for column, (label, key) in enumerate(FILTERS.items()):
        values = [getattr(cell, key) for cell in study.rows]
        options = (
            sorted(set(values)) if all(map(is_number, values)) else unique(filter(None, values))
        )
        choices.append((label, column, [str(option) for option in options]))
    badges = {verdict.cell_badge(cell, study.margin).word for cell in study.rows}
    return [*choices, ("Verdict after", VERDICT_COLUMN, sorted(badges))]


def _share_list(shares: Sequence[float | None]) -> str:
    return " / ".join(f"{share:.2f}" if is_number(share) else verdict.DASH for share in shares)


def _sort_key(value: object) -> str:
    """Return a number as the table is sorted by it; nothing where there is none."""
    return f"{value:.9g}" if is_number(value) else ""


def _settings(study: StudyRecord) -> dict[str, str]:
    counts = {
        "cells": f"{study.cells}, of which {study.done} are done and {study.failed} failed",
        "control": study.control,
        "confidence": confidence(study.confidence),
        "margin of the mirror index": short(study.margin),
        "margin of Dice": short(study.dice_margin),
    }
    settings = {name: str(value) for name, value in study.settings.items()}
    return counts | settings | provenance_rows(study.provenance or {"versions": study.versions})
