"""The page of a study; formatting only."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from evenslice.errors import BadInputError
from evenslice.report import verdict
from evenslice.report.charts import to_svg
from evenslice.report.page import Answer, Head, provenance_rows, render_page, write_page
from evenslice.report.study_charts import QUANTITIES, effects_figure, finding_figure, steps_figure
from evenslice.report.study_record import ALL, Claim, StudyRecord, study_record, unique
from evenslice.report.verdict import confidence, is_number, short

if TYPE_CHECKING:
    from evenslice.study.run import Study

FILES = ("study.css",), ("study_table.js",)
FILTERS = {
    "Network": "network",
    "Treatment": "treatment",
    "Dataset": "dataset",
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
    effects = _chart("effects-chart", "Differences from the control", study, effects_figure)
    finding = _chart("finding-chart", "Shares, mirror index and Dice", study, finding_figure)
    curves = {
        name: _chart(f"{quantity}-chart", f"{name} by steps", study, steps_figure, quantity)
        for quantity, name in QUANTITIES.items()
    }
    curves = {name: chart for name, chart in curves.items() if chart}
    sections = (
        ("effects", "Effects", effects),
        ("finding", "Shares and accuracy", finding),
        ("before-after", "Before and after", study.lean),
        ("curves", "Training curves", curves),
        ("cells", "Cells", True),
        ("failures", "Failures", True),
        ("method", "Statistics", True),
    )
    control = study.control or "the control"
    undecided = "" if study.claims else "No claim is decided: no cell is done."
    head = Head(
        f"Study: {study.name or 'without a name'}",
        command,
        [(ident, name) for ident, name, there in sections if there],
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
        effects=effects,
        finding=finding,
        curves=curves,
        pooled=sorted(study.pooled_pairs(), key=lambda pair: pair[0].network != ALL),
        choices=_choices(study),
    )


def _chart(
    ident: str, title: str, study: StudyRecord, draw: Callable[..., Any], *options: str
) -> Markup | None:
    """Draw a chart; None where there is nothing to draw."""
    try:
        return to_svg(draw(study, *options), ident, title, "The tables have the same numbers.")
    except BadInputError:
        return None


def _answer(claim: Claim, control: str) -> Answer:
    badge, question = verdict.claim_badge(claim), verdict.QUESTIONS[claim.name]
    return Answer(badge, question, verdict.answer(claim, control), claim.sentence)


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
