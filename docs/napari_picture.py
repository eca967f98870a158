"""Make the picture of the plug-in: an audit of the demo's phantom in napari. Needs a screen.

evenslice demo evenslice-demo && python docs/napari_picture.py evenslice-demo docs/napari.png
"""

import sys
import time
from pathlib import Path

from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

import napari
from evenslice.napari.audit_panel import STANDARD

SIZE = (1440, 900)
COLOURS = 128
METHODS = ("ablation", "ablation-copy", "gradient")
CheckState = Qt.CheckState


def main(folder: Path, out: Path) -> None:
    """Audit the asymmetric model of the demo, as a user would, and draw the window."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    viewer.open(folder / "phantom.tif", plugin="evenslice")
    _, panel = viewer.window.add_plugin_dock_widget("evenslice", "Audit")
    panel.model.line_edit.value = str(folder / "rgb.safetensors")
    panel.tile.setValue(96)
    panel.windows.setValue(12)
    for row, name in enumerate(STANDARD):
        panel.methods.item(row).setCheckState(
            CheckState.Checked if name in METHODS else CheckState.Unchecked
        )
    panel.run_button.click()
    while panel.control is not None:
        QApplication.processEvents()
        time.sleep(0.02)
    panel.go_to(0)
    for _ in range(50):
        QApplication.processEvents()
        time.sleep(0.02)
    viewer.screenshot(str(out), canvas_only=False, flash=False)
    Image.open(out).convert("RGB").quantize(COLOURS).save(out, optimize=True)
    viewer.close()


if __name__ == "__main__":
    main(
        Path(sys.argv[1] if len(sys.argv) > 1 else "evenslice-demo"),
        Path(sys.argv[2] if len(sys.argv) > 2 else "docs/napari.png"),
    )
