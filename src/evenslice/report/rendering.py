"""Pages as one HTML file each: a template, its styles and its scripts, with every text from outside escaped."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, FunctionLoader
from markupsafe import Markup

from evenslice import __version__
from evenslice.errors import escape_control_chars
from evenslice.report.verdict import fixed, interval, short
from evenslice.volume.atomic import written_beside


def render_html(
    template: str,
    styles: Sequence[str],
    scripts: Sequence[str],
    values: Mapping[str, Any],
    filters: Mapping[str, Callable[..., Any]] | None = None,
) -> str:
    """Turn a template into a page that needs no other file and no network.

    Parameters
    ----------
    template
        A file of this package that extends ``layout.html``.
    styles, scripts
        Files of this package; the scripts are the only ones that a browser may run on the page.
    values
        What the template and ``layout.html`` show: ``title``, ``contents`` [(id, words)], ``command``, and if there are any
        ``intro``, ``partial``, ``verdicts`` [{``badge``, ``who``, ``what``, ``figures``}] and ``facts`` {name: value}.
    filters
        Filters of the template beside ``fixed`` and ``short``.

    Returns
    -------
    str
        The whole document. Every text that came from outside is escaped.
    """
    environment = Environment(
        loader=FunctionLoader(_file),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=ChainableUndefined,
        finalize=_fit,
    )
    environment.filters.update(fixed=fixed, short=short, **(filters or {}))
    environment.globals.update(interval=interval)
    script = "\n".join(_file(name).strip() for name in scripts)
    style = "\n".join(_file(name).strip() for name in ("layout.css", *styles))
    known = {
        "version": __version__,
        "style": Markup(style),
        "script": Markup(script),
        "script_hash": _hash(script),
    }
    return environment.get_template(template).render(known | dict(values))


def write_html(path: Path, text: str) -> None:
    """Write a page; one that was there before is replaced only once the new one is whole. Its folder is made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as part:
        part.write_bytes(text.encode("utf-8", errors="backslashreplace"))


def _fit(value: Any) -> Any:
    """Make a text that came from outside fit to be read; what the page draws itself stays."""
    return (
        escape_control_chars(value)
        if isinstance(value, str) and not isinstance(value, Markup)
        else value
    )


def _file(name: str) -> str:
    return resources.files("evenslice.report").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """Return the one script that the browser may run, as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
