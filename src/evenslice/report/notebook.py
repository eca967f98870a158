"""What notebooks and papers show of results: HTML, matplotlib figures, and files of them."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment

from evenslice.errors import BadInputError
from evenslice.options import JsonObject
from evenslice.report.audit_charts import audit_figure, scores_figure, window_figure
from evenslice.report.charts import METADATA, save_figure
from evenslice.report.study_charts import effects_figure, finding_figure, steps_figure
from evenslice.report.tables import estimate, method_row, score_rows
from evenslice.report.verdict import sanity_checks, sentence, slot_names
from evenslice.study.results import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from evenslice.evidence.result import Audit
    from evenslice.labels.metrics import Scores

__all__ = [
    "audit_figure",
    "audit_html",
    "save_figures",
    "scores_figure",
    "scores_html",
    "window_figure",
]
STUDY_FIGURES = {"finding": finding_figure, "steps": steps_figure, "effects": effects_figure}
TEMPLATE = """{% if lead %}<p>{{ lead }}</p>{% endif -%}
<table><thead><tr>{% for name in head %}<th>{{ name }}</th>{% endfor %}</tr></thead><tbody>
{%- for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor -%}
</tbody></table>{% for note in notes %}<p><small>{{ note }}</small></p>{% endfor %}"""


def audit_html(audit: "Audit") -> str:
    """Return an audit as HTML: the verdict in a sentence, a row per method, and the checks."""
    head = ("method", *slot_names(audit.slices), "mirror index", "verdict")
    rows = [method_row(name, method) for name, method in audit.methods.items()]
    height, width = audit.tile
    notes = [
        f"{audit.windows} windows of {height} x {width} in {audit.clusters} blocks, "
        f"seed {audit.seed}"
    ]
    if audit.lag is not None:
        notes.append(f"lag of the prediction: {estimate(audit.lag)} slices")
    if audit.believed["failed"]:
        notes.append(sanity_checks(audit))
    return _html(head, rows, notes, sentence(audit))


def scores_html(scores: "Scores") -> str:
    """Return scores as HTML: a row per class, or for objects a row per score, and notes."""
    notes = [f"{scores.voxels} voxels compared"]
    if scores.ignore is not None:
        notes.append(f"label {scores.ignore} of the ground truth left out")
    if scores.threshold is not None:
        notes.append(f"foreground above {scores.threshold:g}")
    if scores.trained_slices:
        spans = ", ".join(f"{start}:{stop}" for start, stop in scores.trained_slices)
        notes.append(f"the model was trained on slices {spans} of these")
    head, rows = score_rows(scores)
    return _html(head, rows, ["; ".join(notes), *scores.warnings])


def _html(
    head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], lead: str = ""
) -> str:
    template = Environment(autoescape=True).from_string(TEMPLATE)
    return template.render(head=head, rows=rows, notes=notes, lead=lead)


def save_figures(
    result: "Audit | Scores | Study | JsonObject",
    folder: str | Path,
    formats: Sequence[str] = ("svg", "pdf"),
) -> list[Path]:
    """Write every figure of a result for a paper: vector graphics, the same result the same bytes.

    Parameters
    ----------
    result
        An audit (``audit``, and ``window-1``, ... for the windows it kept), scores (``scores``), or
        a study, also as read from ``study.json`` (``finding``, ``steps``, ``effects``).
    folder
        Where to; made when missing. Files of these names are replaced.
    formats
        Any of ``svg``, ``pdf``, ``png``.

    Raises
    ------
    BadInputError
        If a format or the kind of result is unknown, or there is nothing to draw; nothing is
        written then.
    """
    unknown = [name for name in formats if f".{name}" not in METADATA]
    if unknown or not formats:
        found = repr(unknown[0]) if unknown else "empty"
        raise BadInputError(
            f"the format is {found}, expected any of svg, pdf and png; choose among these"
        )
    figures = dict(_figures(result))
    if not figures:
        raise BadInputError(
            "the study has nothing to draw, expected at least one finished cell; run it first"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {folder / f"{name}.{kind}": figures[name] for name in figures for kind in formats}
    for path, figure in paths.items():
        save_figure(figure, path)
    return list(paths)


def _figures(result: object) -> "Iterator[tuple[str, Figure]]":
    from evenslice.evidence.result import Audit
    from evenslice.labels.metrics import Scores

    if isinstance(result, Audit):
        yield "audit", audit_figure(result)
        for number, window in enumerate(result.views, 1):
            yield f"window-{number}", window_figure(window)
    elif isinstance(result, Scores):
        yield "scores", scores_figure(result)
    elif isinstance(result, Study | dict):
        for name, draw in STUDY_FIGURES.items():
            with suppress(BadInputError):  # this part has nothing to draw
                yield name, draw(Study.of(result))
    else:
        kind = type(result).__name__
        raise BadInputError(
            f"there are no figures of a {kind}, expected an audit, scores or a study; give one"
        )
