"""Write what studies found, tables and figures, from their folders alone.

python docs/results.py STUDY_DIR [STUDY_DIR ...] docs/results.md
"""

import csv
import html
import json
import sys
from functools import partial
from pathlib import Path

from evenslice.errors import BadInputError
from evenslice.report import verdict
from evenslice.report.charts import save_figure
from evenslice.report.study_charts import effects_figure, finding_figure, steps_figure
from evenslice.report.verdict import DASH, confidence, fixed, p_value, short, signed
from evenslice.study.results import SCHEMA, Estimate, Study, unique

FIGURES = {
    "finding": (
        finding_figure,
        "Shares of every cell before and after training, mirror index and Dice",
    ),
    "effects": (effects_figure, "Mean paired differences from the control with their intervals"),
    "steps": (steps_figure, "Mirror index of every cell against training steps"),
    "dice": (partial(steps_figure, quantity="dice"), "Dice of every cell against training steps"),
}
PREFACE = """# What our studies found

{sentences}

Written by `{command}`; tables and figures hold nothing that is not in the `study.json` of these
studies. Data or weights that may not be passed on, and their public equivalents, are named in the
study files.

How to read it: a **cell** is one training. The **mirror index** is 0 for a network that uses the
previous and the next slice alike, above 0 where the later slice counts more. A treatment is
compared cell by cell with the control that shares all else; differences are pooled with the dataset
as a block, intervals are t intervals from the spread within the blocks, p values are adjusted
by Holm's method over the treatments, and "equivalent" means two one-sided tests against a stated
margin, never a large p value. Rows of single cells describe; no conclusion rests on one of them."""


def main(folders: list[Path], out: Path) -> None:
    """Write one document about all given studies, and their figures beside it."""
    studies = [read(folder) for folder in folders]
    names = [slug(study.name) for study in studies]
    if len(set(names)) < len(names):
        raise BadInputError(
            f"two of the studies have one name ({', '.join(names)}), expected names that differ"
        )
    given = " ".join(folder.name for folder in folders)
    sentences = "\n".join(
        f"- {text(study.name)}: **{text(verdict.QUESTIONS[claim.name])}** "
        f"{text(verdict.claim_badge(claim).word.capitalize())}. {text(claim.sentence)}"
        for study in studies
        for claim in study.claims
    )
    command = f"python docs/results.py {given} docs/{out.name}"
    parts = [PREFACE.format(sentences=sentences, command=command)]
    parts += [section(study, name, out) for study, name in zip(studies, names, strict=True)]
    out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def read(folder: Path) -> Study:
    """Read a study, and see that its table of rows is of the same state."""
    try:
        study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        with (folder / "rows.csv").open(encoding="utf-8", newline="") as file:
            count = sum(1 for _ in csv.DictReader(file))
    except OSError as error:
        raise BadInputError(
            f"{error.filename} cannot be read, expected the folder of a study; run the study"
        ) from error
    if study.get("schema") != SCHEMA:
        raise BadInputError(
            f"{folder} has the schema {study.get('schema')}, expected {SCHEMA}; run the study"
        )
    if count != len(study["rows"]):
        raise BadInputError(
            f"{folder}/rows.csv has {count} rows and study.json {len(study['rows'])}, "
            "expected as many; run the study again"
        )
    return Study.of(study)


def section(study: Study, name: str, out: Path) -> str:
    """Write all about one study, and its figures."""
    command = f"evenslice study studies/{study.name}.toml --out {study.name}"
    settings = "; ".join(f"{key}: {value}" for key, value in study.settings.items())
    failed = [
        f"- {text(cell.treatment)}, {text(cell.network)}, {text(cell.name)}: {text(cell.failure)}"
        for cell in study.failures
    ]
    parts = [
        f"## {text(study.name)}: {text(study.title or 'a study')}",
        f"Made by `{' '.join(command.split())}`. {text(verdict.progress(study))}".strip(),
        f"Settings: {text(settings)}",
        "### The claims",
        claims(study),
        "### The asymmetry, before and after training",
        figure(study, "finding", name, out),
        pooled(study),
        f"### Compared with {text(study.control)}",
        figure(study, "effects", name, out),
        comparisons(study),
        "### Accuracy",
        accuracy(study),
        "### During training",
        figure(study, "steps", name, out),
        figure(study, "dice", name, out),
        "### Every cell",
        cells(study),
        *(["### Failures", "\n".join(failed)] if failed else []),
    ]
    return "\n\n".join(parts)


