"""Folders of images that people have."""

import numpy as np
from PIL import Image

from inputs.case import Case

STACK = np.random.default_rng(0).integers(0, 255, (12, 9, 14), dtype=np.uint8)
FOLDER = "Folder of images"


def numbered(folder, suffix=".png"):
    for z, plane in enumerate(STACK):
        Image.fromarray(plane).save(folder / f"slice{z}{suffix}")
    return folder


CASES = [
    Case(
        FOLDER,
        "`slice2.png` and `slice10.png`",
        "numbers are compared as numbers: 2 comes before 10",
        numbered,
        STACK,
    )
]
