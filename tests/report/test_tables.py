"""What the terminal shows: all numbers, and text as it is."""

from pathlib import Path

import numpy as np
import pytest
from made_audits import audit_of, method_of, scores_of
from studies import NETWORKS, study
from test_notebook import objects

from evenslice.evidence.certificate import Certificate
from evenslice.evidence.stats import Interval
from evenslice.report import verdict
from evenslice.report.tables import (
    certificate_text,
    estimate,
    print_audit,
    print_inspected,
    print_scores,
    print_segmented,
    print_study,
    say,
)
from evenslice.report.verdict import fixed, signed, signed_interval
from evenslice.segmentation.result import Segmented
from evenslice.study.results import Study
from evenslice.verbs.inspect import Inspected
from evenslice.volume.array import Volume


@pytest.fixture
def shown(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    return lambda: capsys.readouterr().out


def test_an_audit_is_shown_with_its_checks(shown, leaning):
    print_audit(leaning)
    out = shown()
    assert out.startswith("Asymmetric by gradient ")
    for method in leaning.methods.values():
        assert estimate(method.index) in out
    assert "Sanity checks failed (agreement): the result is unreliable" in out
    assert "stem norms" in out and "not made" in out and "FAILED" in out
    print_audit(audit_of({"gradient": method_of((1.0,), 0.0, "abstained")}, checks={}))
    assert "Sanity checks passed" in shown()


@pytest.mark.parametrize("made", [scores_of, objects], ids=["classes", "objects"])
def test_scores(shown, made):
    scores = made()
    print_scores(scores, "[red]title[/red]")
    out = shown()
    assert "[red]title[/red]" in out and f"{scores.iou:.3f}" in out


def test_volumes_and_names_are_shown_as_they_are(shown):
    name = "[red]x[/]\x1b[2J :bomb:"
    volume = Volume(np.zeros((2, 3, 4), np.uint8), (30.0, 6.0, 6.0), name, facts={name: name})
    source = {"name": name, "bytes": None, "sha256": None}
    provenance = {"inputs": {"volume": source}}
    print_inspected(Inspected(None, (), volume, None, (0, 7), provenance))
    out = shown()
    assert "2 x 3 x 4" in out and "30 x 6 x 6 nm" in out and "0 to 7" in out
    say(name)
    for text in (out, shown()):
        assert "[red]x[/]\\x1b[2J :bomb:" in text


def test_a_shard_says_what_is_left(shown):
    print_segmented(Segmented(Path("o.zarr"), False, 8, blocks_left=3))
    assert "3 of 8 blocks are left to other shards" in shown()
    print_segmented(Segmented(Path("o.zarr"), True, 8, objects=5, blank={"4": [3], "9": []}))
    assert "4 (shown: 3); 9" in shown()


def test_certificates_and_estimates():
    found = Certificate(1e-7, 1e-16, True, 4, 2, 64, 0)
    text = "1.0e-07 in float32, 1.0e-16 in float64 (relative, 6 windows): symmetric"
    assert certificate_text(found) == text
    assert estimate(Interval(0.1, 0.05, 0.15)) == "+0.1000 (+0.0500, +0.1500)"
    assert estimate(Interval(0.1, float("nan"), float("nan"))) == "+0.1000"
    assert estimate(None) == "-"


def test_a_study_is_shown_with_its_claims_and_a_line_per_treatment_and_network(shown):
    found = study(NETWORKS[:2], seeds=2, five=False, pending=6)
    record = Study.of(found)
    print_study(record)
    out = shown()
    assert f"{verdict.QUESTIONS[record.claims[0].name]} " in out
    assert record.claims[2].sentence in out
    for one in record.lean:
        if one.when == "after":
            assert f"{signed(one.value)} ({signed_interval(one.low, one.high)})" in out
    lines = [line for line in out.splitlines() if line.startswith("│ ")]
    assert len(lines) == len(record.lean) // 2
    scores = [cell.dice for cell in record.finished if cell.treatment == "green"]
    every = next(line for line in lines if line.split("│")[1].strip() == "green")
    assert f" {fixed(min(scores))} to {fixed(max(scores))} │ {len(scores)} " in every
    assert "This study is not finished" in out
    assert "failed: unet resnet18, mean, ISBI 2012, foreground, seed 0: out of GPU memory" in out
    print_study(Study())
    assert shown() == ""
