"""Pages as one HTML file each, and the page of audited models; formatting only."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evenslice import __version__
from evenslice.options import JsonObject
from evenslice.report import verdict
from evenslice.report.audit_charts import audits_figure
from evenslice.report.charts import to_svg
from evenslice.report.tables import input_text
from evenslice.report.verdict import Badge
from evenslice.report.viewer import viewer_of
from evenslice.volume.atomic import written_beside

if TYPE_CHECKING:
    from evenslice.evidence.result import Audit
    from evenslice.evidence.window_view import WindowView
    from evenslice.verbs.demo import Demo

VIEWER = ("viewer.css",), ("viewer.js",)


class Answer(NamedTuple):
    """A line at the top of a page: a badge, whom or what it is about, the answer, and figures."""

    badge: Badge
    who: str
    what: str
    figures: str = ""


class Head(NamedTuple):
    """What every page shows: its sections (identifier and name), settings, and the lines on top.

    ``command`` makes the page again; ``label`` is what a screen reader calls the ``answers``;
    ``partial`` says what is not finished.
    """

    title: str
    command: str
    contents: Sequence[tuple[str, str]]
    facts: Mapping[str, str]
    answers: Sequence[Answer]
    label: str = "Verdict"
    intro: str = ""
    partial: str = ""


class Row(NamedTuple):
    """One audited model, as a line of the table."""

    label: str
    audit: "Audit"
    dice: float | None = None
    iou: float | None = None


@dataclass(frozen=True)
class Page:
    """The page of audited models, in the order to show them; for the rest see ``Head``."""

    title: str
    rows: "Sequence[Row]"
    windows: "Sequence[WindowView]"
    facts: Mapping[str, str]
    command: str
    intro: str = ""


def render_page(
    template: str, head: Head, files: tuple[Sequence[str], Sequence[str]], **values: object
) -> str:
    """Turn a template that extends ``layout.html`` into a page that needs no other file.

    ``files`` are its styles and scripts: no other script may run on the page. All text is escaped.
    """
    environment = Environment(
        loader=PackageLoader("evenslice.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    filters = (verdict.fixed, verdict.short, verdict.signed, verdict.confidence, verdict.p_value)
    environment.filters.update({one.__name__: one for one in filters})
    environment.globals.update(verdict=verdict)
    folder, (styles, scripts) = resources.files("evenslice.report"), files
    style, script = (
        "\n".join(folder.joinpath(name).read_text(encoding="utf-8").strip() for name in names)
        for names in (("layout.css", *styles), scripts)
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        head=head,
        version=__version__,
        style=Markup(style),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        **values,
    )


def write_page(path: Path, text: str) -> None:
    """Write a page; one that was there before is replaced only once the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as part:
        part.write_bytes(text.encode("utf-8", errors="backslashreplace"))


def page_beside(path: Path) -> Path:
    """Return where the page of a result that is one file or store lies: beside it."""
    return path.with_suffix(".report.html")


def provenance_rows(provenance: JsonObject) -> dict[str, str]:
    """Return what a result was made with as rows {name: text}: inputs, seed, versions."""
    inputs = provenance.get("inputs") or {}
    rows = {f"{role} read": input_text(record) for role, record in inputs.items()}
    if provenance.get("seed") is not None:
        rows["seed"] = str(provenance["seed"])
    if provenance.get("versions"):
        rows["versions"] = ", ".join(f"{k} {v}" for k, v in provenance["versions"].items())
    return rows


def render(page: Page) -> str:
    """Turn audited models into a page that needs no other file and no network."""
    audits = {row.label: row.audit for row in page.rows}
    viewer = viewer_of(page.windows)
    several = len(page.rows) > 1
    contents = [("summary", "Results"), ("shares", "Shares")]
    contents += [("windows", "Windows")] if viewer else []
    for number, row in enumerate(page.rows, start=1):
        contents.append((f"model-{number}", f"Details: {row.label}" if several else "Details"))
    head = Head(
        page.title,
        page.command,
        contents,
        page.facts,
        [Answer(verdict.badge(one), name, verdict.sentence(one)) for name, one in audits.items()],
        "Verdicts" if several else "Verdict",
        page.intro,
    )
    figure = audits_figure(audits if several else {"": page.rows[0].audit})
    title = "Shares and mirror pairs of every method"
    chart = to_svg(figure, "shares-chart", title, "The tables have the same numbers.")
    widest = max(audit.slices for audit in audits.values())
    return render_page(
        "audit.html", head, VIEWER, rows=page.rows, chart=chart, widest=widest, viewer=viewer
    )


def write_audit_page(
    path: Path, audit: "Audit", label: str, facts: Mapping[str, str], command: str
) -> None:
    """Write the page of one audit."""
    facts = {**facts, **provenance_rows(audit.provenance)}
    page = Page(f"Audit of {label}", [Row(label, audit)], audit.views, facts, command)
    write_page(path, render(page))


def write_demo_page(path: Path, demo: "Demo", command: str) -> None:
    """Write the demo's page: the models in one table, and the same windows seen by each."""
    page = Page(
        title="evenslice demo: one volume, three stems",
        rows=[Row(row.init, row.audit, row.scores.dice, row.scores.iou) for row in demo.rows],
        windows=[window for row in demo.rows for window in row.audit.views],
        facts=demo.facts | provenance_rows(demo.provenance),
        command=command,
        intro="Three networks, alike but for their first layer, were trained on the same phantom. "
        "rgb keeps the stem as photographs left it; green gives every slice the green filters; "
        "mirror keeps green at the centre and gives both neighbours the mean of red and blue.",
    )
    write_page(path, render(page))
