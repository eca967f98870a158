"""The page of a segmentation: what was written, how, and slices of it to look at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evenslice.evidence.window_view import Look
from evenslice.report.made import provenance_rows
from evenslice.report.rendering import render_html, write_html
from evenslice.report.verdict import Badge, short
from evenslice.report.viewer import viewer_of
from evenslice.segmentation.run import Segmented


def write_segmentation_page(
    path: Path, result: Segmented, looks: Sequence[Look], facts: Mapping[str, str], command: str
) -> None:
    """Write the page of a segmentation.

    Parameters
    ----------
    path
        The HTML file.
    result
        What ``segment`` returned, complete and with its plan.
    looks
        Windows of it to look at.
    facts
        Settings to show first, for example the model and the volume.
    command
        The command that segments it again.
    """
    viewer = viewer_of(looks)
    values = {
        "title": f"Segmentation {result.path.name}",
        "verdicts": [_written(result), *(_warned(words) for words in result.warnings)],
        "contents": [*([("looks", "Slices")] if viewer else []), ("notes", "What to know")],
        "facts": {**facts, **_facts(result), **provenance_rows(result.provenance)},
        "command": command,
        "viewer": viewer,
        "blank": result.blank,
        "trained": ", ".join(f"{a}:{b}" for a, b in result.trained_slices),
    }
    write_html(path, render_html("segmentation.html", ["viewer.css"], ["viewer.js"], values))


def _written(result: Segmented) -> dict[str, Any]:
    objects = (
        ""
        if result.objects is None
        else f" with {result.objects} object{'' if result.objects == 1 else 's'}"
    )
    return {
        "badge": Badge("✓", "complete", "symmetric"),
        "who": "Result",
        "what": f"Complete: {result.path.name}{objects}, in {result.blocks} block{'' if result.blocks == 1 else 's'}.",
    }


def _warned(words: str) -> dict[str, Any]:
    return {"badge": Badge("!", "warning", "inconclusive"), "who": "Warning", "what": words}


def _facts(result: Segmented) -> dict[str, str]:
    found = {} if result.plan is None else result.plan.to_dict()
    cut, settings = found.get("cut") or {}, found.get("settings") or {}
    plan = {"tile": cut.get("tile"), **settings, **(found.get("normalisation") or {})}
    return {
        name.replace("_", " "): str(value) if isinstance(value, bool) else short(value)
        for name, value in plan.items()
    }
