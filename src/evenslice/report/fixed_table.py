"""What ``fix`` did, as one table: before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from evenslice.evidence.result import Audit
from evenslice.report.tables import certificate_words, interval_words
from evenslice.report.terminal import Terminal, say
from evenslice.verbs.fix import Fixed


def print_fixed(fixed: Fixed, out: Path) -> None:
    """Print the stems, the audits on the same windows, what changed, and the certificate; then where the model is."""
    table = Table(
        "",
        "before",
        "after",
        title="The stem made even" if fixed.model.tta == "none" else "Answers made even",
    )
    stems = zip(fixed.before, fixed.after, strict=True)
    for before, after in stems:
        name = before["module"] or "(the network)"
        table.add_row(escape(f"{name}, norm per slot"), _norms(before), _norms(after))
    if fixed.audits is not None:
        for name, *cells in _audit_rows(fixed.audits):
            table.add_row(name, *cells)
    for name, *cells in _change_rows(fixed.change or {}):
        table.add_row(name, *cells)
    table.add_row("largest response to the reversal", "", certificate_words(fixed.certificate))
    Terminal().print(table)
    say(out)


def _norms(stem: Mapping[str, Any]) -> str:
    return "  ".join(f"{norm:.3f}" for norm in stem["norms"])


def _audit_rows(audits: Sequence[Audit]) -> list[tuple[str, ...]]:
    """Compare the audits: shares and index by their one method, verdict, response, and controls that failed."""
    name = next(iter(audits[0].methods))
    methods = [audit.methods[name] for audit in audits]
    return [
        (
            f"shares by {name}",
            *("  ".join(f"{share.value:.3f}" for share in method.shares) for method in methods),
        ),
        ("mirror index", *(interval_words(method.index) for method in methods)),
        ("verdict", *(audit.verdict for audit in audits)),
        (
            "reversal changes the probability by",
            *(f"{audit.probability_change:.4f}" for audit in audits),
        ),
        (
            "controls that failed",
            *(", ".join(audit.believed["failed"]) or "none" for audit in audits),
        ),
    ]


def _change_rows(change: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Say how far the output moved, and what it did to Dice; what was not measured has no row."""
    rows = []
    if any(key in change for key in ("dice_before", "dice_after")):
        rows.append(
            (
                "Dice on the windows",
                *(_score(change.get(f"dice_{when}")) for when in ("before", "after")),
            )
        )
    for key, name in (
        ("probability_change", "the fix moves the probability by"),
        ("normalisation_change", "of that by one mean and std for all slots"),
    ):
        if change.get(key) is not None:
            rows.append((name, "", f"{change[key]:.4f}"))
    if change.get("batch_norms"):
        rows.append(("batch norms measured anew", "", str(change["batch_norms"])))
    return rows


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
