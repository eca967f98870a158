"""Make the README's picture: a window of the demo's phantom, and its importance to each model.

evenslice demo evenslice-demo && python docs/picture.py evenslice-demo docs/picture.png
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from evenslice import audit

NAMES = ("previous", "centre", "next")


def main(folder: Path, out: Path) -> None:
    """Draw raw slices above, and below each model's importance with its shares."""
    audits = {
        i: audit(
            folder / f"{i}.safetensors",
            folder / "phantom.tif",
            methods=["gradient"],
            windows=40,
            tile=160,
            label=i,
        )
        for i in ("rgb", "green", "mirror")
    }
    figure, axes = plt.subplots(4, 3, figsize=(7.2, 10), layout="constrained")
    for row, (label, found) in enumerate([("raw", audits["rgb"]), *audits.items()]):
        window, method = found.views[0], found.methods["gradient"]
        top = np.percentile(window.attribution, 99.5)
        for slot, axis in enumerate(axes[row]):
            if label == "raw":
                axis.imshow(
                    window.slices[slot],
                    cmap="gray",
                    vmin=window.slices.min(),
                    vmax=window.slices.max(),
                )
                axis.set_title(NAMES[slot])
            else:
                axis.imshow(window.attribution[slot], cmap="magma", vmin=0, vmax=top)
                axis.set_xlabel(f"share {method.shares[slot].value:.3f}")
            axis.set_xticks([])
            axis.set_yticks([])
        index = method.index
        text = "" if label == "raw" or index is None else f"\nmirror index {index.value:+.3f}"
        axes[row, 0].set_ylabel(label + text)
    figure.savefig(out, dpi=90)
    Image.open(out).convert("RGB").quantize(256).save(out, optimize=True)


if __name__ == "__main__":
    main(
        Path(sys.argv[1] if len(sys.argv) > 1 else "evenslice-demo"),
        Path(sys.argv[2] if len(sys.argv) > 2 else "docs/picture.png"),
    )
