"""The pages of the verbs: what each result looks like in the report."""

from collections.abc import Mapping
from pathlib import Path

from evenslice.evidence.result import Audit
from evenslice.report.made import provenance_rows
from evenslice.report.page import Page, Row, write_page
from evenslice.verbs.demo import Demo


def page_beside(path: Path) -> Path:
    """Return where the page of a result that is one file or store lies: beside it."""
    return path.with_suffix(".report.html")


def write_demo_page(path: Path, demo: Demo, command: str) -> None:
    """Write the demo's page: both models in one table, and the same window seen by both."""
    page = Page(
        title="evenslice demo: one volume, two stems",
        rows=[
            Row(row.init, row.audit.to_dict(), row.scores.dice, row.scores.iou) for row in demo.rows
        ],
        looks=[look for row in demo.rows for look in row.audit.looks],
        facts=demo.facts | provenance_rows(demo.provenance),
        command=command,
        intro="Two networks, alike but for their first layer, were trained on the same phantom. "
        "rgb keeps the stem as photographs left it; green gives every slice the green filters.",
    )
    write_page(page, path)


def write_audit_page(
    path: Path, audit: Audit, label: str, facts: Mapping[str, str], command: str
) -> None:
    """Write the page of one audit."""
    page = Page(
        title=f"Audit of {label}",
        rows=[Row(label, audit.to_dict())],
        looks=audit.looks,
        facts={**facts, **provenance_rows(audit.provenance)},
        command=command,
    )
    write_page(page, path)
