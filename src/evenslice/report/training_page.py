"""The page of one training: how well the network segments, how the training went, and slices that it was not trained on."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evenslice.report.made import provenance_rows
from evenslice.report.rendering import render_html, write_html
from evenslice.report.training_curves import training_chart
from evenslice.report.verdict import Badge, fixed, short
from evenslice.report.viewer import viewer_of
from evenslice.verbs.train import Trained

SHOWN = (
    "arch",
    "encoder",
    "weights",
    "init",
    "tie",
    "slices",
    "reverse_z",
    "steps",
    "batch",
    "crop",
    "lr",
    "schedule",
    "loss",
    "augment",
    "precision",
    "seed",
)
SPANS = {"slices trained on": "slices", "slices validated on": "validation"}


def write_training_page(
    path: Path, trained: Trained, facts: Mapping[str, str], command: str
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
    with trained.log.open(newline="") as file:
        rows = [
            {key: float(value) if value else None for key, value in row.items()}
            for row in csv.DictReader(file)
        ]
    viewer = viewer_of(trained.shown)
    parts = {"scores": "Accuracy", "course": "Course of the training", "looks": "Validation slices"}
    if viewer is None:
        del parts["looks"]
    values = {
        "title": f"Training of {trained.path.name}",
        "verdicts": [_accuracy(trained), _symmetry(trained)],
        "contents": list(parts.items()),
        "facts": {**facts, **_facts(trained)},
        "command": command,
        "scores": trained.scores,
        "chart": training_chart(rows),
        "viewer": viewer,
        "model": trained.path,
        "again": f"evenslice audit {trained.path.name} VOLUME --out audit",
    }
    write_html(path, render_html("training.html", ["viewer.css"], ["viewer.js"], values))


def _accuracy(trained: Trained) -> dict[str, Any]:
    done = trained.looks[-1]["steps"] if trained.looks else None
    spans = trained.model.training.get("validation") or []
    slices = sum(stop - start for start, stop in spans)
    found = trained.scores
    return {
        "badge": Badge("D", "accuracy", "none"),
        "who": "Accuracy",
        "what": f"Dice {fixed(found.dice)}, IoU {fixed(found.iou)} on {slices} slices that it was not trained on, after {short(done)} steps.",
        "figures": "One training with one seed: another seed gives another number. A study compares treatments over seeds.",
    }


def _symmetry(trained: Trained) -> dict[str, Any]:
    found = trained.model.certificate or {}
    if found.get("symmetric"):
        return {
            "badge": Badge("=", "even", "symmetric"),
            "who": "Symmetry",
            "what": "Even: reversing the slices leaves the output as it is, up to rounding.",
            "figures": f"largest relative difference {found['float32']:.1e} in float32",
        }
    return {
        "badge": Badge("?", "not measured", "inconclusive"),
        "who": "Symmetry",
        "what": "Not even by construction: the output changes with the order of the slices. An audit tells which way it leans, and how surely.",
        "figures": f"largest relative difference {found['float32']:.1e} in float32"
        if "float32" in found
        else "",
    }


def _facts(trained: Trained) -> dict[str, str]:
    training = trained.model.training
    recipe = training.get("recipe") or {}
    found = {name.replace("_", " "): str(recipe[name]) for name in SHOWN if name in recipe}
    spans = {
        name: ", ".join(f"{a}:{b}" for a, b in training.get(key) or [])
        for name, key in SPANS.items()
    }
    return (
        {"target": str(training.get("target"))}
        | spans
        | found
        | provenance_rows(trained.model.provenance)
    )
