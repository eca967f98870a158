"""What the terminal shows at the end: one summary table each."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from evenslice.evidence.result import Audit
from evenslice.evidence.stats import Interval
from evenslice.labels.metrics import Scores
from evenslice.report.verdict import sentence, slot_names
from evenslice.verbs.demo import Demo


def print_demo(demo: Demo) -> None:
    """Print the demo's rows."""
    first = demo.rows[0].audit
    table = Table(
        "init",
        "Dice",
        *slot_names(first.slices),
        "mirror index",
        "verdict",
        title="Share of importance per slot, by gradient",
    )
    for row in demo.rows:
        method = row.audit.methods["gradient"]
        table.add_row(
            row.init,
            _number(row.scores.dice),
            *(_number(s.value) for s in method.shares),
            _interval(method.index),
            method.verdict,
        )
    Console().print(table)


def print_audit(audit: Audit) -> None:
    """Print an audit: verdict first, then methods and checks."""
    console = Console()
    console.print(sentence(audit.to_dict()), highlight=False)
    table = Table("method", *slot_names(audit.slices), "mirror index", "verdict")
    for name, method in audit.methods.items():
        table.add_row(name, *(_number(s.value) for s in method.shares), _interval(method.index), method.verdict)
    console.print(table)
    console.print(
        f"{audit.windows} windows of {audit.tile[0]} x {audit.tile[1]} in {audit.clusters} blocks; reversal changes the probability by "
        f"{audit.probability_change:.4f} and flips {audit.flipped_fraction:.2%} of pixels",
        highlight=False,
    )
    failed = [
        f"{name}: {check.reason} ({check.value:g})" for name, check in audit.checks.items() if check.passed is False
    ]
    for line in failed:
        console.print(f"check failed: {line}", highlight=False, markup=False)
    if audit.trained_on:
        console.print(f"{audit.trained_on} of the windows lie in slices that the model was trained on", highlight=False)


def print_scores(scores: Scores, title: str = "Scores") -> None:
    """Print Dice and IoU, per class where there are several."""
    table = Table("class", "Dice", "IoU", title=title)
    for label, values in scores.per_class.items():
        table.add_row(str(label), _number(values["dice"]), _number(values["iou"]))
    if len(scores.per_class) != 1:
        table.add_row("mean", _number(scores.dice), _number(scores.iou))
    Console().print(table)


def print_stems(stages: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Print the norms per slot of stems, before and after."""
    table = Table("", "stem", "kind", "norm per slot")
    for stage, stems in stages.items():
        for stem in stems:
            table.add_row(
                stage, stem["module"] or "(the network)", stem["kind"], "  ".join(f"{n:.3f}" for n in stem["norms"])
            )
    Console().print(table)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    if interval.low != interval.low:
        return f"{interval.value:+.4f}"
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]".replace("[", "(").replace("]", ")")
