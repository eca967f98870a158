"""Write what studies found, tables and figures, from their folders alone.

python docs/results.py STUDY_DIR [STUDY_DIR ...] docs/results.md
"""

import csv
import html
import json
import sys
from pathlib import Path

from evenslice.errors import BadInputError
from evenslice.report import study_cells as cells
from evenslice.report import study_words as told
from evenslice.report.figures import effects_figure, finding_figure, save_figure, steps_figure
from evenslice.report.verdict import DASH, confidence, fixed, short

FIGURES = {
    "finding": (
        finding_figure,
        "Shares of every cell before and after training, mirror index and Dice",
    ),
    "effects": (effects_figure, "Mean paired differences from the control with their intervals"),
    "steps": (steps_figure, "Mirror index of every cell against training steps"),
}
PREFACE = """# What our studies found

{sentences}

Written by `{command}`; tables and figures hold nothing that is not in the `study.json` of these studies. Data or weights that may not be passed on,
and their public equivalents, are named in the study files.

How to read it: a **cell** is one training. The **mirror index** is 0 for a network that uses the previous and the next slice alike, above
0 where it leans to the later slice. A treatment is compared cell by cell with the control that shares all else; differences are pooled with the
data set as a block, intervals are t intervals from the spread within the blocks, p values are adjusted by Holm's method over the
treatments, and "equivalent" means two one-sided tests against a stated margin, never a large p value. Rows of single cells
describe; no conclusion rests on one of them."""


def main(folders: list[Path], out: Path) -> None:
    """Write one document about all given studies, and their figures beside it."""
    studies = [read(folder) for folder in folders]
    names = [slug(study["name"]) for study in studies]
    if len(set(names)) < len(names):
        raise BadInputError(
            f"two of the studies have one name ({', '.join(names)}), expected names that differ"
        )
    command = (
        f"python docs/results.py {' '.join(folder.name for folder in folders)} docs/{out.name}"
    )
    sentences = "\n".join(
        f"- {text(study['name'])}: **{text(told.question(claim))}** {text(told.sign(claim).word.capitalize())}. {text(claim['sentence'])}"
        for study in studies
        for claim in study["claims"]
    )
    parts = [PREFACE.format(sentences=sentences, command=command)]
    parts += [section(study, name, out) for study, name in zip(studies, names, strict=True)]
    out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def read(folder: Path) -> dict:
    """Read a study, and see that its table of rows is of the same state."""
    try:
        study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        with (folder / "rows.csv").open(encoding="utf-8", newline="") as file:
            count = sum(1 for _ in csv.DictReader(file))
    except OSError as error:
        raise BadInputError(
            f"{error.filename} cannot be read, expected the folder of a study; run the study"
        ) from error
    if study.get("schema") != "evenslice.study/1":
        raise BadInputError(
            f"{folder} holds the schema {study.get('schema')}, expected evenslice.study/1; run the study"
        )
    if count != len(study["rows"]):
        raise BadInputError(
            f"{folder}/rows.csv has {count} rows and study.json {len(study['rows'])}, expected as many; run the study again"
        )
    return study


def section(study: dict, name: str, out: Path) -> str:
    """Write all about one study, and its figures."""
    parts = [f"## {text(study['name'])}: {text(study.get('title') or 'a study')}"]
    parts.append(f"Made by `{command_of(study)}`. {text(told.progress(study))}".strip())
    parts.append(
        "Settings: "
        + text("; ".join(f"{key}: {value}" for key, value in study.get("settings", {}).items()))
    )
    parts += ["### The claims", claims(study), "### The lean, before and after training"]
    parts += [figure(study, "finding", name, out), leans(study)]
    parts += [
        "### Compared with " + text(study["control"]),
        figure(study, "effects", name, out),
        comparisons(study),
    ]
    parts += [
        "### Accuracy",
        accuracy(study),
        "### During training",
        figure(study, "steps", name, out),
    ]
    parts += ["### Every cell", rows(study)]
    failed = [
        f"- {text(row['treatment'])}, {text(row['network'])}, {text(cells.cell_name(row))}: {text(row['failure'])}"
        for row in cells.failures(study)
    ]
    parts += ["### Failures", "\n".join(failed)] if failed else []
    return "\n\n".join(part for part in parts if part)


