"""The pages of a training and of a segmentation: what was made, how, and slices of it."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from evenslice.report.charts import BEFORE, WIDTH, add_mark, blank, styled, to_svg
from evenslice.report.page import VIEWER, Answer, Head, provenance_rows, render_page, write_page
from evenslice.report.verdict import SYMMETRIC, Badge, fixed, short
from evenslice.report.viewer import viewer_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from evenslice.evidence.window_view import WindowView
    from evenslice.segmentation.result import Segmented
    from evenslice.verbs.train import Trained
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from evenslice.errors import BadInputError
from evenslice.report import verdict
from evenslice.report.study_charts import QUANTITIES, effects_figure, finding_figure, steps_figure
from evenslice.report.study_record import ALL, Claim, StudyRecord, study_record, unique
from evenslice.report.verdict import confidence, is_number

if TYPE_CHECKING:
    from evenslice.study.run import Study


SPANS = {"slices trained on": "slices", "slices validated on": "validation"}
MOST_POINTS, SMOOTH = 400, 40
PALE = "#bcd9ec"
Points = list[tuple[float, float]]


def write_training_page(
    path: Path, trained: "Trained", facts: Mapping[str, str], command: str
) -> None:
    """Write the page of a training.

    Parameters
    ----------
    path
        The HTML file.
    trained
        What ``train`` returned; its log is read.
    facts
        Settings to show before those of the recipe, for example the volume.
    command
        The command that trains it again.
    """
    viewer = viewer_of(trained.views)
    contents = [("scores", "Accuracy"), ("course", "Course of the training")]
    contents += [("windows", "Validation slices")] if viewer else []
    head = Head(
        f"Training of {trained.path.name}",
        command,
        contents,
        {**facts, **_recipe_facts(trained)},
        [_accuracy(trained), _symmetry(trained)],
        "Verdicts",
    )
    text = render_page(
        "training.html",
        head,
        VIEWER,
        scores=trained.scores,
        chart=_training_chart(trained.log),
        viewer=viewer,
        audit_command=f"evenslice audit {trained.path.name} VOLUME --out audit",
    )
    write_page(path, text)


def _accuracy(trained: "Trained") -> Answer:
    spans = trained.model.training.get("validation") or []
    slices = sum(stop - start for start, stop in spans)
    found = trained.scores
    return Answer(
        Badge("D", "accuracy", "none"),
        "Accuracy",
        f"Dice {fixed(found.dice)}, IoU {fixed(found.iou)} on {slices} slices that it was not "
        f"trained on, after {short(trained.steps)} steps.",
        "One training with one seed: another seed gives another number. "
        "A study compares treatments over seeds.",
    )


def _symmetry(trained: "Trained") -> Answer:
    found = trained.model.certificate
    figures = ""
    if found:
        figures = f"largest relative difference {found['float32']:.1e} in float32"
    if found and found["symmetric"]:
        text = "Symmetric: reversing the slices leaves the output as it is, up to rounding."
        return Answer(SYMMETRIC, "Symmetry", text, figures)
    text = (
        "Not symmetric by construction: the output changes with the order of the slices. "
        "An audit measures the direction and the size."
    )
    return Answer(Badge("?", "not measured", "inconclusive"), "Symmetry", text, figures)


def _recipe_facts(trained: "Trained") -> dict[str, str]:
    training = trained.model.training
    recipe = training.get("recipe") or {}
    spans = {
        name: ", ".join(f"{start}:{stop}" for start, stop in training.get(key) or [])
        for name, key in SPANS.items()
    }
    options = {name.replace("_", " "): str(value) for name, value in recipe.items()}
    made = provenance_rows(trained.model.provenance)
    return {"target": str(training.get("target"))} | spans | options | made


def _training_chart(log: Path) -> Markup | None:
    """Draw the log of a training; None where no step was logged."""
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return None
    loss, dice = (
        [(float(row["steps"]), float(row[key])) for row in rows if row[key]]
        for key in ("loss", "dice")
    )
    last = [f"last {key} {fixed(p[-1][1])}" for key, p in (("loss", loss), ("Dice", dice)) if p]
    described = f"{len(rows)} steps; {', '.join(last)}"
    return to_svg(training_figure(loss, dice), "course-chart", "Course of the training", described)


def training_figure(loss: Points, dice: Points) -> "Figure":
    """Draw how a training went.

    Parameters
    ----------
    loss
        (step, loss) of every step. Drawn pale (means of equal stretches where there are over 400)
        with means of 40 stretches over it.
    dice
        (step, Dice) of every validation.
    """
    with styled():
        figure = blank(WIDTH, 1.9)
        left, right = figure.subplots(1, 2)
        left.plot(*zip(*means_of(loss, MOST_POINTS), strict=True), color=PALE, lw=0.7)
        left.plot(*zip(*means_of(loss, SMOOTH), strict=True), color=BEFORE[0], lw=1.3)
        for step, value in dice:
            add_mark(right, (step, value), BEFORE[0], f"step {step:g}: {fixed(value)}")
        right.plot([step for step, _ in dice], [value for _, value in dice], color=BEFORE[0])
        if not dice:
            text = "not validated during training"
            right.text(0.5, 0.5, text, color=BEFORE[0], ha="center", transform=right.transAxes)
        for axis, title in ((left, "Loss"), (right, "Validation Dice")):
            axis.set(title=title, xlabel="steps")
    return figure


def means_of(points: Points, most: int) -> Points:
    """Return the means of at most ``most`` equal stretches, or the points where there are fewer."""
    size = -(-len(points) // most)
    stretches = [points[n : n + size] for n in range(0, len(points), size)]
    return [
        (sum(a for a, _ in one) / len(one), sum(b for _, b in one) / len(one)) for one in stretches
    ]


def write_segmentation_page(
    path: Path,
    result: "Segmented",
    windows: "Sequence[WindowView]",
    facts: Mapping[str, str],
    command: str,
) -> None:
    """Write the page of a segmentation.

    Parameters
    ----------
    path
        The HTML file.
    result
        What ``segment`` returned, complete and with its plan.
    windows
        Windows of it to show.
    facts
        Settings to show first, for example the model and the volume.
    command
        The command that segments it again.
    """
    viewer = viewer_of(windows)
    warnings = [
        Answer(Badge("!", "warning", "inconclusive"), "Warning", text) for text in result.warnings
    ]
    head = Head(
        f"Segmentation {result.path.name}",
        command,
        [*([("windows", "Slices")] if viewer else []), ("notes", "What to know")],
        {**facts, **_plan_facts(result), **provenance_rows(result.provenance)},
        [_complete(result), *warnings],
        "Result",
    )
    write_page(path, render_page("segmentation.html", head, VIEWER, result=result, viewer=viewer))


def _complete(result: "Segmented") -> Answer:
    objects = "" if result.objects is None else f" with {_counted(result.objects, 'object')}"
    text = f"Complete: {result.path.name}{objects}, in {_counted(result.blocks, 'block')}."
    return Answer(Badge("✓", "complete", "symmetric"), "Result", text)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _plan_facts(result: "Segmented") -> dict[str, str]:
    if result.plan is None:
        return {}
    plan = result.plan.to_dict()
    values = {"tile": plan["cut"]["tile"], **plan["settings"], **plan["normalisation"]}
    return {
        name.replace("_", " "): str(value) if isinstance(value, bool) else short(value)
        for name, value in values.items()
    }


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
