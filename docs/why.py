"""Make the figures of docs/why.md: our own phantom, seen by the models of the demo and a fixed one.

evenslice demo evenslice-demo && python docs/why.py evenslice-demo docs
"""

import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from evenslice import fix, load_model, open_volume

CENTRE = 54  # a slice that neither model was trained on
NAMES = ("previous slice", "slice to segment", "next slice")
CHANNELS = ("red", "green", "blue")
CUT = 0.5


def picture(columns: int, rows: int = 1) -> tuple[plt.Figure, np.ndarray]:
    """Return a figure of square pictures without axes."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.4 * columns, 2.55 * rows), layout="constrained"
    )
    figure.get_layout_engine().set(h_pad=0.08)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure, axes


def window_figure(window: np.ndarray, out: Path) -> None:
    """Draw three slices, and the colour image that they make for the network."""
    figure, axes = picture(4)
    low, high = window.min(), window.max()
    for slot, axis in enumerate(axes[:3]):
        axis.imshow(window[slot], cmap="gray", vmin=low, vmax=high)
        axis.set_title(NAMES[slot])
        axis.set_xlabel(f"goes in as {CHANNELS[slot]}", color=CHANNELS[slot])
    axes[3].imshow((np.moveaxis(window, 0, -1) - low) / (high - low))
    axes[3].set_title("what the network sees")
    figure.savefig(out, dpi=100)


def turned_figure(window: np.ndarray, folder: Path, out: Path) -> None:
    """Draw what each model predicts, and where it differs when the stack is turned over."""
    with tempfile.TemporaryDirectory() as work:
        fixed = Path(work, "fixed.safetensors")
        fix(folder / "rgb.safetensors", fixed, volume=folder / "phantom.tif")
        files = {
            "rgb stem": folder / "rgb.safetensors",
            "green stem": folder / "green.safetensors",
            "rgb, fixed": fixed,
        }
        models = {name: load_model(file) for name, file in files.items()}
    figure, axes = picture(4, len(models))
    for row, (name, model) in enumerate(models.items()):
        there, reversed_output = (probability(model, one) for one in (window, window[::-1]))
        differs = (there > CUT) != (reversed_output > CUT)
        for axis, image, title in zip(
            axes[row],
            (there, reversed_output),
            ("stack in order", "stack turned over"),
            strict=False,
        ):
            axis.imshow(image, cmap="gray_r", vmin=0, vmax=1)
            axis.set_title(title)
        axes[row, 2].imshow(np.abs(there - reversed_output), cmap="magma", vmin=0, vmax=0.5)
        axes[row, 2].set_title(f"change, {np.abs(there - reversed_output).mean():.3f} on average")
        axes[row, 3].imshow(window[1], cmap="gray")
        axes[row, 3].imshow(np.ma.masked_equal(differs, False), cmap="autumn", vmin=0, vmax=1)
        axes[row, 3].set_title(f"{100 * differs.mean():.1f} % of pixels flip")
        axes[row, 0].set_ylabel(name, fontsize=12)
    figure.savefig(out, dpi=100)


@torch.inference_mode()
def probability(model: object, window: np.ndarray) -> np.ndarray:
    """Return the probability of membrane for the centre slice of a window (S, y, x)."""
    normal = model.normalisation
    image = (np.ascontiguousarray(window, np.float32) - normal.mean[0]) / normal.std[0]
    return torch.sigmoid(model.module.eval()(torch.from_numpy(image)[None]))[0, 0].numpy()


def main(folder: Path, out: Path) -> None:
    """Write both figures."""
    window = np.asarray(open_volume(folder / "phantom.tif").pixels[CENTRE - 1 : CENTRE + 2])
    window_figure(window, out / "why-window.png")
    turned_figure(window, folder, out / "why-turned.png")


if __name__ == "__main__":
    main(
        Path(sys.argv[1] if len(sys.argv) > 1 else "evenslice-demo"),
        Path(sys.argv[2] if len(sys.argv) > 2 else "docs"),
    )
