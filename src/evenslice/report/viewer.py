"""The viewer of windows: for each window and model its slices side by side, each with the layers that can lie over it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evenslice.evidence.window_view import Look
from evenslice.report import pictures
from evenslice.report.pictures import Limits
from evenslice.report.verdict import slot_names

PICTURE_BYTES = (
    5_000_000  # of pixels on the whole page: under 7 MB once encoded, whatever they hold
)
KEYS = {
    "prediction": (("predicted", pictures.PREDICTED),),
    "truth": (("outline of the truth", pictures.TRUE),),
    "error": tuple(zip(("missed", "too much", "another class"), pictures.WRONG, strict=True)),
}


@dataclass(frozen=True)
class Layer:
    """One picture of a panel: what it shows (``raw``, ``attribution``, ``prediction``, ``truth``, ``error``), and in words."""

    kind: str
    source: str
    text: str


@dataclass(frozen=True)
class Panel:
    """One slice of a window: its layers, its caption, and the scale bar (per cent of the width, words) or None."""

    caption: str
    layers: tuple[Layer, ...]
    bar: tuple[float, str] | None


@dataclass(frozen=True)
class Strip:
    """One window as one model saw it."""

    label: str
    panels: tuple[Panel, ...]
    aspect: str
    small: bool


@dataclass(frozen=True)
class Place:
    """All strips of one window."""

    title: str
    strips: tuple[Strip, ...]


def viewer_of(looks: Sequence[Look]) -> dict[str, Any] | None:
    """Make what the viewer's template shows: all pictures in one grey scale, small enough for one page.

    Parameters
    ----------
    looks
        Windows of any models. Those at the same place of the volume are shown together, in the order given.

    Returns
    -------
    dict or None
        ``places``, the ``layers`` that there are with those ``shown`` at first, the ``legend`` of their colours, and the widest
        ``columns``; None without looks.
    """
    if not looks:
        return None
    limits = pictures.grey_limits(look.slices for look in looks)
    most = min(pictures.LARGEST, PICTURE_BYTES // sum(_planes(look) for look in looks))
    groups: dict[tuple[Any, ...], list[Look]] = {}
    for look in looks:
        groups.setdefault((look.origin, look.slices.shape), []).append(look)
    places = [
        Place(_where(group[0]), tuple(_strip(look, limits, max(most, 1)) for look in group))
        for group in groups.values()
    ]
    kinds = dict.fromkeys(
        layer.kind
        for place in places
        for strip in place.strips
        for panel in strip.panels
        for layer in panel.layers
    )
    order = [
        kind for kind in ("raw", "attribution", "prediction", "truth", "error") if kind in kinds
    ]
    return {
        "places": places,
        "layers": order,
        "shown": {"raw", "attribution" if "attribution" in order else "prediction"},
        "legend": _keys(looks, order),
        "heat": pictures.colour_key() if "attribution" in order else None,
        "columns": max(len(look.slices) for look in looks),
    }


def _keys(looks: Sequence[Look], order: Sequence[str]) -> dict[str, tuple[tuple[str, str], ...]]:
    """Say what the colours of the layers mean; numbered predictions have a colour each."""
    keys = {kind: KEYS[kind] for kind in order if kind in KEYS}
    if "prediction" in keys and any(look.numbered for look in looks):
        most = int(max(look.prediction.max() for look in looks if look.numbered))
        several = [
            (f"class {n}", pictures.CLASSES[n])
            for n in range(1, min(most, len(pictures.CLASSES) - 1) + 1)
        ]
        objects = (("objects, in eight colours by turns", pictures.CLASSES[1]),)
        keys["prediction"] = tuple(several) if most < len(pictures.CLASSES) else objects
    if "error" in keys and not any(look.numbered for look in looks):
        keys["error"] = keys["error"][:2]
    return keys


def _planes(look: Look) -> int:
    """Count the pictures of a window."""
    return len(look.slices) * (1 if look.attribution is None else 2) + (
        1 if look.truth is None else 3
    )


def _where(look: Look) -> str:
    _, height, width = look.slices.shape
    z, y, x = look.origin
    return f"z {z}, y {y} to {y + height - 1}, x {x} to {x + width - 1}"


def _strip(look: Look, limits: Limits, most: int) -> Strip:
    slices, height, width = look.slices.shape
    bar = pictures.scale_bar(width, look.voxel_nm[2]) if look.voxel_nm else None
    tall = look.voxel_nm[1] / look.voxel_nm[2] if look.voxel_nm and bar else 1.0
    importance = None if look.attribution is None else pictures.strength(look.attribution)
    panels = []
    for slot, name in enumerate(slot_names(slices)):
        at = f"{name}, z {look.origin[0] + slot - slices // 2}"
        layers = [
            Layer("raw", pictures.grey_png(look.slices[slot], limits, most), f"Raw slice, {at}")
        ]
        if importance is not None:
            text = f"Importance of every pixel of the {name} slice, {look.label}"
            layers.append(
                Layer("attribution", pictures.importance_png(importance[slot], most), text)
            )
        if slot == slices // 2:
            layers += _centre_layers(look, most)
        panels.append(Panel(at, tuple(layers), bar if slot == 0 else None))
    return Strip(look.label, tuple(panels), f"{width} / {height * tall:.6g}", width < 100)


def _centre_layers(look: Look, most: int) -> list[Layer]:
    """Draw what belongs to the centre slice alone."""
    draw = pictures.classes_png if look.numbered else pictures.probability_png
    layers = [
        Layer(
            "prediction",
            draw(look.prediction, most),
            f"Prediction of {look.label} for the centre slice",
        )
    ]
    wrong = look.wrong()
    if look.truth is not None and wrong is not None:
        layers.append(
            Layer(
                "truth",
                pictures.outline_png(look.truth, most),
                "Outlines of the truth, centre slice",
            )
        )
        text = f"Errors of {look.label} in the centre slice: {(wrong > 0).mean():.1%} of its pixels"
        layers.append(Layer("error", pictures.wrong_png(wrong, most), text))
    return layers
