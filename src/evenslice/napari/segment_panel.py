"""The panel ``Segment``: a layer of any size, segmented block by block into a store that napari then shows."""

from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox

from evenslice.errors import BadInputError
from evenslice.napari.fields import PathField, ask, choose_store
from evenslice.napari.layers import file_of, placed_like, volume_of_layer
from evenslice.napari.panel import Panel
from evenslice.napari.stores import layers_of_store
from evenslice.napari.work import Control

INSTANCES = {
    "no objects": "none",
    "components": "components",
    "watershed (of boundaries)": "watershed",
}


class SegmentPanel(Panel):
    """Segments a layer with a model, and shows probabilities and labels."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer, "Segment")
        self.out = PathField("segmentation.zarr", choose_store)
        self.instances, self.threshold = QComboBox(), QDoubleSpinBox()
        self.instances.addItems(list(INSTANCES))
        self.threshold.setRange(0.0, 1.0)
        self.threshold.setSingleStep(0.05)
        self.threshold.setValue(0.5)
        self.both = QCheckBox("average each window with its reversal")
        rows = [
            ("Output", self.out),
            ("Objects", self.instances),
            ("Threshold", self.threshold),
            ("Directions", self.both),
        ]
        for title, field in rows:
            self.form.addRow(title, field)
        self.add_normalisation()
        self.column.addStretch()

    def run(self) -> None:
        """Segment in a thread."""
        layer = self.layer.layer
        try:
            if layer is None:
                raise BadInputError(
                    "there is no image layer, expected a greyscale volume; open one"
                )
            volume = volume_of_layer(layer)
            going = self._going_on()
        except BadInputError as error:
            self.print_error(str(error))
            return
        model = None if going is None else self.asked_model()
        if going is None or model is None:
            return
        out, options = Path(self.out.text), self._options() | going
        source = file_of(layer)

        def task(control: Control) -> Any:
            from evenslice.model.inputs import check_apart
            from evenslice.segmentation.run import segment

            check_apart(out, model["source"], source)
            done = segment(
                model["source"],
                volume,
                out,
                mean=model["mean"],
                std=model["std"],
                trust=True,
                progress=control.progress,
                **options,
            )
            return done, layers_of_store(out)

        self.start(task, lambda value: self.show_result(value[0], value[1], layer))

    def show_result(self, done: Any, layers: list[Any], layer: Any) -> None:
        """Show what was written, where the layer lies that it was made of."""
        from napari.layers import Layer

        for data, facts, kind in layers:
            if facts["name"] in self.viewer.layers:  # of the store that was replaced
                self.viewer.layers.remove(facts["name"])
            self.viewer.add_layer(Layer.create(data, facts | placed_like(layer), kind))
        counted = "" if done.objects is None else f" {done.objects} objects."
        self.say(
            f"Wrote {done.path}.{counted} {' '.join(f'Note: {note}.' for note in done.warnings)}"
        )

    def stopped(self) -> str:
        """Say whether the run can be gone on with."""
        if _work_folder(Path(self.out.text)).exists():
            return "Cancelled; what is done is kept: press Segment to go on."
        return "Cancelled; nothing was written."

    def _options(self) -> dict[str, Any]:
        return {
            "instances": INSTANCES[self.instances.currentText()],
            "threshold": self.threshold.value(),
            "tta": "reversal" if self.both.isChecked() else None,
        }

    def _going_on(self) -> dict[str, bool] | None:
        """Ask what to do about what is there under the name of the output; None for nothing."""
        if not self.out.text.endswith(".zarr"):
            raise BadInputError(
                f"the output is {self.out.text!r}, expected the name of a store ending in .zarr; choose one"
            )
        out = Path(self.out.text)
        if _work_folder(out).exists():
            if ask(self, f"An unfinished run for {out} is there. Go on with it?"):
                return {"resume": True}
        elif not out.exists():
            return {}
        elif ask(self, f"{out} exists. Replace it?"):
            return {"force": True}
        self.say("Not run: choose another output.")
        return None


def _work_folder(out: Path) -> Path:
    from evenslice.segmentation.options import work_folder

    return work_folder(out)