def figure(study: Study, kind: str, name: str, out: Path) -> str:
    """Draw a figure beside the document; say so where there is nothing to draw."""
    draw, words = FIGURES[kind]
    path = out.with_name(f"{out.stem}-{name}-{kind}.svg")
    try:
        save_figure(draw(study), path)
    except BadInputError:
        path.unlink(missing_ok=True)
        return "Nothing to draw yet."
    return f"![{words}]({path.name})"


def claims(study: Study) -> str:
    """Write the claims as a table: question, answer, what was measured."""
    lines = [
        (verdict.QUESTIONS[claim.name], verdict.claim_badge(claim).word, claim.sentence)
        for claim in study.claims
    ]
    return table(("question", "answer", "measured"), lines)


def pooled(study: Study) -> str:
    """Write the pooled mirror indices before and after."""
    lines = [
        (
            after.treatment,
            after.network,
            value(before),
            verdict.pooled_badge(before).word,
            value(after),
            verdict.pooled_badge(after).word,
            p_value(after.p_holm),
            short(after.cells),
            short(after.datasets),
        )
        for before, after in study.pooled_pairs()
    ]
    head = (
        "treatment",
        "network",
        "mirror index before",
        "verdict",
        "after",
        "verdict",
        "p (Holm)",
        "cells",
        "datasets",
    )
    said = f"Mean over cells with {confidence(study.confidence)} interval; symmetric: within"
    return f"{said} ±{short(study.margin)}.\n\n{table(head, lines)}"


def comparisons(study: Study) -> str:
    """Write every comparison with its p values."""
    head = (
        "outcome",
        "treatment",
        "difference",
        "p",
        "p (Holm)",
        "p (sign flips)",
        "margin",
        "p equivalence (Holm)",
        "pairs",
        "datasets",
        "verdict",
    )
    lines = [
        (
            verdict.OUTCOMES[one.outcome].short,
            one.name,
            value(one),
            *map(p_value, (one.p, one.p_holm, one.p_signflip)),
            short(one.margin),
            p_value(one.p_equivalence_holm),
            short(one.cells),
            short(one.datasets),
            verdict.comparison_badge(one).word,
        )
        for one in study.comparisons
    ]
    return table(head, lines)


def accuracy(study: Study) -> str:
    """Write the Dice and IoU of every seed, a line per network, dataset and treatment."""
    lines = []
    for group in study.groups:
        for dataset in unique(cell.dataset for cell in group.cells):
            for treatment in group.treatments:
                own = [cell for cell in group.of(treatment) if cell.dataset == dataset]
                dice = ", ".join(fixed(cell.dice) for cell in own) or DASH
                iou = ", ".join(fixed(cell.iou) for cell in own) or DASH
                lines.append((group.title, dataset, treatment, dice, iou))
    head = ("network", "dataset", "treatment", "Dice", "IoU")
    return f"One number per seed.\n\n{table(head, lines)}"


def cells(study: Study) -> str:
    """Write every finished cell, folded away."""
    lines = [
        (
            cell.network,
            cell.treatment,
            cell.dataset,
            short(cell.seed),
            fixed(cell.dice),
            " / ".join(fixed(share) for share in cell.shares),
            value(cell.index_before),
            value(cell.index),
            verdict.cell_badge(cell, study.margin).word,
        )
        for cell in study.finished
    ]
    head = (
        "network",
        "treatment",
        "dataset",
        "seed",
        "Dice",
        "shares after",
        "mirror index before",
        "after",
        "verdict",
    )
    summary = f"<summary>{len(lines)} finished cells</summary>"
    return f"<details>\n{summary}\n\n{table(head, lines)}\n\n</details>"


def value(found: Estimate) -> str:
    """Write a value with its interval."""
    if found.value is None:
        return DASH
    return f"{signed(found.value)} ({verdict.signed_interval(found.low, found.high)})"


def table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """Write a table of Markdown."""
    every = [head, ("---",) * len(head), *lines]
    return "\n".join(
        "| " + " | ".join(text(cell).replace("|", "\\|") for cell in line) + " |" for line in every
    )


def text(words: object) -> str:
    """Return words as Markdown shows them unchanged."""
    plain = html.escape(" ".join(str(words).split()), quote=False)
    return "".join(f"\\{letter}" if letter in "*_`[]" else letter for letter in plain)


def slug(name: str) -> str:
    """Return a name as part of a file name."""
    return (
        "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())
        or "study"
    )


if __name__ == "__main__":
    if len(sys.argv) < 3 or not sys.argv[-1].endswith(".md"):
        sys.exit("usage: python docs/results.py STUDY_DIR [STUDY_DIR ...] docs/results.md")
    try:
        main([Path(name) for name in sys.argv[1:-1]], Path(sys.argv[-1]))
    except BadInputError as error:
        sys.exit(f"results.py: error: {error}")
