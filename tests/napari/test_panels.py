"""The panels in a real viewer with real Qt: what a user presses, and what the panel shows."""

import json

import numpy as np
import pytest

for needed in ("pytestqt", "qtpy.QtWidgets", "napari.viewer"):
    pytest.importorskip(needed, reason="see the group ui", exc_type=ImportError)

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from evenslice.napari import audit_panel, panel, segment_panel
from evenslice.segmentation import run as segmenting
from evenslice.volume.array import Volume
from evenslice.volume.files import open_volume, save_volume

VOXEL = (50.0, 4.0, 4.0)
PATIENCE_MS = 120_000


@pytest.fixture
def volume_file(tmp_path, grey):
    path = tmp_path / "raw.tif"
    save_volume(path, Volume(np.concatenate([grey, grey[::-1]]), VOXEL))
    return path


@pytest.fixture
def shown(viewer, volume_file):
    """The viewer with a volume that the plug-in opened."""
    viewer.open(volume_file, plugin="evenslice")
    return viewer


def docked(viewer, name):
    return viewer.window.add_plugin_dock_widget("evenslice", name)[1]


def finished(qtbot, widget):
    qtbot.waitUntil(lambda: widget.control is None, timeout=PATIENCE_MS)


@pytest.fixture
def errors(monkeypatch):
    """What was shown where napari shows errors."""
    found = []
    monkeypatch.setattr(panel, "show_error", found.append)
    return found


@pytest.fixture
def answers(monkeypatch):
    """Answers to the questions that are asked, and the questions."""
    asked = {"answer": False, "questions": []}

    def ask(parent, text):
        asked["questions"].append(text)
        return asked["answer"]

    for place in (panel, audit_panel, segment_panel):
        monkeypatch.setattr(place, "ask", ask)
    return asked


def quick(widget, model, methods=("gradient",), windows=12):
    """Fill in an audit that takes a second."""
    widget.model.line_edit.value = str(model)
    widget.windows.setValue(windows)
    widget.tile.setValue(32)
    for item in map(widget.methods.item, range(widget.methods.count())):
        on = item.text() in methods
        item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)


def test_an_audit_from_the_button_to_the_report(
    qtbot, shown, model_file, tmp_path, monkeypatch, answers
):
    widget = docked(shown, "Audit")
    quick(widget, model_file, ("gradient", "ablation"))
    assert widget.layer.layer is shown.layers["raw.tif"]
    assert not widget.verdict.isVisibleTo(widget)
    qtbot.mouseClick(widget.run_button, Qt.MouseButton.LeftButton)
    assert not widget.run_button.isEnabled()
    finished(qtbot, widget)
    assert widget.run_button.isEnabled()
    verdict = "Asymmetric by gradient (mirror index -0."
    assert widget.verdict.text().startswith(verdict)
    assert [widget.table.item(row, 0).text() for row in range(2)] == ["ablation", "gradient"]
    assert widget.audit.windows == 12
    maps = [f"importance of {slot}" for slot in ("previous", "centre", "next")]
    assert [layer.name for layer in shown.layers] == ["raw.tif", *maps, "prediction"]
    z, y, x = widget.audit.views[0].origin
    assert shown.dims.point[0] == pytest.approx(z * VOXEL[0])
    seen = np.asarray(shown.layers[maps[1]].data[z])[y : y + 32, x : x + 32]
    np.testing.assert_array_equal(seen, widget.audit.views[0].attribution[1])
    layers = map(widget.layer.itemData, range(widget.layer.count()))
    assert [layer.name for layer in layers] == ["raw.tif"]

    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    widget.save()
    finished(qtbot, widget)
    assert json.loads((tmp_path / "audit.json").read_text())["verdict"] == "asymmetric"
    page = (tmp_path / "report.html").read_text()
    assert "--methods ablation,gradient" in page
    widget.save()  # there is one now, and the answer is no
    assert widget.control is None
    assert answers["questions"] == [f"{tmp_path} holds audit.json and report.html. Replace?"]


