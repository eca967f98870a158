"""The panel ``Audit``: does a model use the slices before and after alike, and where."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

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

from evenslice.napari.layers import RESULT, LayerData, file_of, volume_of_layer
from evenslice.napari.maps import layers_of_audit, show_together, small_print, table_of
from evenslice.napari.panel import LayerField, Panel, Prepared, ask, bind, plain
from evenslice.napari.work import Control
from evenslice.options import AuditOptions, JsonObject

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from evenslice.evidence.result import Audit

WINDOW_PX = 480  # of the canvas, for the side of a window that is shown
STANDARD = ("ablation", "ablation-copy", "shapley", "gradient", "integrated-gradients")
ON_REQUEST = ("input-x-gradient", "smoothgrad")


class AuditPanel(Panel):
    """Audits a model on a layer; shows the verdict, the shares, and a map of each slot."""

    def __init__(self, napari_viewer: "Viewer") -> None:
        from napari.layers import Labels

        super().__init__(napari_viewer, "Audit")
        self.labels = LayerField(napari_viewer.layers, Labels, none="none")
        self.windows, self.tile, self.shown = QSpinBox(), QSpinBox(), QSpinBox()
        self.windows.setRange(0, 10000)
        self.windows.setSpecialValueText("auto")
        self.windows.setToolTip(AuditOptions.model_fields["windows"].description)
        self.tile.setMaximum(4096)
        bind(self.tile, AuditOptions, "tile")
        self.shown.setRange(1, 64)
        self.shown.setValue(3)
        self.methods = QListWidget()
        self.methods.setFixedHeight(104)
        for name in (*STANDARD, *ON_REQUEST):
            standard = Qt.CheckState.Checked if name in STANDARD else Qt.CheckState.Unchecked
            QListWidgetItem(name, self.methods).setCheckState(standard)
        self.form.addRow("Ground truth", self.labels)
        self.form.addRow("Windows", self.windows)
        self.form.addRow("Tile (pixels)", self.tile)
        self.form.addRow("Windows to map", self.shown)
        self.form.addRow("Methods", self.methods)
        self.add_normalisation()
        self._add_results()
        self.audit: Audit | None = None
        self.audited: Layer | None = None
        self._command: list[str] = []

    def _add_results(self) -> None:
        self.verdict, self.notes, self.table = plain(), plain(), QTableWidget()
        font = self.verdict.font()
        font.setBold(True)
        self.verdict.setFont(font)
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
        shown_below = (self.verdict, self.table, self.notes, self.window_list, self.together)
        self.results = (*shown_below, self.save_button)
        for part in self.results:
            self.column.addWidget(part)
            part.setVisible(False)
        self.column.addStretch()

    def chosen_methods(self) -> list[str] | None:
        """Return the methods ticked; None for the standard ones, as far as a model allows them."""
        items = [self.methods.item(row) for row in range(self.methods.count())]
        chosen = [item.text() for item in items if item.checkState() == Qt.CheckState.Checked]
        return None if tuple(chosen) == STANDARD else chosen

    def prepare(self) -> Prepared | None:
        """Prepare the audit of the layer."""
        layer, labels = self.layer.layer, self.labels.layer
        volume = volume_of_layer(layer)
        ground_truth = None if labels is None else volume_of_layer(labels)
        model = self.chosen_model()
        if layer is None or model is None:
            return None
        options: JsonObject = {
            "labels": ground_truth,
            "methods": self.chosen_methods(),
            "windows": self.windows.value() or "auto",
            "tile": self.tile.value(),
            "views": self.shown.value(),
        }
        words = ["audit", model["source"], file_of(layer) or layer.name]
        words += ["--windows", options["windows"], "--tile", options["tile"]]
        if options["methods"] is not None:
            words += ["--methods", ",".join(options["methods"])]
        self._command = ["evenslice", *map(str, words)]

        def task(control: Control) -> tuple["Audit", list[LayerData]]:
            from evenslice.model.opening import model_of, name_of
            from evenslice.verbs.audit import audit

            given = {key: model[key] for key in ("mean", "std")}
            loaded = model_of(model["source"], trust=True, **given)
            options["label"] = name_of(model["source"])
            with control.watching(loaded.module):
                found = audit(loaded, volume, progress=control.progress, **options)
            control.check()
            return found, layers_of_audit(found, layer)

        return task, lambda value: self.show_result(layer, *value)

    def show_result(self, layer: "Layer", audit: "Audit", maps: list[LayerData]) -> None:
        """Show an audit: the verdict, the table, and its maps in place of those before."""
        from napari.layers import Layer

        from evenslice.report.verdict import sentence

        self.audit, self.audited = audit, layer
        self.say("Done.")
        self.verdict.setText(sentence(audit))
        self.notes.setText(small_print(audit))
        self._fill_table(*table_of(audit))
        for old in list(self.viewer.layers):
            if old.metadata.get(RESULT) in ("map", "prediction"):
                self.viewer.layers.remove(old)
        for one in maps:
            self.viewer.add_layer(Layer.create(*one))
        show_together(self.viewer.layers, self.together.isChecked())
        self.viewer.layers.selection.active = layer
        self.window_list.clear()
        for number, view in enumerate(audit.views, start=1):
            z, y, x = view.origin
            self.window_list.addItem(f"Window {number}: slice {z}, y {y}, x {x}")
        for part in self.results:
            part.setVisible(True)
        self.go_to(0)

    def go_to(self, number: int) -> None:
        """Show a window that was mapped: its centre slice, in the middle."""
        if self.audit is None or self.audited is None or not self.audit.views:
            return
        view, layer = self.audit.views[number], self.audited
        z, y, x = view.origin
        height, width = view.slices.shape[1:]
        world = layer.data_to_world((z, y + height / 2, x + width / 2))
        self.viewer.dims.set_point(range(len(world)), world)
        camera = getattr(self.viewer, "scene", self.viewer).camera  # of the scene since napari 0.9
        camera.center = world
        camera.zoom = WINDOW_PX / max(height * layer.scale[-2], width * layer.scale[-1])

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
        title = "Folder for audit.json and report.html"
        folder = str(QFileDialog.getExistingDirectory(self, title))
        there = [name for name in ("audit.json", "report.html") if Path(folder, name).exists()]
        question = f"{folder} holds {' and '.join(there)}. Replace?"
        if not folder or (there and not ask(self, question)):
            return
        audit, command = self.audit, self._command
        assert audit is not None  # the button is shown with a result

        def task(control: Control) -> Path:
            from evenslice.model.opening import name_of
            from evenslice.report.page import write_audit_page
            from evenslice.volume.atomic import written_beside

            with written_beside(Path(folder, "audit.json")) as part:
                part.write_text(audit.to_json())
            page, (_, _, model, volume, *_) = Path(folder, "report.html"), command
            inputs = {"model": model, "volume": volume}
            write_audit_page(page, audit, name_of(model), inputs, shlex.join(command))
            return page

        self.start(task, lambda path: self.say(f"Wrote {path}"))
