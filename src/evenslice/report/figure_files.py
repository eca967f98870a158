"""All figures of a result as files for a paper: vector graphics, the same result gives the same bytes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenslice.errors import BadInputError
from evenslice.evidence.result import Audit
from evenslice.labels.metrics import Scores
from evenslice.report.audit_figures import audit_figure, scores_figure, window_figure
from evenslice.report.figure_style import ENDINGS, save_figure
from evenslice.report.figures import effects_figure, finding_figure, steps_figure
from evenslice.study.run import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STUDY_FIGURES = {"finding": finding_figure, "steps": steps_figure, "effects": effects_figure}


def save_figures(
    result: Audit | Scores | Study | Mapping[str, Any],
    folder: str | Path,
    formats: Sequence[str] = ("svg", "pdf"),
) -> list[Path]:
    """Write every figure of a result.

    Parameters
    ----------
    result
        An audit (``audit``, and ``window-1``, ... for the windows it kept: ``audit(..., looks=3)``), scores (``scores``), or a
        study, also as read from ``study.json`` (``finding``, ``steps``, ``effects``, as far as there is something to draw).
    folder
        Where to; made when missing. Files of these names are replaced.
    formats
        Any of ``svg``, ``pdf``, ``png``.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    BadInputError
        If a format or the kind of result is unknown, or there is nothing to draw; nothing is written then.
    """
    unknown = [name for name in formats if f".{name}" not in ENDINGS]
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
    paths = []
    for name, figure in figures.items():
        for kind in formats:
            paths.append(folder / f"{name}.{kind}")
            save_figure(figure, paths[-1])
    return paths


def _figures(result: Any) -> "Iterator[tuple[str, Figure]]":
    if isinstance(result, Audit):
        yield "audit", audit_figure(result)
        for number, look in enumerate(result.looks, 1):
            yield f"window-{number}", window_figure(look)
    elif isinstance(result, Scores):
        yield "scores", scores_figure(result)
    elif isinstance(result, Study | Mapping):
        study = result.to_dict() if isinstance(result, Study) else result
        for name, draw in STUDY_FIGURES.items():
            try:
                yield name, draw(study)
            except BadInputError:  # this part has nothing to draw
                continue
    else:
        raise BadInputError(
            f"there are no figures of a {type(result).__name__}, expected an audit, scores or a study; give one"
        )
