"""The panel ``Audit``: does a model use the slices before and after alike, and where."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from evenslice.napari.layers import RESULT, LayerData, file_of, volume_of_layer
from evenslice.napari.panel import LayerField, Panel, ask, bind, plain
from evenslice.napari.work import Control
from evenslice.options import AuditOptions, JsonObject

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from evenslice.evidence.result import Audit
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evenslice.evidence.result import Audit
from evenslice.evidence.stats import Interval
from evenslice.evidence.window_view import WindowView
from evenslice.napari.layers import LazyArray, placed_like
from evenslice.report.verdict import DASH, confidence, fixed, interval, sanity_checks, slot_names
from evenslice.volume.array import Volume, Voxels, spans

if TYPE_CHECKING:
    from napari.layers import Layer


PLACES = "evenslice_places"
TOP = 99.5
BEFORE, CENTRE, AFTER = "magenta", "gray", "green"
ONE = "magma"
Shape = tuple[int, int, int]
Picture = tuple[Shape, Voxels]


class Pinned:
    """Pictures (y, x) pinned into an empty volume (z, y, x), each with its first pixel on a voxel.

    Where two overlap the larger value counts; what lies outside is cut off. ``empty`` is the value
    elsewhere; NaN is shown as nothing.
    """

    def __init__(self, shape: Shape, pictures: Sequence[Picture], empty: float) -> None:
        self.shape = shape
        self.dtype = np.result_type(*(picture for _, picture in pictures))
        self._empty = empty
        self._pictures = pictures

    def __getitem__(self, key: Any) -> Voxels:
        """Draw a box of it."""
        z, y, x = spans(key, self.shape)
        size = (z.stop - z.start, y.stop - y.start, x.stop - x.start)
        box = np.full(size, self._empty, self.dtype)
        for (at, top, left), picture in self._pictures:
            low, high = max(y.start, top), min(y.stop, top + picture.shape[0])
            west, east = max(x.start, left), min(x.stop, left + picture.shape[1])
            if z.start <= at < z.stop and low < high and west < east:
                plane = box[at - z.start, low - y.start : high - y.start]
                place = plane[:, west - x.start : east - x.start]
                part = picture[low - top : high - top, west - left : east - left]
                np.fmax(place, part, out=place)
        return box


def layers_of_audit(audit: Audit, layer: "Layer") -> list[LayerData]:
    """Return the maps of the windows that an audit kept, a layer per slot, and the predictions.

    Every map lies on the slices that its slot holds, and all have one contrast, so that brightness
    can be compared. ``layer`` is what was audited; the maps lie where it lies.
    """
    shape = (layer.data[0] if layer.multiscale else layer.data).shape
    mapped = [
        (view.origin, np.asarray(view.attribution, np.float32))
        for view in audit.views
        if view.attribution is not None
    ]
    found: list[LayerData] = []
    half = audit.slices // 2
    tops = {
        "apart": _top([maps for _, maps in mapped]),
        "together": _top([np.delete(maps, half, axis=0) for _, maps in mapped]),
    }
    for slot, name in enumerate(slot_names(audit.slices) if mapped else ()):
        places = {
            place: _pinned(shape, [((z + shift, y, x), maps[slot]) for (z, y, x), maps in mapped])
            for place, shift in (("apart", slot - half), ("together", 0))
        }
        attributes = {
            "name": f"importance of {name}",
            "contrast_limits": (0.0, tops["apart"]),
            "colormap": ONE,
            "blending": "translucent",
            "rgb": False,
            "metadata": {RESULT: "map", PLACES: {"offset": slot - half, "tops": tops, **places}},
        }
        found.append((places["apart"], attributes | placed_like(layer), "image"))
    return [*found, *_predictions(audit.views, shape, layer)]


def _top(maps: Sequence[NDArray[np.float32]]) -> float:
    """Return what is white in some maps: nearly all of their values lie below."""
    values = [one.ravel() for one in maps if one.size]
    return (float(np.percentile(np.concatenate(values), TOP)) if values else 0.0) or 1.0


def _pinned(shape: Shape, pictures: Sequence[Picture], empty: float = np.nan) -> LazyArray:
    return LazyArray(Volume(Pinned(shape, pictures, empty)))


def _predictions(views: Sequence[WindowView], shape: Shape, layer: "Layer") -> list[LayerData]:
    """Return what was predicted in the windows, hidden at first."""
    if not views:
        return []
    attributes = {"name": "prediction", "visible": False, "metadata": {RESULT: "prediction"}}
    attributes |= placed_like(layer)
    if any(view.numbered for view in views):
        numbers = [(view.origin, view.prediction.astype(np.uint16)) for view in views]
        return [(_pinned(shape, numbers, 0), attributes, "labels")]
    probabilities = [(view.origin, view.prediction.astype(np.float32)) for view in views]
    attributes |= {"contrast_limits": (0.0, 1.0), "rgb": False}
    return [(_pinned(shape, probabilities), attributes, "image")]


def show_together(layers: Sequence["Layer"], together: bool) -> None:
    """Lay the maps on the centre slice, or back on their own slices.

    On the centre slice earlier slots are magenta and later ones green: white where they are alike.
    """
    covered = False
    for layer in layers:
        places = layer.metadata.get(PLACES)
        if places is None:
            continue
        offset, place = places["offset"], "together" if together else "apart"
        colour = BEFORE if offset < 0 else AFTER if offset > 0 else CENTRE
        layer.data = places[place]
        layer.contrast_limits = (0.0, places["tops"][place])
        layer.colormap = colour if together else ONE
        layer.visible = not together or offset != 0
        layer.blending = "additive" if together and covered else "translucent"
        covered = covered or layer.visible


def table_of(audit: Audit) -> tuple[list[str], list[list[str]]]:
    """Return an audit as a table of texts: the head, and a row per method.

    Shares and the mirror index come with their intervals below them.
    """
    head = ["method", "mirror index", *slot_names(audit.slices), "verdict"]
    rows = [
        [name, _estimate(method.index), *map(_estimate, method.shares), method.verdict]
        for name, method in audit.methods.items()
    ]
    return head, rows


def _estimate(found: Interval | None) -> str:
    if found is None:
        return DASH
    return f"{fixed(found.value)}\n{interval(found.low, found.high)}"


def small_print(audit: Audit) -> str:
    """Say on what an audit rests: windows, blocks, intervals, sanity checks."""
    text = (
        f"{audit.windows} windows in {audit.clusters} blocks, "
        f"{confidence(audit.confidence)} intervals. {sanity_checks(audit)}."
    )
    if audit.trained_on:
        text += f" {audit.trained_on} of the windows lie on slices the model was trained on."
    return text


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

    def run(self) -> None:
        """Audit in a thread."""
        layer, labels = self.layer.layer, self.labels.layer
        try:
            volume = volume_of_layer(layer)
            ground_truth = None if labels is None else volume_of_layer(labels)
            model = self.chosen_model()
        except BadInputError as error:
            self.print_error(str(error))
            return
        if layer is None or model is None:
            return
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
            from evenslice.model.inputs import model_of, name_of
            from evenslice.verbs.audit import audit

            loaded = model_of(model["source"], None, model["mean"], model["std"], trust=True)
            options["label"] = name_of(model["source"])
            with control.watching(loaded.module):
                found = audit(loaded, volume, progress=control.progress, **options)
            control.check()
            return found, layers_of_audit(found, layer)

        self.start(task, lambda value: self.show_result(layer, *value))

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
        if not folder or (
            there and not ask(self, f"{folder} holds {' and '.join(there)}. Replace?")
        ):
            return
        audit, command = self.audit, self._command
        assert audit is not None  # the button is shown with a result

        def task(control: Control) -> Path:
            from evenslice.model.inputs import name_of
            from evenslice.report.page import write_audit_page
            from evenslice.volume.atomic import written_beside

            with written_beside(Path(folder, "audit.json")) as part:
                part.write_text(audit.to_json())
            page, (_, _, model, volume, *_) = Path(folder, "report.html"), command
            inputs = {"model": model, "volume": volume}
            write_audit_page(page, audit, name_of(model), inputs, shlex.join(command))
            return page

        self.start(task, lambda path: self.say(f"Wrote {path}"))
