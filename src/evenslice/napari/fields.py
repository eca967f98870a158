"""What the user fills in: a model, a layer, a line of output; all text is plain."""

from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QWidget,
)

from evenslice.napari.layers import is_result

MODELS = "Models (*.safetensors *.pt2 *.onnx);;All files (*)"


def plain(text: str = "") -> QLabel:
    """Make a label that wraps and takes no text as markup."""
    label = QLabel()
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setText(text)
    return label


def ask(parent: QWidget, text: str) -> bool:
    """Ask a question that is answered by yes or no; no unless the user says yes."""
    box = QMessageBox(QMessageBox.Icon.Question, "evenslice", "", parent=parent)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(text)
    box.setStandardButtons(QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No)
    box.setDefaultButton(QMessageBox.StandardButton.No)
    return bool(box.exec() == QMessageBox.StandardButton.Yes)


class PathField(QWidget):
    """A line of text and a button that fills it from a file dialog.

    Parameters
    ----------
    hint
        Shown while it is empty.
    choose
        Asks the user for a path; returns an empty text for none.
    """

    def __init__(self, hint: str, choose: Callable[[QWidget], str]) -> None:
        super().__init__()
        self.line, self._choose = QLineEdit(), choose
        self.line.setPlaceholderText(hint)
        button = QPushButton("…")
        button.setFixedWidth(32)
        button.setToolTip("Choose a file")
        button.clicked.connect(self._browse)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.line)
        row.addWidget(button)

    def _browse(self) -> None:
        found = self._choose(self)
        if found:
            self.line.setText(found)

    @property
    def text(self) -> str:
        """What was filled in."""
        return str(self.line.text()).strip()


def choose_model(parent: QWidget) -> str:
    """Ask for a model file."""
    return str(QFileDialog.getOpenFileName(parent, "Choose a model", "", MODELS)[0])


def choose_store(parent: QWidget) -> str:
    """Ask for a store to write."""
    found = str(
        QFileDialog.getSaveFileName(parent, "Write to", "segmentation.zarr", "OME-Zarr (*.zarr)")[0]
    )
    return found if not found or found.endswith(".zarr") else f"{found}.zarr"


class LayerField(QComboBox):
    """The layers of one kind, kept up to date with the viewer; what evenslice made of them is left out.

    Parameters
    ----------
    layers
        The viewer's list.
    kind
        Class of the layers.
    none
        Text for no layer; None where there must be one. Where there must be one, it follows the selection in the viewer.
    """

    def __init__(self, layers: Any, kind: Any, none: str | None = None) -> None:
        super().__init__()
        self._layers, self._kind, self._none = layers, kind, none
        events = layers.events
        followed = [
            (event, self._fill)
            for event in (events.inserted, events.removed, events.reordered, events.renamed)
        ]
        if none is None:
            followed.append((layers.selection.events.active, self._follow))
        for event, callback in followed:
            event.connect(callback)
        self.destroyed.connect(partial(_forget, followed))
        self._fill()
        self._follow()

    def _fill(self, event: Any = None) -> None:
        """List the layers anew, keeping the choice."""
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

    def _follow(self, event: Any = None) -> None:
        self._choose(self._layers.selection.active)

    def _choose(self, layer: Any) -> None:
        for number in range(self.count()):
            if (
                layer is not None and self.itemData(number) == layer
            ):  # which napari may hand over in a wrapper
                self.setCurrentIndex(number)

    @property
    def layer(self) -> Any:
        """The layer chosen, or None."""
        return self.currentData()


def _forget(followed: list[tuple[Any, Callable[..., None]]]) -> None:
    """Stop following a viewer that outlives the field."""
    for event, callback in followed:
        event.disconnect(callback)
