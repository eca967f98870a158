"""The demo, with fewer steps."""

import json

import pytest

from evenslice.cli import app as cli
from evenslice.report.page import write_demo_page
from evenslice.verbs import demo as demo_verb
from evenslice.verbs.demo import run_demo


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo_verb, "SHAPE", (12, 64, 64))
    monkeypatch.setattr(demo_verb, "CROP", 64)
    monkeypatch.setattr(demo_verb, "TILE", 32)
    monkeypatch.setattr(demo_verb, "WINDOWS", 8)


@pytest.mark.slow
def test_rows_and_page(small, tmp_path):
    result = run_demo(tmp_path, steps=2)
    rows = result.to_dict()["rows"]
    assert [row["init"] for row in rows] == ["rgb", "green", "mirror"]
    assert {"init", "dice", "shares", "mirror_index", "mirror_low", "mirror_high"} <= set(rows[0])
    assert max(abs(row["mirror_index"]) for row in rows[1:]) < abs(rows[0]["mirror_index"])
    write_demo_page(tmp_path / "report.html", result, "evenslice demo")
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png") >= 3 * 6
    assert str(tmp_path) not in page
    views = [view for row in result.rows for view in row.audit.views]
    assert len({view.origin for view in views}) * 3 == len(views)
    assert result.provenance["inputs"]["weights"]["terms"] == "Apache-2.0"
    assert views[0].truth is not None


def test_the_command_writes_everything_or_nothing(small, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(
        demo_verb.run_demo, "__kwdefaults__", demo_verb.run_demo.__kwdefaults__ | {"steps": 2}
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "shown"])
    assert stop.value.code == 0
    models = ["green.safetensors", "mirror.safetensors", "rgb.safetensors"]
    files = sorted(["demo.json", "membranes.tif", "phantom.tif", "report.html", *models])
    assert sorted(f.name for f in (tmp_path / "shown").iterdir()) == files
    assert json.loads((tmp_path / "shown" / "demo.json").read_text())["rows"][0]["init"] == "rgb"
    out, err = capfd.readouterr()
    assert "mirror index" in out
    assert "three networks" in err
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "shown"])
    assert stop.value.code == 2
    assert "shown exists" in capfd.readouterr().err
