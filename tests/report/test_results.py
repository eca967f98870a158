"""The document of results holds what the studies found, and comes out the same each time."""

import csv
import importlib.util
import json
import runpy
from pathlib import Path

import pytest
from studies import NETWORKS, study

from evenslice.errors import BadInputError
from evenslice.report.verdict import QUESTIONS, claim_badge, fixed, signed, signed_interval
from evenslice.study.results import Study

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "results.py"


@pytest.fixture(scope="module")
def results():
    spec = importlib.util.spec_from_file_location("results", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kept(found, folder):
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps(found), encoding="utf-8")
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, list(dict.fromkeys(key for row in found["rows"] for key in row))
        )
        writer.writeheader()
        writer.writerows(found["rows"])
    return folder


@pytest.fixture(scope="module")
def found():
    return study(NETWORKS[:1], seeds=2, treatments=("rgb", "green", "mean"), five=False, pending=2)


@pytest.fixture(scope="module")
def written(results, found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    other = study(
        NETWORKS[1:2], ("VNC",), seeds=1, treatments=("rgb", "green"), five=False, verdict="no"
    ) | {"name": "Other | one"}
    folders = [kept(found, folder / "small"), kept(other, folder / "other")]
    results.main(folders, folder / "results.md")
    return folder, folders


def lines_of(text, head):
    part = text.partition(f"### {head}\n")[2].partition("\n### ")[0]
    return [line for line in part.splitlines() if line.startswith("|")]


def test_the_document_says_the_claims_the_commands_and_how_it_was_written(written, found):
    text = (written[0] / "results.md").read_text(encoding="utf-8")
    for claim in Study.of(found).claims:
        asked, said = QUESTIONS[claim.name], claim_badge(claim).word
        assert f"- small: **{asked}** Yes. {claim.sentence}" in text
        assert f"| {asked} | {said} | {claim.sentence} |" in text
    assert "** No. " in text
    made = "Made by `evenslice study studies/small.toml --out small`."
    assert f"{made} This study is not finished" in text
    assert f"{found['done']} of {found['cells']} cells are done, 2 pending." in text
    assert "Written by `python docs/results.py small other docs/results.md`" in text
    assert str(written[0]) not in text


def test_every_number_is_in_a_table_and_all_lines_have_their_columns(written, found):
    text = (written[0] / "results.md").read_text(encoding="utf-8").partition("## Other")[0]
    for one in (*found["lean"], *found["comparisons"]):
        ends = signed_interval(one["low"], one["high"])
        assert f"| {signed(one['value'])} ({ends}) |" in text
    rows = lines_of(text, "Every cell")
    good = [row for row in found["rows"] if not row["failure"]]
    assert len(rows) == len(good) + 2
    for line, row in zip(rows[2:], good, strict=True):
        assert f"| {row['dataset']} | {row['seed']} | {fixed(row['dice'])} |" in line
    heads = ("The claims", "The asymmetry, before and after training", "Compared with rgb")
    for head in (*heads, "Accuracy", "Every cell"):
        counts = {line.replace("\\|", "").count("|") for line in lines_of(text, head)}
        assert len(counts) == 1, head
    accuracy = lines_of(text, "Accuracy")
    assert sum(line.split("|")[4].count(".") for line in accuracy) == len(good)


def test_figures_are_named_and_all_comes_out_the_same_each_time(results, written, tmp_path):
    text = (written[0] / "results.md").read_text(encoding="utf-8")
    names = [path.name for path in written[0].glob("*.svg")]
    assert len(names) == 8 and all(f"]({name})" in text for name in names)
    results.main(written[1][1:], tmp_path / "results.md")
    for path in tmp_path.glob("*.svg"):
        assert path.read_bytes() == (written[0] / path.name).read_bytes(), path.name
    alone, both = (
        (folder / "results.md").read_text(encoding="utf-8") for folder in (tmp_path, written[0])
    )
    assert alone.partition("## Other")[2] == both.partition("## Other")[2] != ""


def test_names_cannot_break_the_tables(results):
    assert results.text("a|b_c*d <e>") == "a|b\\_c\\*d &lt;e&gt;"
    assert results.table(("x",), [("a|b\nc",)]) == "| x |\n| --- |\n| a\\|b c |"
    assert results.slug("Small: ISBI 2012!") == "small-isbi-2012"


def test_a_study_without_comparisons_has_no_such_figure(results, found, tmp_path):
    folder = kept(found | {"comparisons": [], "curves": []}, tmp_path / "small")
    (tmp_path / "results-small-effects.svg").write_text("of before")
    results.main([folder], tmp_path / "results.md")
    assert (tmp_path / "results.md").read_text(encoding="utf-8").count("Nothing to draw yet.") == 3
    assert [path.name for path in tmp_path.glob("*.svg")] == ["results-small-finding.svg"]


def test_what_cannot_be_read_is_said_in_a_line(results, found, tmp_path):
    with pytest.raises(
        BadInputError,
        match=r"study\.json cannot be read, expected the folder of a study; run the study",
    ):
        results.main([tmp_path], tmp_path / "results.md")
    folder = kept(found, tmp_path / "small")
    with pytest.raises(BadInputError, match="two of the studies have one name"):
        results.main([folder, folder], tmp_path / "results.md")
    rows = (folder / "rows.csv").read_text(encoding="utf-8").splitlines()
    (folder / "rows.csv").write_text("\n".join(rows[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="expected as many; run the study again"):
        results.main([folder], tmp_path / "results.md")
    assert not (tmp_path / "results.md").exists()


def test_the_script_ends_with_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for words, said in (
        (["small", "other"], r"usage: python docs/results\.py STUDY_DIR"),
        (["nowhere", "results.md"], r"results\.py: error: .*study\.json cannot be read"),
    ):
        monkeypatch.setattr("sys.argv", ["docs/results.py", *words])
        with pytest.raises(SystemExit, match=said):
            runpy.run_path(str(SCRIPT), run_name="__main__")
