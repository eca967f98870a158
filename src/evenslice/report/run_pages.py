"""The pages of a training, of a segmentation and of a study: what was made, how, and what of it."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from evenslice.errors import BadInputError
from evenslice.options import JsonObject
from evenslice.report import verdict
from evenslice.report.charts import BEFORE, WIDTH, add_mark, blank, styled, to_svg
from evenslice.report.page import VIEWER, Answer, Head, provenance_rows, render_page, write_page
from evenslice.report.study_charts import QUANTITIES, effects_figure, finding_figure, steps_figure
from evenslice.report.verdict import SYMMETRIC, Badge, fixed, is_number, short
from evenslice.report.viewer import viewer_of
from evenslice.study.results import ALL, Study, unique

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from evenslice.evidence.window_view import WindowView
    from evenslice.segmentation.result import Segmented
    from evenslice.verbs.train import Trained

SPANS = {"slices trained on": "slices", "slices validated on": "validation"}
MOST_POINTS, SMOOTH = 400, 40
PALE = "#bcd9ec"
Points = list[tuple[float, float]]


def write_training_page(
    path: Path, trained: "Trained", facts: Mapping[str, str], command: str
) -> None:
    """Write the page of a training; ``facts`` are shown before the settings of the recipe."""
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
    audit = f"evenslice audit {trained.path.name} VOLUME --out audit"
    shown = {"scores": trained.scores, "chart": _training_chart(trained.log), "viewer": viewer}
    write_page(path, render_page("training.html", head, VIEWER, audit_command=audit, **shown))


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
    size = f"largest relative difference {found['float32']:.1e} in float32" if found else ""
    if found and found["symmetric"]:
        text = "Symmetric: reversing the slices leaves the output as it is, up to rounding."
        return Answer(SYMMETRIC, "Symmetry", text, size)
    text = (
        "Not symmetric by construction: the output changes with the order of the slices. "
        "An audit measures the direction and the size."
    )
    return Answer(Badge("?", "not measured", "inconclusive"), "Symmetry", text, size)


def _recipe_facts(trained: "Trained") -> dict[str, str]:
    training = trained.model.training
    spans = {
        name: ", ".join(f"{start}:{stop}" for start, stop in training.get(key) or [])
        for name, key in SPANS.items()
    }
    recipe = training.get("recipe") or {}
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
    """Draw how a training went: (step, loss) of every step, (step, Dice) of every validation.

    The loss is pale (means of equal stretches where there are over 400 steps), with means of 40
    stretches over it.
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
    """Write the page of a complete segmentation, with windows of it; ``facts`` are shown first."""
    viewer = viewer_of(windows)
    objects = "" if result.objects is None else f" with {_counted(result.objects, 'object')}"
    text = f"Complete: {result.path.name}{objects}, in {_counted(result.blocks, 'block')}."
    warning = Badge("!", "warning", "inconclusive")
    head = Head(
        f"Segmentation {result.path.name}",
        command,
        [*([("windows", "Slices")] if viewer else []), ("notes", "What to know")],
        {**facts, **_plan_facts(result), **provenance_rows(result.provenance)},
        [
            Answer(Badge("✓", "complete", "symmetric"), "Result", text),
            *(Answer(warning, "Warning", note) for note in result.warnings),
        ],
        "Result",
    )
    write_page(path, render_page("segmentation.html", head, VIEWER, result=result, viewer=viewer))


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


STUDY_FILES = ("study.css",), ("study_table.js",)
FILTERS = ("network", "treatment", "dataset", "target", "seed")  # the first columns of the table
VERDICT_COLUMN = 10


def write_study_page(path: Path, study: Study | JsonObject, command: str) -> None:
    """Write the page of a study, or of what ``study.json`` holds of one, finished or not."""
    write_page(path, render_study(Study.of(study), command))


def render_study(study: Study, command: str) -> str:
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
    undecided = "" if study.claims else "No claim is decided: no cell is done."
    head = Head(
        f"Study: {study.name or 'without a name'}",
        command,
        [(ident, name) for ident, name, there in sections if there],
        _settings(study),
        [
            Answer(verdict.claim_badge(one), verdict.QUESTIONS[one.name], one.sentence)
            for one in study.claims
        ],
        "What the study found",
        study.title,
        f"{verdict.progress(study)} {undecided}".strip(),
    )
    return render_page(
        "study.html",
        head,
        STUDY_FILES,
        study=study,
        control=study.control or "the control",
        effects=effects,
        finding=finding,
        curves=curves,
        pooled=sorted(study.pooled_pairs(), key=lambda pair: pair[0].network != ALL),
        choices=_choices(study),
    )


def _chart(
    ident: str, title: str, study: Study, draw: Callable[..., "Figure"], *options: str
) -> Markup | None:
    """Draw a chart; None where there is nothing to draw."""
    try:
        return to_svg(draw(study, *options), ident, title, "The tables have the same numbers.")
    except BadInputError:
        return None


def _choices(study: Study) -> list[tuple[str, int, list[str]]]:
    """List the filters of the table: label, column and options."""
    choices = []
    for column, key in enumerate(FILTERS):
        values = [getattr(cell, key) for cell in study.results]
        numbers = all(map(is_number, values))
        options = sorted(set(values)) if numbers else unique(filter(None, values))
        choices.append((key.capitalize(), column, [str(option) for option in options]))
    badges = {verdict.cell_badge(cell, study.margin).word for cell in study.results}
    return [*choices, ("Verdict after", VERDICT_COLUMN, sorted(badges))]


def _settings(study: Study) -> dict[str, str]:
    counts = {
        "cells": f"{study.cells}, of which {study.done} are done and {study.failed} failed",
        "control": study.control,
        "confidence": verdict.confidence(study.confidence),
        "margin of the mirror index": short(study.margin),
        "margin of Dice": short(study.dice_margin),
    }
    settings = {name: str(value) for name, value in study.settings.items()}
    return counts | settings | provenance_rows(study.provenance or {"versions": study.versions})