def command_of(study: dict) -> str:
    """Return the command that made a study, without line breaks."""
    return " ".join(
        (
            study.get("command")
            or f"evenslice study studies/{study['name']}.toml --out {study['name']}"
        ).split()
    )


def figure(study: dict, kind: str, name: str, out: Path) -> str:
    """Draw a figure beside the document; say so where there is nothing to draw."""
    draw, words = FIGURES[kind]
    path = out.with_name(f"{out.stem}-{name}-{kind}.svg")
    try:
        save_figure(draw(study), path)
    except BadInputError:
        path.unlink(missing_ok=True)
        return "Nothing to draw yet."
    return f"![{words}]({path.name})"


def claims(study: dict) -> str:
    """Write the claims as a table: question, answer, what was measured."""
    control = str(study["control"])
    return table(
        ("question", "answer", "measured"),
        [
            (told.question(claim), told.answer(claim, control), claim["sentence"])
            for claim in study["claims"]
        ],
    )


def leans(study: dict) -> str:
    """Write the pooled leans before and after."""
    found = cells.lean_of(study)
    lines = []
    for treatment, network in dict.fromkeys(
        (treatment, network) for treatment, network, _ in found
    ):
        before, after = (found.get((treatment, network, when), {}) for when in ("before", "after"))
        verdicts = [told.lean_badge(one or None).word for one in (before, after)]
        counts = [short(after.get(key)) for key in ("cells", "datasets")]
        lines.append(
            (
                treatment,
                network,
                value(before),
                verdicts[0],
                value(after),
                verdicts[1],
                told.p_words(after.get("p_holm")),
                *counts,
            )
        )
    head = (
        "treatment",
        "network",
        "mirror index before",
        "verdict",
        "after",
        "verdict",
        "p (Holm)",
        "cells",
        "data sets",
    )
    return f"Mean over cells with {confidence(study)} interval; even: within ±{short(study['margin'])}.\n\n{table(head, lines)}"


def comparisons(study: dict) -> str:
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
        "data sets",
        "verdict",
    )
    lines = [
        (
            told.OUTCOMES.get(one["outcome"], ("", one["outcome"]))[1],
            told.named(one),
            value(one),
            *(told.p_words(one.get(key)) for key in ("p", "p_holm", "p_signflip")),
            short(one.get("margin")),
            told.p_words(one.get("p_equivalence_holm")),
            short(one.get("cells")),
            short(one.get("datasets")),
            told.comparison_badge(one).word,
        )
        for one in study["comparisons"]
    ]
    return table(head, lines)


def accuracy(study: dict) -> str:
    """Write the Dice and IoU of every seed, a line a network, data set and treatment."""
    lines = []
    for group in cells.groups_of(study):
        for dataset in cells.names(group.rows, "dataset"):
            for treatment in group.treatments:
                own = [row for row in group.of(treatment) if row["dataset"] == dataset]
                scores = [
                    ", ".join(fixed(row.get(key)) for row in own) or DASH for key in ("dice", "iou")
                ]
                lines.append((group.title, dataset, treatment, *scores))
    return "A number a seed.\n\n" + table(
        ("network", "data set", "treatment", "Dice", "IoU"), lines
    )


def rows(study: dict) -> str:
    """Write every finished cell, folded away."""
    lines = [
        (
            row["network"],
            row["treatment"],
            row["dataset"],
            short(row.get("seed")),
            fixed(row.get("dice")),
            " / ".join(fixed(share) for share in cells.shares_of(row)),
            interval(row, "_before"),
            interval(row, ""),
            told.cell_badge(row, study["margin"]).word,
        )
        for row in cells.finished(study)
    ]
    head = (
        "network",
        "treatment",
        "data set",
        "seed",
        "Dice",
        "shares after",
        "mirror index before",
        "after",
        "verdict",
    )
    return f"<details>\n<summary>{len(lines)} finished cells</summary>\n\n{table(head, lines)}\n\n</details>"


def interval(row: dict, end: str) -> str:
    """Write the mirror index of a cell with the interval of its audit."""
    low, high = row.get(f"mirror_low{end}"), row.get(f"mirror_high{end}")
    return f"{told.signed(row.get(f'mirror_index{end}'))} ({told.signed_interval(low, high)})"


def value(found: dict) -> str:
    """Write a pooled value with its interval."""
    return (
        f"{told.signed(found.get('value'))} ({told.signed_interval(found.get('low'), found.get('high'))})"
        if found
        else DASH
    )


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
