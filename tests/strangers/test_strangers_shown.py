"""Texts of strangers, such as names of files, layers and labels: shown on terminals and pages, never obeyed."""

import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from offers import put

from evenslice.cli import app as cli
from evenslice.cli.output import print_error, warn
from evenslice.errors import escape_control_chars, one_line
from evenslice.evidence.window_view import Look
from evenslice.labels.metrics import scores_of
from evenslice.report.page import Page, Row, render
from evenslice.report.segmentation_page import write_segmentation_page
from evenslice.report.study_page import write_study_page
from evenslice.report.tables import print_inspected, print_scores, print_segmented, print_study
from evenslice.report.terminal import Terminal, say
from evenslice.report.training_page import write_training_page
from evenslice.segmentation.run import Segmented
from evenslice.verbs.export_bioimageio import readme
from evenslice.verbs.export_options import Label
from evenslice.verbs.inspect import Inspected
from evenslice.verbs.train import Trained
from evenslice.volume.array import Volume
from verbs.scenes import blurring

TEXTS = {
    "html: a script": "<script>alert(1)</script>",
    "html: the end of the styles": "</style></title></textarea><script src=//evil.example></script>",
    "html: an end of the script": "</script><script>alert(1)</script>",
    "html: quotes": "\"' onload=alert(1) x='",
    "html: a picture": "<img src=x onerror=alert(1)>",
    "html: an address": "javascript:alert(1)",
    "html: a frame": "<iframe srcdoc='<script>alert(1)</script>'>",
    "html: a drawing": "<svg onload=alert(1)><use href='data:x'/>",
    "html: the end of a comment": "--><script>alert(1)</script>",
    "html: entities": "&lt;script&gt;&#60;script&#62;",
    "template": "{{ 7 * 7 }}{% include '/etc/passwd' %}",
    "markup: of rich": "[red]x[/] [/nothing] [link=javascript:x]y[/link] :bomb:",
    "control: clear the screen": "a\x1b[2Jb",
    "control: title of the window": "a\x1b]0;evil\x07b",
    "control: a link": "\x1b]8;;https://evil.example\x1b\\here\x1b]8;;\x1b\\",
    "control: in 8 bits": "a\x9b2Jb",
    "control: back to the start": "all is well\revil",
    "control: backspaces": "evil\b\b\b\bgood",
    "control: NUL": "a\0b",
    "control: delete": "a\x7fb",
    "unicode: right to left": "a\u202egnp.exe",
    "unicode: isolates": "a\u2067b\u2069",
    "unicode: no width": "a\u200b\u2060\ufeffb",
    "unicode: a line that is none": "a\u2028evenslice: error: b",
    "unicode: half a character": "a\udcffb",
    "unicode: tags": "a\U000e0041b",
}
EVERY = pytest.mark.parametrize("case", TEXTS)
FIRST = (
    "html: the end of the styles",
    "html: quotes",
    "control: clear the screen",
    "unicode: right to left",
    "unicode: half a character",
)
SOME = pytest.mark.parametrize(
    "case",
    [case if case in FIRST else pytest.param(case, marks=pytest.mark.slow) for case in TEXTS],
)
UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


