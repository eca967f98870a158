"""The site builds without a warning, loads nothing from elsewhere, and lists every option."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from docs.blocks import REPOSITORY
from evenslice.cli.app import VERBS, app_of

ASKS = re.compile(
    r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\"'>\s]+", re.IGNORECASE
)
SHEETS = re.compile(
    r"<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preconnect|icon))[^>]*\bhref=[\"']?(?:https?:)?//[^>]*>"
)


def reference():
    spec = importlib.util.spec_from_file_location(
        "cli_reference", REPOSITORY / "docs" / "cli_reference.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.reference()


def commands(group, name="evenslice"):
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def test_the_reference_names_every_command_and_every_option():
    text = reference()
    for name, command in commands(typer.main.get_command(app_of(*VERBS))):
        part = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert command.help.split("\n")[0] in part
        for parameter in command.params:
            word = (
                parameter.opts[-1] if parameter.param_type_name == "option" else parameter.metavar
            )
            assert f"| `{word}` |" in part, (name, word)
    assert (
        "| `--margin` | number | Mirror pairs within +-margin count as symmetric. | `0.05` |"
        in text
    )
    assert all(row.count("|") in (4, 5) for row in text.splitlines() if row.startswith("|"))


def test_what_asks_for_something_is_seen():
    assert ASKS.search('<script async src="https://cdn.example/x.js">')
    assert SHEETS.search('<link rel="stylesheet" href="//fonts.example/css">')
    assert not ASKS.search('<script src="assets/x.js">')
    assert not SHEETS.search('<link rel="stylesheet" href="assets/x.css">')


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_nobody(tmp_path):
    pytest.importorskip("mkdocs", reason="the group docs is not installed (make docs)")
    pytest.importorskip("material", reason="the group docs is not installed (make docs)")
    pytest.importorskip("mkdocstrings", reason="the group docs is not installed (make docs)")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text()
        assert not ASKS.search(text), page
        assert not SHEETS.search(text), page
    assert "evenslice audit" in (tmp_path / "site" / "reference" / "cli" / "index.html").read_text()
    assert "uniform_stem" in (tmp_path / "site" / "reference" / "api" / "index.html").read_text()
    assert not [
        f
        for f in Path(tmp_path / "site").rglob("*.css")
        if re.search(r"url\([\"']?https?:", f.read_text())
    ]
