"""The panel ``Segment``: a layer segmented by blocks into a store that napari shows."""

from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import FileEdit
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox

from evenslice.errors import BadInputError
from evenslice.napari.layers import LayerData, file_of, placed_like, volume_of_layer
from evenslice.napari.panel import Panel, Prepared, ask, bind
from evenslice.napari.reading import layers_of_store
from evenslice.napari.work import Control
from evenslice.options import JsonObject, SegmentOptions

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from evenslice.segmentation.result import Segmented

INSTANCES = {
    "no objects": "none",
    "components": "components",
    "watershed (of boundaries)": "watershed",
}


class SegmentPanel(Panel):
    """Segments a layer with a model, and shows probabilities and labels."""

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer, "Segment")
        self.out = FileEdit(mode="w", filter="OME-Zarr (*.zarr)")
        self.instances, self.threshold = QComboBox(), QDoubleSpinBox()
        self.instances.addItems(list(INSTANCES))
        self.threshold.setMaximum(1.0)
        self.threshold.setSingleStep(0.05)
        bind(self.threshold, SegmentOptions, "threshold")
        self.both = QCheckBox("average each window with its reversal")
        self.form.addRow("Output", self.out.native)
        self.form.addRow("Objects", self.instances)
        self.form.addRow("Threshold", self.threshold)
        self.form.addRow("Directions", self.both)
        self.add_normalisation()
        self.column.addStretch()

    @property
    def out_path(self) -> Path:
        """The store to write."""
        return Path(self.out.line_edit.value.strip())

    def prepare(self) -> Prepared | None:
        """Prepare the segmentation of the layer."""
        layer, out = self.layer.layer, self.out_path
        volume = volume_of_layer(layer)
        existing = self._choose_existing()
        model = None if existing is None else self.chosen_model()
        if layer is None or existing is None or model is None:
            return None
        source = file_of(layer)
        options: JsonObject = {
            "instances": INSTANCES[self.instances.currentText()],
            "threshold": self.threshold.value(),
            "tta": "reversal" if self.both.isChecked() else None,
            "mean": model["mean"],
            "std": model["std"],
            "trust": True,
            **existing,
        }

        def task(control: Control) -> tuple["Segmented", list[LayerData]]:
            from evenslice.segmentation.run import segment
            from evenslice.volume.inputs import check_apart

            check_apart(out, model["source"], source)
            done = segment(model["source"], volume, out, progress=control.progress, **options)
            return done, layers_of_store(out)

        return task, lambda value: self.show_result(layer, *value)

    def show_result(self, layer: "Layer", done: "Segmented", layers: list[LayerData]) -> None:
        """Show what was written, where the layer lies that it was made of."""
        from napari.layers import Layer

        for data, attributes, kind in layers:
            if attributes["name"] in self.viewer.layers:  # of the store that was replaced
                self.viewer.layers.remove(attributes["name"])
            self.viewer.add_layer(Layer.create(data, attributes | placed_like(layer), kind))
        counted = "" if done.objects is None else f" {done.objects} objects."
        notes = " ".join(f"Note: {note}." for note in done.warnings)
        self.say(f"Wrote {done.path}.{counted} {notes}")

    def stopped(self) -> str:
        """Say whether the run can be resumed."""
        if _work_folder(self.out_path).exists():
            return "Cancelled; finished blocks are kept: press Segment to resume."
        return super().stopped()

    def _choose_existing(self) -> dict[str, bool] | None:
        """Ask what to do about an output that exists; None for nothing."""
        out = self.out_path
        if out.suffix != ".zarr":
            raise BadInputError(
                f"the output is {str(out)!r}, expected the name of a store ending in .zarr; "
                "choose one"
            )
        if _work_folder(out).exists():
            if ask(self, f"An interrupted run for {out} is there. Resume it?"):
                return {"resume": True}
        elif not out.exists():
            return {}
        elif ask(self, f"{out} exists. Replace it?"):
            return {"force": True}
        self.say("Not run: choose another output.")
        return None


def _work_folder(out: Path) -> Path:
    from evenslice.segmentation.blocks import work_folder

    return work_folder(out)