class Reader(HTMLParser):
    """What a browser makes of a page: its tags, and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def check_page(html, text, scripts=1):
    read = Reader(html)
    assert UNFIT.search(html) is None
    assert [tag for tag, _ in read.tags].count("script") == scripts
    assert not {tag for tag, _ in read.tags} & {"iframe", "object", "embed", "base", "link"}
    for _, attributes in read.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "srcdoc"]
        for name in ("href", "src", "action", "formaction"):
            assert re.match(
                r"#|data:image/png;|https://arxiv\.org/abs/2505\.14105$|$",
                attributes.get(name) or "",
            )
    assert " ".join(escape_control_chars(text).split()) in " ".join(
        read.text.split()
    )  # shown as what it is


def look_of(label):
    slices = np.zeros((3, 8, 8), np.uint8)
    return Look(label, (1, 0, 0), slices, slices.astype(np.float32), slices[0], None, None)


def audit_of(text):
    measured = {
        "shares": [0.3, 0.4, 0.3],
        "mirror_index": 0.0,
        "mirror_low": 0.0,
        "mirror_high": 0.0,
        "verdict": text,
    }
    return {
        "slices": 3, "verdict": text, "methods": {text: measured}, "stems": [{"module": text, "kind": text, "norms": [1, 1, 1]}],
        "normalisation": {"uniform": True, "mean": text, "std": 1, "source": text}, "reversal": {},
        "checks": {text: {"value": 1, "tolerance": text, "passed": None, "reason": text}},
        "latin": {text: {"verdict": text, "shares": [0.3]}}, "region": text, "windows": text, "confidence": 0.95,
    }  # fmt: skip


@EVERY
def test_the_page_of_an_audit(case):
    text = TEXTS[case]
    page = Page(
        text,
        [Row(text, audit_of(text), note=text)],
        [look_of(text)] * (case in FIRST),
        {text: text},
        text,
        text,
    )
    check_page(render(page), text)


@SOME
def test_the_page_of_a_segmentation(tmp_path, case):
    text = TEXTS[case]
    result = Segmented(Path(text.replace("/", "")), True, 1, warnings=(text,), blank={1: [2]})
    write_segmentation_page(
        tmp_path / "p.html", result, [look_of(text)], {"model": text, text: text}, text
    )
    check_page((tmp_path / "p.html").read_text(), text)


@SOME
def test_the_page_of_a_training(tmp_path, case):
    text = TEXTS[case]
    put(tmp_path / "log.csv", b"steps,loss,lr,dice\n1,1,1,\n")
    model = SimpleNamespace(
        training={"target": text, "recipe": {"encoder": text}},
        certificate=None,
        provenance={"versions": {text: text}},
    )
    scores = scores_of(np.array([[9, 1], [1, 9]]))
    trained = Trained(
        model, scores, Path("m"), Path("l"), tmp_path / "log.csv", ({"steps": 1},), (look_of(text),)
    )
    write_training_page(tmp_path / "p.html", trained, {text: text}, text)
    check_page((tmp_path / "p.html").read_text(), text)


def study_of(text):
    row = {
        "treatment": text,
        "network": text,
        "dataset": text,
        "seed": 1,
        "failure": text,
        "dice": None,
        "target": text,
    }
    lean = {
        "treatment": text,
        "network": text,
        "when": "after",
        "value": 0.1,
        "low": 0.0,
        "high": 0.2,
        "n": 3,
    }
    return {
        "name": text,
        "title": text,
        "rows": [row],
        "lean": [lean],
        "claims": [{"sentence": text, "name": text}],
        "cells": 1,
    }


@SOME
def test_the_page_of_a_study(tmp_path, case):
    text = TEXTS[case]
    write_study_page(tmp_path / "p.html", study_of(text), text)
    check_page((tmp_path / "p.html").read_text(), text)


def check_terminal(out, text):
    assert UNFIT.search(out) is None
    plain = "".join(escape_control_chars(text).split())
    assert plain in "".join(re.sub(r"[\u2500-\u257f]", "", out).split())


@EVERY
def test_tables_and_lines(monkeypatch, capsys, case):
    text = TEXTS[case]
    monkeypatch.setenv("COLUMNS", "400")
    volume = Volume(np.zeros((2, 2, 2), np.uint8), None, text, facts={text: text})
    for show, wanted in (
        (lambda: print_inspected(Inspected(None, (), volume, None)), text),
        (lambda: print_scores(scores_of(np.array([[9, 1], [1, 9]])), text), text),
        (lambda: print_segmented(Segmented(Path(text), True, 1)), str(Path(text))),
        (lambda: print_study(study_of(text)), text),
        (lambda: say(text), text),
        (lambda: print_error(text), one_line(text)),
        (lambda: warn(text), one_line(text)),
    ):
        show()
        check_terminal("".join(capsys.readouterr()), wanted)


@pytest.mark.parametrize("case", [case for case in TEXTS if "\0" not in TEXTS[case]])
@pytest.mark.parametrize(
    "command",
    [
        "inspect",
        pytest.param("audit", marks=pytest.mark.slow),
        pytest.param("segment", marks=pytest.mark.slow),
    ],
)
def test_names_on_the_command_line(tmp_path, monkeypatch, capsys, case, command):
    monkeypatch.chdir(tmp_path)
    name = TEXTS[case] + ".onnx"
    with pytest.raises(SystemExit) as ended:
        cli.main(
            [command, name]
            + ["v.tif"] * (command != "inspect")
            + ["o.zarr"] * (command == "segment")
        )
    out, error = capsys.readouterr()
    assert ended.value.code == 2 and out == ""
    assert error.count("\n") == 1 and error.startswith("evenslice: error: ")
    assert UNFIT.search(error) is None
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_keeps_its_own_colours(capsys):
    Terminal(force_terminal=True, color_system="standard").print(
        "[red]x\x1b[2J[/]", highlight=False
    )
    assert capsys.readouterr().out == "\x1b[31mx\\x1b[2J\x1b[0m\n"


@EVERY
def test_the_readme_of_a_package(case):
    text = TEXTS[case]
    about = {
        "certificate": {
            "tolerance": {"float32": 1e-5},
            "symmetric": True,
            "float32": 0.0,
            "random_windows": 4,
        }
    }
    about |= {
        "stem": {"init": "green", "tie": "none"},
        "export": {"tta_in_graph": "none", "evenslice": "1"},
    }
    model = blurring().with_facts(training={"volume": text + "\n# Evil"})
    found = readme(model, about, Label(name="a network"))
    assert UNFIT.search(found) is None and "<script" not in found and "\n# Evil" not in found
    assert found.count("\n- volume: ") == 1


def test_what_is_fit_to_be_read_stays():
    for text in ("Zürich 5 µm – naïve “quotes” 日本語 ‍👩‍🔬 العربية\tx\ny", "a" * 10**5):
        assert escape_control_chars(text) == text