@pytest.mark.slow
def test_a_second_audit_replaces_the_maps_and_the_table_stays_plain(qtbot, shown, model_file):
    widget = docked(shown, "Audit")
    quick(widget, model_file)
    for _ in range(2):
        widget.together.setChecked(True)
        widget.run()
        finished(qtbot, widget)
    assert len(shown.layers) == 5
    assert [layer.visible for layer in shown.layers] == [True, True, False, True, False]
    for label in (widget.status, widget.verdict, widget.notes):
        assert label.textFormat() == Qt.TextFormat.PlainText


def test_an_audit_is_cancelled_and_nothing_is_shown(qtbot, shown, model_file):
    widget = docked(shown, "Audit")
    quick(widget, model_file, windows=60)
    reported = []
    widget._progress.step.connect(
        lambda label, done, total: (reported.append(done), widget.cancel()) if done == 1 else None
    )
    widget.run()
    widget.run()  # refused: one is running
    assert widget.status.text().startswith("A task is running")
    finished(qtbot, widget)
    assert widget.status.text() == "Cancelled; nothing was written."
    assert reported == [1]
    assert [layer.name for layer in shown.layers] == ["raw.tif"]
    assert widget.run_button.isEnabled()


def test_errors_are_one_plain_line_here_and_in_napari(qtbot, shown, model_file, errors, tmp_path):
    widget = docked(shown, "Audit")
    quick(widget, tmp_path / "<b>bold</b>.safetensors")
    widget.run()
    finished(qtbot, widget)
    assert "<b>bold</b>.safetensors does not exist" in widget.status.text()
    assert "\n" not in widget.status.text()
    assert "‹b›bold‹/b›.safetensors does not exist" in errors[0]
    assert "<" not in errors[0]
    widget.model.line_edit.value = "weights.pth"
    widget.run()
    assert "holds weights without a network" in widget.status.text()
    widget.model.line_edit.value = str(model_file)
    widget.mean.setText("grey")
    widget.run()
    assert widget.status.text().startswith("the mean is 'grey', expected one number")
    assert widget.control is None


def test_layers_that_are_no_volumes_are_refused(qtbot, viewer, model_file, errors):
    widget = docked(viewer, "Audit")
    quick(widget, model_file)
    widget.run()
    assert widget.status.text().startswith("there is no image layer")
    viewer.add_image(np.zeros((64, 64), np.uint8), name="flat")
    widget.run()
    assert widget.status.text().startswith("the layer 'flat' has the shape 64 x 64")
    viewer.add_image(np.zeros((2, 64, 64), np.uint8), name="thin")
    widget.run()
    finished(qtbot, widget)
    assert "2" in widget.status.text()
    assert len(errors) == 3


