"""Pictures as PNG data URIs: raw slices in grey, and layers to lay over them.

The colours are safe for colour-blind readers.
"""

import base64
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evenslice.volume.array import Voxels

CLASSES = (
    "#1b1e23",
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
    "#f2f2f2",
)
PREDICTED, TRUE = "#56b4e9", "#f0e442"
WRONG = ("#e69f00", "#0072b2", "#cc79a7")  # missed, too much, another class
LARGEST = 512 * 512
TINT = 0.62  # alpha of what is certain

Grey = NDArray[np.uint8]
Limits = tuple[float, float]


def grey_limits(stacks: Iterable[Voxels]) -> Limits:
    """Find one grey scale for all given slices: their 0.5th to 99.5th percentile."""
    values = np.concatenate([np.asarray(stack, dtype=np.float64).ravel() for stack in stacks])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 0.0
    low, high = np.percentile(values, (0.5, 99.5))
    return (float(low), float(high)) if high > low else (float(values.min()), float(values.max()))


def grey_levels(image: Voxels, limits: Limits) -> Grey:
    """Map raw intensities to 0..255; a constant image is mid-grey, a missing value is black."""
    low, high = limits
    values = np.asarray(image, dtype=np.float64)
    if not high > low:
        return np.full(values.shape, 128, dtype=np.uint8)
    scaled = np.clip(
        (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / (high - low), 0.0, 1.0
    )
    return np.round(255 * scaled).astype(np.uint8)


def strength(attribution: Voxels) -> NDArray[np.float64]:
    """Bring the importance of a whole window to 0..1 with one scale for all its slots."""
    values = np.clip(
        np.nan_to_num(np.asarray(attribution, dtype=np.float64), nan=0.0, posinf=0.0), 0.0, None
    )
    top = float(np.percentile(values, 99.5)) or float(values.max())
    return np.clip(values / top, 0.0, 1.0) if top > 0 else np.zeros_like(values)


def grey_png(image: Voxels, limits: Limits, most: int = LARGEST) -> str:
    """Draw one raw slice in the given grey scale."""
    return _uri(_fitting(Image.fromarray(grey_levels(image, limits)), most, smooth=True))


def importance_png(importance: NDArray[np.float64], most: int = LARGEST) -> str:
    """Draw importance (0..1, (y, x)) as a layer from dark purple to pale yellow, clear at 0."""
    colours, alphas = heat(np.linspace(0.0, 1.0, 256))
    return _layer(np.round(255 * importance).astype(np.uint8), colours, alphas, most, smooth=True)


def probability_png(probability: Voxels, most: int = LARGEST) -> str:
    """Draw a probability (0..1, (y, x)) as a layer in one colour, the more certain the denser."""
    levels = grey_levels(probability, (0.0, 1.0))
    return _layer(
        levels, np.tile(_rgb(PREDICTED), (256, 1)), np.linspace(0.0, TINT, 256), most, smooth=True
    )


def classes_png(labels: Voxels, most: int = LARGEST) -> str:
    """Draw class or object numbers (y, x) as a layer, a colour each; 0 and below are clear."""
    colours = np.array([_rgb(code) for code in CLASSES])
    return _layer(
        palette_places(labels), colours, [0.0, *[TINT] * (len(CLASSES) - 1)], most, smooth=False
    )


def outline_png(labels: Voxels, most: int = LARGEST) -> str:
    """Draw the outlines of classes or objects (y, x) as a layer, one pixel wide as drawn."""
    numbers = np.asarray(
        _fitting(Image.fromarray(np.asarray(labels, np.int32)), most, smooth=False)
    )
    edge = np.zeros(numbers.shape, bool)
    edge[1:] |= numbers[1:] != numbers[:-1]
    edge[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
    return _layer(edge.astype(np.uint8), np.array([_rgb(TRUE)] * 2), [0.0, 1.0], most, smooth=False)


def wrong_png(wrong: Grey, most: int = LARGEST) -> str:
    """Draw where a prediction is wrong, as the window says it, as a layer."""
    colours = np.array([_rgb(code) for code in (WRONG[0], *WRONG)])
    return _layer(wrong, colours, [0.0, 0.85, 0.85, 0.85], most, smooth=False)


def palette_places(labels: Voxels) -> Grey:
    """Return the place in ``CLASSES`` of numbers: 0 for 0 and below, the others in turn."""
    numbers = np.round(np.nan_to_num(np.asarray(labels, dtype=np.float64), nan=-1.0)).astype(
        np.int64
    )
    return np.where(numbers > 0, (numbers - 1) % (len(CLASSES) - 1) + 1, 0).astype(np.uint8)


def colour_key() -> str:
    """Draw the colours of importance, from none to most, over mid-grey."""
    colours, alphas = heat(np.linspace(0.0, 1.0, 200))
    laid = (1 - alphas[:, None]) * 128 + alphas[:, None] * colours
    return _uri(Image.fromarray(np.tile(np.round(laid).astype(np.uint8), (12, 1, 1))))


def scale_bar(width: int, pixel_nm: float) -> tuple[float, str] | None:
    """Choose a round length up to a third of the picture: per cent of its width, and a label."""
    if not (math.isfinite(pixel_nm) and pixel_nm > 0):
        return None
    third = width * pixel_nm / 3
    decade = 10.0 ** math.floor(math.log10(third))
    length = max(step * decade for step in (1, 2, 5) if step * decade <= third)
    text = f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm"
    return 100 * length / (width * pixel_nm), text


def heat(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return colours (..., 3), 0..255, and alphas, 0..1, of importances (0..1)."""
    from matplotlib import colormaps

    return 255 * colormaps["magma"](0.3 + 0.7 * values)[..., :3], 0.92 * values**0.75


def _rgb(code: str) -> tuple[int, int, int]:
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


def _layer(
    levels: Grey,
    colours: Voxels,
    alphas: Sequence[float] | NDArray[np.float64],
    most: int,
    smooth: bool,
) -> str:
    """Write numbers as a PNG with a palette in which each has its colour and its alpha (0..1)."""
    image = _fitting(Image.fromarray(np.asarray(levels, np.uint8)), most, smooth)
    drawn = Image.frombytes("P", image.size, image.tobytes())
    drawn.putpalette(np.round(colours).astype(np.uint8).tobytes())
    return _uri(drawn, transparency=np.round(255 * np.asarray(alphas)).astype(np.uint8).tobytes())


def _fitting(image: Image.Image, most: int, smooth: bool) -> Image.Image:
    """Make a picture of more than ``most`` pixels smaller; labels (not smooth) are not mixed."""
    factor = math.sqrt(most / (image.width * image.height))
    if factor >= 1:
        return image
    size = (max(1, int(image.width * factor)), max(1, int(image.height * factor)))
    return image.resize(size, Image.Resampling.BOX if smooth else Image.Resampling.NEAREST)


def _uri(image: Image.Image, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, **options)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
