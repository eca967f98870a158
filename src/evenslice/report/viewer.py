"""The viewer of windows: the slices of each window side by side, with the layers over them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from evenslice.report import pictures
from evenslice.report.verdict import slot_names

if TYPE_CHECKING:
    from evenslice.evidence.window_view import WindowView

PICTURE_BYTES = 5_000_000  # of pixels on the whole page: under 7 MB once encoded
ORDER = ("raw", "attribution", "prediction", "truth", "error")
Keys = tuple[tuple[str, str], ...]
KEYS: dict[str, Keys] = {
    "prediction": (("predicted", pictures.PREDICTED),),
    "truth": (("outline of the ground truth", pictures.TRUE),),
    "error": tuple(zip(("missed", "too much", "another class"), pictures.WRONG, strict=True)),
}


class Layer(NamedTuple):
    """One picture of a panel: what it shows (one of ``ORDER``), and a description."""

    kind: str
    source: str
    text: str


class Panel(NamedTuple):
    """One slice: its caption, layers, and scale bar (per cent of the width, label) or None."""

    caption: str
    layers: tuple[Layer, ...]
    bar: tuple[float, str] | None


class Strip(NamedTuple):
    """One window as one model saw it."""

    label: str
    panels: tuple[Panel, ...]
    aspect: str
    small: bool


class Place(NamedTuple):
    """All strips of one window."""

    title: str
    strips: tuple[Strip, ...]


class Viewer(NamedTuple):
    """What the viewer shows: windows, the layers that there are, and those shown at first.

    ``legend`` and ``heat``: what the colours mean, and the colour scale of importance, or None.
    """

    places: tuple[Place, ...]
    layers: tuple[str, ...]
    shown: frozenset[str]
    legend: dict[str, Keys]
    heat: str | None


def viewer_of(windows: "Sequence[WindowView]") -> Viewer | None:
    """Draw windows in one grey scale, small enough for one page; None without windows.

    Those at the same place of the volume are shown together, in this order.
    """
    if not windows:
        return None
    limits = pictures.grey_limits(window.slices for window in windows)
    most = min(pictures.LARGEST, PICTURE_BYTES // sum(_pictures(window) for window in windows))
    groups: dict[tuple[object, ...], list[WindowView]] = {}
    for window in windows:
        groups.setdefault((window.origin, window.slices.shape), []).append(window)
    places = tuple(
        Place(_where(group[0]), tuple(_strip(window, limits, max(most, 1)) for window in group))
        for group in groups.values()
    )
    panels = [panel for place in places for strip in place.strips for panel in strip.panels]
    kinds = {layer.kind for panel in panels for layer in panel.layers}
    layers = tuple(kind for kind in ORDER if kind in kinds)
    first = "attribution" if "attribution" in kinds else "prediction"
    heat = pictures.colour_key() if "attribution" in kinds else None
    return Viewer(places, layers, frozenset({"raw", first}), _legend(windows, layers), heat)


def _legend(windows: "Sequence[WindowView]", layers: Sequence[str]) -> dict[str, Keys]:
    """Say what the colours of the layers mean; numbered predictions have a colour each."""
    keys = {kind: KEYS[kind] for kind in layers if kind in KEYS}
    numbered = [window for window in windows if window.numbered]
    if numbered and "prediction" in keys:
        most = int(max(window.prediction.max() for window in numbered))
        classes = tuple((f"class {n}", pictures.CLASSES[n]) for n in range(1, min(most, 8) + 1))
        objects = (("objects, in eight colours by turns", pictures.CLASSES[1]),)
        keys["prediction"] = classes if most < len(pictures.CLASSES) else objects
    if "error" in keys and not numbered:
        keys["error"] = keys["error"][:2]
    return keys


def _pictures(window: "WindowView") -> int:
    """Count the pictures of a window."""
    layers = 1 if window.attribution is None else 2
    return len(window.slices) * layers + (1 if window.truth is None else 3)


def _where(window: "WindowView") -> str:
    _, height, width = window.slices.shape
    z, y, x = window.origin
    return f"z {z}, y {y} to {y + height - 1}, x {x} to {x + width - 1}"


def _strip(window: "WindowView", limits: pictures.Limits, most: int) -> Strip:
    slices, height, width = window.slices.shape
    voxel = window.voxel_nm
    bar = pictures.scale_bar(width, voxel[2]) if voxel else None
    tall = voxel[1] / voxel[2] if voxel and bar else 1.0
    importance = None if window.attribution is None else pictures.strength(window.attribution)
    panels = []
    for slot, name in enumerate(slot_names(slices)):
        caption = f"{name}, z {window.origin[0] + slot - slices // 2}"
        raw = pictures.grey_png(window.slices[slot], limits, most)
        layers = [Layer("raw", raw, f"Raw slice, {caption}")]
        if importance is not None:
            text = f"Importance of every pixel of the {name} slice, {window.label}"
            heat = pictures.importance_png(importance[slot], most)
            layers.append(Layer("attribution", heat, text))
        if slot == slices // 2:
            layers += _centre_layers(window, most)
        panels.append(Panel(caption, tuple(layers), bar if slot == 0 else None))
    return Strip(window.label, tuple(panels), f"{width} / {height * tall:.6g}", width < 100)


def _centre_layers(window: "WindowView", most: int) -> list[Layer]:
    """Draw what belongs to the centre slice alone."""
    draw = pictures.classes_png if window.numbered else pictures.probability_png
    text = f"Prediction of {window.label} for the centre slice"
    layers = [Layer("prediction", draw(window.prediction, most), text)]
    wrong = window.wrong()
    if window.truth is not None and wrong is not None:
        outline = pictures.outline_png(window.truth, most)
        layers.append(Layer("truth", outline, "Outlines of the ground truth, centre slice"))
        part = (wrong > 0).mean()
        text = f"Errors of {window.label} in the centre slice: {part:.1%} of its pixels"
        layers.append(Layer("error", pictures.wrong_png(wrong, most), text))
    return layers
