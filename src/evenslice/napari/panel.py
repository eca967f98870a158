"""What both panels share: a form above; run, cancel, progress and one line of news below; one piece of work at a time."""

from collections.abc import Callable
from typing import Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from evenslice.errors import BadInputError, one_line
from evenslice.napari.fields import LayerField, PathField, ask, choose_model, plain
from evenslice.napari.loading import load_verbs
from evenslice.napari.work import Control, Outcome, attempt, numbers


class _Teller(QObject):
    """Carries progress from the thread that works to the one that draws."""

    told = Signal(str, int, int)


class Panel(QWidget):
    """A form and what runs it.

    Parameters
    ----------
    viewer
        Of napari.
    verb
        Text of the button that runs it.
    """

    def __init__(self, viewer: Any, verb: str) -> None:
        super().__init__()
        from napari.layers import Image

        load_verbs()
        self.viewer = viewer
        self.control: Control | None = None
        self._ended: Callable[[Any], None] | None = None
        self._teller = _Teller()
        self._teller.told.connect(self._show_progress)
        self.model = PathField("model.safetensors, .pt2, .onnx or module:callable", choose_model)
        self.layer = LayerField(viewer.layers, Image)
        self.mean, self.std = QLineEdit(), QLineEdit()
        for line in (self.mean, self.std):
            line.setPlaceholderText("as the model says")
        self.form = QFormLayout()
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        self.form.addRow("Model", self.model)
        self.form.addRow("Volume", self.layer)
        self.run_button, self.cancel_button = QPushButton(verb), QPushButton("Cancel")
        self.run_button.clicked.connect(self.run)
        self.cancel_button.clicked.connect(self.cancel)
        self.cancel_button.setEnabled(False)
        self.bar, self.news = QProgressBar(), plain()
        self.bar.setVisible(False)
        body, area = QWidget(), QScrollArea()
        self.column = QVBoxLayout(body)
        area.setWidgetResizable(True)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(body)
        outside = QVBoxLayout(self)
        outside.setContentsMargins(0, 0, 0, 0)
        outside.addWidget(area)
        self.setMinimumWidth(380)
        self.column.addLayout(self.form)
        row = QHBoxLayout()
        row.addWidget(self.run_button)
        row.addWidget(self.cancel_button)
        self.column.addLayout(row)
        self.column.addWidget(self.bar)
        self.column.addWidget(self.news)

    def run(self) -> None:
        """Check what was filled in and start; called by the button."""
        raise NotImplementedError

    def add_normalisation(self) -> None:
        """Add the lines for mean and std."""
        row = QHBoxLayout()
        row.addWidget(self.mean)
        row.addWidget(plain("std"))
        row.addWidget(self.std)
        self.form.addRow("Mean", row)

    def asked_model(self) -> dict[str, Any] | None:
        """Return the model's name, mean and std; None, with a line of news, where there is none or the user does not want it run."""
        from evenslice.model.external import form_of

        source = self.model.text
        try:
            if not source:
                raise BadInputError(
                    "no model was chosen, expected a file or module:callable; choose one"
                )
            if form_of(source) in ("callable", "torch-export") and not ask(
                self, f"{source} is code, or can hold code, that runs with your rights. Run it?"
            ):
                self.say("Not run.")
                return None
            return {
                "source": source,
                "mean": numbers(self.mean.text(), "the mean"),
                "std": numbers(self.std.text(), "the std"),
            }
        except BadInputError as error:
            self.print_error(str(error))
            return None

    def start(self, task: Callable[[Control], Any], ended: Callable[[Any], None]) -> None:
        """Do a piece of work in a thread, then ``ended`` with its value here; refused while another one runs."""
        if self.control is not None:
            self.say("One piece of work is running; wait for it or cancel it.")
            return
        self.control, self._ended = Control(self._teller.told.emit), ended
        self._busy(True)
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
        """Show one line of news."""
        self.news.setText(one_line(text))

    def print_error(self, text: str) -> None:
        """Show an error here and where napari shows errors, which may take tags for markup: there are none left."""
        self.say(text)
        show_error("evenslice: " + one_line(text).replace("<", "‹").replace(">", "›"))

    def stopped(self) -> str:
        """Say what is left when the user stopped the work."""
        return "Cancelled; nothing was written."

    def closeEvent(self, event: Any) -> None:  # noqa: N802 (a name of Qt)
        """Stop what is running when the panel is closed."""
        self.cancel()
        super().closeEvent(event)

    def _finish(self, outcome: Outcome) -> None:
        ended, self.control, self._ended = self._ended, None, None
        self._busy(False)
        if outcome.error is not None:
            self.print_error(outcome.error)
        elif outcome.stopped:
            self.say(self.stopped())
        elif ended is not None:
            ended(outcome.value)

    def _busy(self, busy: bool) -> None:
        self.run_button.setEnabled(not busy)
        self.cancel_button.setEnabled(busy)
        self.bar.setVisible(busy)
        self.bar.setRange(0, 0)

    def _show_progress(self, label: str, done: int, total: int) -> None:
        if self.control is None or self.control.asked:
            return
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        self.say(f"{label}: {done} of {total}")
