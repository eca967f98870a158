"""What both panels share: a form, one task at a time, its progress, and a line of status.

All text is plain: names of files and layers are never taken as markup.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from magicgui.widgets import FileEdit
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from evenslice.errors import BadInputError, one_line
from evenslice.napari.layers import is_result
from evenslice.napari.work import Control, Outcome, attempt, load_verbs
from evenslice.options import JsonObject, Options
from evenslice.volume.voxel_size import numbers_of

if TYPE_CHECKING:
    from napari.components import LayerList
    from napari.layers import Layer
    from napari.viewer import Viewer
    from qtpy.QtGui import QCloseEvent

Task = Callable[[Control], Any]
Prepared = tuple[Task, Callable[[Any], None]]  # what to run, and what to do with its value
MODELS = "Models (*.safetensors *.pt2 *.onnx);;All files (*)"


def plain() -> QLabel:
    """Make a label that wraps and takes no text as markup."""
    label = QLabel()
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def ask(parent: QWidget, text: str) -> bool:
    """Ask a question that is answered by yes or no; no unless the user says yes."""
    box = QMessageBox(QMessageBox.Icon.Question, "evenslice", "", parent=parent)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(text)
    box.setStandardButtons(QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No)
    box.setDefaultButton(QMessageBox.StandardButton.No)
    return bool(box.exec() == QMessageBox.StandardButton.Yes)


def bind(field: QSpinBox | QDoubleSpinBox, options: type[Options], name: str) -> None:
    """Give a number field the least value, the default and the help of an option."""
    option = options.model_fields[name]
    least = next((one.ge for one in option.metadata if hasattr(one, "ge")), 0)
    field.setMinimum(least)
    field.setValue(option.default)
    field.setToolTip(option.description)


class LayerField(QComboBox):
    """The layers of one kind in the viewer, without those that evenslice made.

    ``none`` is the text for no layer; None where there must be one: it follows the selection then.
    """

    def __init__(self, layers: "LayerList", kind: type["Layer"], none: str | None = None) -> None:
        super().__init__()
        self._layers, self._kind, self._none = layers, kind, none
        names = ("inserted", "removed", "reordered", "renamed")
        followed = [(getattr(layers.events, name), self._fill) for name in names]
        if none is None:
            followed.append((layers.selection.events.active, self._follow))
        for event, callback in followed:
            event.connect(callback)
        self.destroyed.connect(partial(_disconnect, followed))
        self._fill()
        self._follow()

    def _fill(self, event: object = None) -> None:
        """List the layers, keeping the choice."""
        chosen = self.layer
        self.blockSignals(True)
        self.clear()
        if self._none is not None:
            self.addItem(self._none, None)
        for layer in self._layers:
            if type(layer) is self._kind and not is_result(layer):
                self.addItem(layer.name, layer)
        self._choose(chosen)
        self.blockSignals(False)

    def _follow(self, event: object = None) -> None:
        self._choose(self._layers.selection.active)

    def _choose(self, layer: "Layer | None") -> None:
        for number in range(self.count()):
            # Equal, not identical: napari may hand over a layer in a wrapper.
            if layer is not None and self.itemData(number) == layer:
                self.setCurrentIndex(number)

    @property
    def layer(self) -> "Layer | None":
        """The layer chosen, or None."""
        return self.currentData()


def _disconnect(followed: list[tuple[Any, Callable[..., None]]]) -> None:
    """Stop following a viewer that outlives the field."""
    for event, callback in followed:
        event.disconnect(callback)


class _ProgressSignal(QObject):
    """Carries progress from the worker thread to the one that draws."""

    step = Signal(str, int, int)


class Panel(QWidget):
    """A form and what runs it; ``verb`` is the text of the button."""

    def __init__(self, viewer: "Viewer", verb: str) -> None:
        super().__init__()
        from napari.layers import Image

        load_verbs()
        self.viewer = viewer
        self.control: Control | None = None
        self._on_value: Callable[[Any], None] | None = None
        self._progress = _ProgressSignal()
        self._progress.step.connect(self._show_progress)
        self.model = FileEdit(mode="r", filter=MODELS)
        self.model.tooltip = "model.safetensors, .pt2, .onnx or module:callable"
        self.layer = LayerField(viewer.layers, Image)
        self.mean, self.std = QLineEdit(), QLineEdit()
        self.form = QFormLayout()
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        self.form.addRow("Model", self.model.native)
        self.form.addRow("Volume", self.layer)
        self.run_button, self.cancel_button = QPushButton(verb), QPushButton("Cancel")
        self.run_button.clicked.connect(self.run)
        self.cancel_button.clicked.connect(self.cancel)
        self.cancel_button.setEnabled(False)
        self.bar, self.status = QProgressBar(), plain()
        self.bar.setVisible(False)
        self._arrange()

    def _arrange(self) -> None:
        body, area, outside = QWidget(), QScrollArea(), QVBoxLayout(self)
        self.column = QVBoxLayout(body)
        area.setWidgetResizable(True)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(body)
        outside.setContentsMargins(0, 0, 0, 0)
        outside.addWidget(area)
        self.setMinimumWidth(380)
        buttons = QHBoxLayout()
        buttons.addWidget(self.run_button)
        buttons.addWidget(self.cancel_button)
        self.column.addLayout(self.form)
        self.column.addLayout(buttons)
        self.column.addWidget(self.bar)
        self.column.addWidget(self.status)

    def run(self) -> None:
        """Check what was filled in and start; called by the button."""
        try:
            prepared = self.prepare()
        except BadInputError as error:
            self.print_error(str(error))
            return
        if prepared is not None:
            self.start(*prepared)

    def prepare(self) -> Prepared | None:
        """Return what to run and what to do with its value; None where the user does not want it.

        ``BadInputError`` if what was filled in cannot be used.
        """
        raise NotImplementedError

    def add_normalisation(self) -> None:
        """Add the lines for mean and std."""
        row, between = QHBoxLayout(), plain()
        between.setText("std")
        for field in (self.mean, between, self.std):
            row.addWidget(field)
        for line in (self.mean, self.std):
            line.setPlaceholderText("as the model says")
        self.form.addRow("Mean", row)

    def chosen_model(self) -> JsonObject | None:
        """Return the model's ``source``, ``mean``, ``std``; None if the user does not want it run.

        ``BadInputError`` if there is no model, or mean or std are no numbers.
        """
        from evenslice.model.source import form_of

        source = self.model.line_edit.value.strip()
        if not source:
            raise BadInputError(
                "no model was chosen, expected a file or module:callable; choose one"
            )
        code = f"{source} is code, or can hold code, that runs with your rights. Run it?"
        if form_of(source) in ("callable", "torch-export") and not ask(self, code):
            self.say("Not run.")
            return None
        lines = {"mean": self.mean.text().strip(), "std": self.std.text().strip()}
        numbers = {
            name: numbers_of(text, f"the {name}") if text else None for name, text in lines.items()
        }
        return {"source": source, **numbers}

    def start(self, task: Task, on_value: Callable[[Any], None]) -> None:
        """Run a task in a thread, then ``on_value`` with its value here; refused while one runs."""
        if self.control is not None:
            self.say("A task is running; wait for it or cancel it.")
            return
        self.control, self._on_value = Control(self._progress.step.emit), on_value
        self._set_busy(True)
        self.say("Starting …")
        worker = create_worker(attempt, self.control, task)
        worker.returned.connect(self._finish)
        self.destroyed.connect(self.control.stop)
        worker.start()

    def cancel(self) -> None:
        """Stop at the next step."""
        if self.control is not None:
            self.control.stop()
            self.say("Stopping …")

    def say(self, text: str) -> None:
        """Show one line of status."""
        self.status.setText(one_line(text))

    def print_error(self, text: str) -> None:
        """Show an error here and in napari, which may take tags for markup: none are left."""
        self.say(text)
        show_error("evenslice: " + one_line(text).replace("<", "‹").replace(">", "›"))

    def stopped(self) -> str:
        """Say what is left when the user stopped the task."""
        return "Cancelled; nothing was written."

    def closeEvent(self, event: "QCloseEvent") -> None:  # noqa: N802 (a name of Qt)
        """Stop what is running when the panel is closed."""
        self.cancel()
        super().closeEvent(event)

    def _finish(self, outcome: Outcome) -> None:
        on_value, self.control, self._on_value = self._on_value, None, None
        self._set_busy(False)
        if outcome.error is not None:
            self.print_error(outcome.error)
        elif outcome.stopped:
            self.say(self.stopped())
        elif on_value is not None:
            on_value(outcome.value)

    def _set_busy(self, busy: bool) -> None:
        self.run_button.setEnabled(not busy)
        self.cancel_button.setEnabled(busy)
        self.bar.setVisible(busy)
        self.bar.setRange(0, 0)

    def _show_progress(self, label: str, done: int, total: int) -> None:
        if self.control is None or self.control.is_stopping:
            return
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        self.say(f"{label}: {done} of {total}" if total else label)
