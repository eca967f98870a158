"""The panel ``Audit``: does a model look at the slices before and after alike, and where."""

import shlex
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSpinBox,
    QTableWidget,
    QTableWidgetItem,
)

from evenslice.errors import BadInputError
from evenslice.napari.fields import LayerField, ask, plain
from evenslice.napari.layers import file_of, volume_of_layer
from evenslice.napari.maps import layers_of_audit, show_together, small_print, table_of
from evenslice.napari.panel import Panel
from evenslice.napari.work import Control

AUTO = "auto"
WINDOW_PX = 480  # of the canvas, for the side of a window that is shown
STANDARD = ("ablation", "ablation-copy", "shapley", "gradient", "integrated-gradients")
ON_REQUEST = ("input-x-gradient", "smoothgrad")


class AuditPanel(Panel):
    """Audits a model on a layer; shows the verdict, the shares, and a map of each slot."""

    def __init__(self, napari_viewer: Any) -> None:
        from napari.layers import Labels

        super().__init__(napari_viewer, "Audit")
        self.labels = LayerField(napari_viewer.layers, Labels, none="none")
        self.windows, self.tile, self.shown = QSpinBox(), QSpinBox(), QSpinBox()
        self.windows.setRange(0, 10000)
        self.windows.setSpecialValueText("as many as it takes")
        self.tile.setRange(16, 4096)
        self.tile.setValue(256)
        self.shown.setRange(1, 64)
        self.shown.setValue(3)
        self.methods = QListWidget()
        self.methods.setFixedHeight(104)
        for name in (*STANDARD, *ON_REQUEST):
            item = QListWidgetItem(name, self.methods)
            item.setCheckState(
                Qt.CheckState.Checked if name in STANDARD else Qt.CheckState.Unchecked
            )
        rows = [("Truth", self.labels), ("Windows", self.windows), ("Tile (pixels)", self.tile)]
        for title, field in [*rows, ("Windows to map", self.shown), ("Methods", self.methods)]:
            self.form.addRow(title, field)
        self.add_normalisation()
        self._add_results()
        self.audit: Any = None
        self.audited: Any = None
        self._asked: dict[str, Any] = {}

    def _add_results(self) -> None:
        self.verdict, self.notes = plain(), plain()
        font = self.verdict.font()
        font.setBold(True)
        self.verdict.setFont(font)
        self.table = QTableWidget()
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.verticalHeader().setVisible(False)
        self.window_list, self.together = QComboBox(), QCheckBox("All maps on the centre slice")
        self.together.setToolTip(
            "Earlier slots magenta, later ones green; white where they count alike"
        )
        self.save_button = QPushButton("Save report …")
        self.window_list.activated.connect(self.go_to)
        self.together.toggled.connect(lambda on: show_together(self.viewer.layers, on))
        self.save_button.clicked.connect(self.save)
        self.results = (
            self.verdict,
            self.table,
            self.notes,
            self.window_list,
            self.together,
            self.save_button,
        )
        for part in self.results:
            self.column.addWidget(part)
            part.setVisible(False)
        self.column.addStretch()

    def chosen_methods(self) -> list[str] | None:
        """Return the methods ticked; None for the standard ones, as far as a model allows them."""
        items = [self.methods.item(row) for row in range(self.methods.count())]
        chosen = [item.text() for item in items if item.checkState() == Qt.CheckState.Checked]
        return None if tuple(chosen) == STANDARD else chosen

    def run(self) -> None:
        """Audit in a thread."""
        layer, labels = self.layer.layer, self.labels.layer
        try:
            if layer is None:
                raise BadInputError(
                    "there is no image layer, expected a greyscale volume; open one"
                )
            volume = volume_of_layer(layer)
            truth = None if labels is None else volume_of_layer(labels)
        except BadInputError as error:
            self.print_error(str(error))
            return
        model = self.asked_model()
        if model is None:
            return
        options = {
            "labels": truth,
            "methods": self.chosen_methods(),
            "windows": self.windows.value() or AUTO,
            "tile": self.tile.value(),
            "views": self.shown.value(),
        }
        self._asked = {"model": model["source"], "volume": file_of(layer) or layer.name, **options}

        def task(control: Control) -> Any:
            from evenslice.model.inputs import model_of, name_of
            from evenslice.verbs.audit import audit

            loaded = model_of(model["source"], None, model["mean"], model["std"], trust=True)
            with control.watching(loaded.module):
                found = audit(
                    loaded,
                    volume,
                    **options,
                    label=name_of(model["source"]),
                    progress=control.progress,
                )
            control.check()
            return found, layers_of_audit(found, layer)

        self.start(task, lambda value: self.show_result(value[0], value[1], layer))

    def show_result(self, audit: Any, maps: list[Any], layer: Any) -> None:
        """Show an audit: the verdict, the table, the maps, which take the place of those of the audit before."""
        from napari.layers import Layer

        from evenslice.report.verdict import sentence

        self.audit, self.audited = audit, layer
        self.say("Done.")
        self.verdict.setText(sentence(audit))
        self.notes.setText(small_print(audit))
        self._fill_table(*table_of(audit))
        for old in [
            one
            for one in self.viewer.layers
            if one.metadata.get("evenslice_result") in ("map", "prediction")
        ]:
            self.viewer.layers.remove(old)
        for data, facts, kind in maps:
            self.viewer.add_layer(Layer.create(data, facts, kind))
        show_together(self.viewer.layers, self.together.isChecked())
        self.viewer.layers.selection.active = layer
        self.window_list.clear()
        for number, look in enumerate(audit.views, start=1):
            z, y, x = look.origin
            self.window_list.addItem(f"Window {number}: slice {z}, y {y}, x {x}")
        for part in self.results:
            part.setVisible(True)
        self.go_to(0)

    def go_to(self, number: int) -> None:
        """Show a window that was mapped: its centre slice, in the middle."""
        if not self.audit.views:
            return
        look = self.audit.views[number]
        z, y, x = look.origin
        layer = self.audited
        middle = (z, y + look.slices.shape[1] / 2, x + look.slices.shape[2] / 2)
        world = layer.data_to_world(middle)
        self.viewer.dims.set_point(range(len(world)), world)
        camera = getattr(self.viewer, "scene", self.viewer).camera  # of the scene since napari 0.9
        camera.center = world
        side = max(look.slices.shape[1] * layer.scale[-2], look.slices.shape[2] * layer.scale[-1])
        camera.zoom = WINDOW_PX / side

    def _fill_table(self, head: list[str], rows: list[list[str]]) -> None:
        self.table.setColumnCount(len(head))
        self.table.setHorizontalHeaderLabels(head)
        self.table.setRowCount(len(rows))
        for row, cells in enumerate(rows):
            for column, text in enumerate(cells):
                self.table.setItem(row, column, QTableWidgetItem(text))
        self.table.resizeColumnsToContents()
        self.table.resizeRowsToContents()
        height = sum(self.table.rowHeight(row) for row in range(len(rows)))
        self.table.setFixedHeight(height + self.table.horizontalHeader().height() + 24)

    def save(self) -> None:
        """Write audit.json and report.html into a folder that the user chooses."""
        folder = str(
            QFileDialog.getExistingDirectory(self, "Folder for audit.json and report.html")
        )
        if not folder:
            return
        there = [name for name in ("audit.json", "report.html") if Path(folder, name).exists()]
        if there and not ask(self, f"{folder} holds {' and '.join(there)}. Replace?"):
            return
        audit, asked = self.audit, dict(self._asked)

        def task(control: Control) -> Path:
            from evenslice.model.inputs import name_of
            from evenslice.report.page import write_audit_page
            from evenslice.volume.atomic import written_beside

            with written_beside(Path(folder, "audit.json")) as part:
                part.write_text(audit.to_json())
            facts = {"model": str(asked["model"]), "volume": str(asked["volume"])}
            write_audit_page(
                Path(folder, "report.html"), audit, name_of(asked["model"]), facts, _command(asked)
            )
            return Path(folder, "report.html")

        self.start(task, lambda path: self.say(f"Wrote {path}"))


def _command(asked: dict[str, Any]) -> str:
    """Return the command that makes the same audit again, given the same files."""
    words = ["evenslice", "audit", asked["model"], asked["volume"]]
    words += ["--windows", asked["windows"], "--tile", asked["tile"]]
    if asked["methods"] is not None:
        words += ["--methods", ",".join(asked["methods"])]
    return shlex.join(map(str, words))
