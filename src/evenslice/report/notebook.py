"""What a notebook shows of an audit and of scores: a sentence and a small table; every word is escaped."""

from collections.abc import Iterable, Sequence
from html import escape as escaped
from typing import TYPE_CHECKING

from evenslice.errors import escape_control_chars
from evenslice.report.audit_figures import audit_figure, scores_figure
from evenslice.report.score_rows import score_rows
from evenslice.report.verdict import sentence, slot_names

if TYPE_CHECKING:
    from evenslice.evidence.result import Audit
    from evenslice.evidence.stats import Interval
    from evenslice.labels.metrics import Scores

__all__ = ["audit_figure", "audit_html", "scores_figure", "scores_html"]


def audit_html(audit: "Audit") -> str:
    """Return an audit as HTML: the verdict in a sentence, a row a method, how much was looked at, and what to doubt."""
    head = ("method", *slot_names(audit.slices), "mirror index", "verdict")
    rows = [
        (
            name,
            *(f"{share.value:.3f}" for share in method.shares),
            _interval(method.index),
            method.verdict,
        )
        for name, method in audit.methods.items()
    ]
    failed = audit.believed["failed"]
    notes = [
        f"{audit.windows} windows of {audit.tile[0]} x {audit.tile[1]} in {audit.clusters} blocks, seed {audit.seed}"
    ]
    notes += (
        [f"lag of the prediction: {_interval(audit.lag)} slices"] if audit.lag is not None else []
    )
    notes += [f"Do not believe this audit: {', '.join(failed)} failed"] if failed else []
    return f"<p>{_escape(sentence(audit.to_dict()))}</p>{_table(head, rows)}{_small(notes)}"


def scores_html(scores: "Scores") -> str:
    """Return scores as HTML: a row a class, or for objects a row a score; what was left out, and what to know."""
    notes = [f"{scores.voxels} voxels compared"]
    notes += [f"label {scores.ignore} of the truth left out"] if scores.ignore is not None else []
    notes += [f"foreground above {scores.threshold:g}"] if scores.threshold is not None else []
    spans = ", ".join(f"{start}:{stop}" for start, stop in scores.trained_slices)
    notes += [f"the model was trained on slices {spans} of these"] if spans else []
    return f"{_table(*score_rows(scores))}{_small(['; '.join(notes), *scores.warnings])}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{_escape(word)}</th>" for word in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{_escape(word)}</td>" for word in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _small(notes: Iterable[str]) -> str:
    return "".join(f"<p><small>{_escape(note)}</small></p>" for note in notes)


def _escape(text: str) -> str:
    return escaped(escape_control_chars(text))


def _interval(interval: "Interval | None") -> str:
    if interval is None:
        return "-"
    if interval.low != interval.low:
        return f"{interval.value:+.3f}"
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