def test_code_is_run_only_when_the_user_says_so(qtbot, shown, answers, tmp_path, monkeypatch):
    (tmp_path / "their_plugin_network.py").write_text(
        "from pathlib import Path\nfrom torch import nn\nPath(__file__).with_name('ran').touch()\n"
        "def make():\n    return nn.Conv2d(3, 1, 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    widget = docked(shown, "Audit")
    quick(widget, "their_plugin_network:make")
    widget.run()
    assert (widget.control, widget.status.text()) == (None, "Not run.")
    assert "their_plugin_network:make is code" in answers["questions"][0]
    assert not (tmp_path / "ran").exists()
    answers["answer"] = True
    widget.run()
    finished(qtbot, widget)
    assert (tmp_path / "ran").exists()
    assert widget.status.text() == "Done."


def test_a_segmentation_is_cancelled_resumed_and_shown(
    qtbot, shown, model_file, tmp_path, answers, monkeypatch
):
    monkeypatch.setattr(segmenting, "WORTH_KEEPING_S", 0.0)
    widget, out = docked(shown, "Segment"), tmp_path / "seg.zarr"
    widget.model.line_edit.value = str(model_file)
    widget.out.line_edit.value = str(out)
    widget.instances.setCurrentText("components")
    stop = widget._progress.step.connect(
        lambda label, done, total: widget.cancel() if done == 1 else None
    )
    widget.run()
    finished(qtbot, widget)
    assert widget.status.text() == "Cancelled; finished blocks are kept: press Segment to resume."
    assert not out.exists()
    widget._progress.step.disconnect(stop)
    widget.run()
    assert widget.control is None  # asked, and the answer was no
    answers["answer"] = True
    widget.run()
    finished(qtbot, widget)
    assert widget.status.text().startswith(f"Wrote {out}. ")
    assert "Resume it?" in answers["questions"][-1]
    labels = shown.layers["seg labels"]
    written = open_volume(out / "labels" / "segmentation")
    np.testing.assert_array_equal(labels.data[2], written.slice_at(2))
    assert tuple(labels.scale) == VOXEL
    assert not shown.layers["seg probabilities"].visible
    widget.run()  # once more, over it: the layers are replaced
    finished(qtbot, widget)
    assert answers["questions"][-1] == f"{out} exists. Replace it?"
    assert len(shown.layers) == 3


@pytest.mark.slow
def test_a_layer_in_memory_is_segmented_where_it_lies(qtbot, viewer, model_file, tmp_path, grey):
    viewer.add_image(grey, scale=(0.05, 0.004, 0.004), units=("um",) * 3, translate=(1, 2, 3))
    widget, out = docked(viewer, "Segment"), tmp_path / "seg.zarr"
    widget.model.line_edit.value = str(model_file)
    widget.out.line_edit.value = str(out)
    widget.both.setChecked(True)
    widget.run()
    finished(qtbot, widget)
    assert open_volume(out / "labels" / "segmentation").voxel_nm == pytest.approx(VOXEL)
    np.testing.assert_allclose(
        viewer.layers["seg labels"].extent.world, viewer.layers[0].extent.world
    )


def test_an_output_that_is_read_or_no_store_is_refused(
    qtbot, shown, model_file, errors, answers, volume_file
):
    widget = docked(shown, "Segment")
    widget.model.line_edit.value = str(model_file)
    widget.out.line_edit.value = str(volume_file)
    widget.run()
    assert "expected the name of a store ending in .zarr" in widget.status.text()
    widget.out.line_edit.value = str(volume_file.parent / "none" / "o.zarr")
    widget.run()
    finished(qtbot, widget)
    assert "does not exist" in widget.status.text()
    assert len(errors) == 2


def test_closing_a_panel_stops_its_work_and_leaves_the_viewer_alone(qtbot, shown, model_file):
    widget = docked(shown, "Audit")
    quick(widget, model_file, windows=60)
    widget.run()
    control = widget.control
    shown.window.remove_dock_widget(widget)
    widget.deleteLater()
    qtbot.waitUntil(lambda: control.is_stopping, timeout=PATIENCE_MS)
    del widget
    qtbot.wait(50)
    shown.add_image(np.zeros((3, 8, 8), np.uint8))  # nothing follows any more
    assert len(shown.layers) == 2


def test_the_fields_follow_the_viewer(qtbot, viewer, grey):
    widget = docked(viewer, "Audit")
    assert (widget.tile.value(), widget.tile.minimum(), widget.windows.value()) == (256, 16, 0)
    assert docked(viewer, "Segment").threshold.value() == 0.5
    one, two = viewer.add_image(grey, name="one"), viewer.add_image(grey, name="two")
    assert widget.layer.layer is two
    viewer.layers.selection.active = one
    assert widget.layer.layer is one
    one.name = "another"
    assert widget.layer.currentText() == "another"
    viewer.layers.remove(one)
    assert widget.layer.layer is two
    viewer.add_labels(np.zeros(grey.shape, np.uint8), name="truth")
    assert widget.layer.layer is two
    assert [widget.labels.itemText(n) for n in range(widget.labels.count())] == ["none", "truth"]
    assert widget.labels.layer is None
