"""The maps of an audit as layers: where each slot mattered, on the slices that it is about."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenslice.evidence.result import Audit
from evenslice.evidence.stats import Interval
from evenslice.evidence.window_view import WindowView
from evenslice.napari.layers import RESULT, LayerData, LazyArray, placed_like
from evenslice.report.verdict import DASH, confidence, fixed, interval, sanity_checks, slot_names
from evenslice.volume.array import Volume, spans

PLACES = "evenslice_places"
TOP = 99.5
BEFORE, CENTRE, AFTER = "magenta", "gray", "green"
ONE = "magma"
Shape = tuple[int, int, int]
Measured = tuple[Shape, NDArray[np.float32]]
Picture = tuple[tuple[int, int, int], NDArray[Any]]


class Pinned:
    """Pictures (y, x) pinned into an otherwise empty volume (z, y, x), each with its first pixel on a voxel of it.

    Where two lie on one another the larger value counts. What lies outside is cut off. ``empty`` is the value elsewhere; NaN is
    shown as nothing.
    """

    def __init__(self, shape: Shape, pictures: Sequence[Picture], empty: float) -> None:
        self.shape = shape
        self.dtype = np.result_type(*(picture for _, picture in pictures))
        self._empty = empty
        self._pictures = pictures

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Draw a box of it."""
        z, y, x = spans(key, self.shape)
        box = np.full(
            (z.stop - z.start, y.stop - y.start, x.stop - x.start), self._empty, self.dtype
        )
        for (at, top, left), picture in self._pictures:
            low, high = max(y.start, top), min(y.stop, top + picture.shape[0])
            west, east = max(x.start, left), min(x.stop, left + picture.shape[1])
            if z.start <= at < z.stop and low < high and west < east:
                place = (
                    at - z.start,
                    slice(low - y.start, high - y.start),
                    slice(west - x.start, east - x.start),
                )
                box[place] = np.fmax(
                    box[place], picture[low - top : high - top, west - left : east - left]
                )
        return box


def layers_of_audit(audit: Audit, layer: Any) -> list[LayerData]:
    """Return the maps of the windows that an audit looked at, a layer each slot, and what the model predicted there.

    Every map lies on the slices that its slot holds, and all have one contrast, so that brightness can be compared.

    Parameters
    ----------
    audit
        With its looks.
    layer
        What was audited; the maps lie where it lies.
    """
    shape = (layer.data[0] if layer.multiscale else layer.data).shape
    looks = [
        (look.origin, look.attribution) for look in audit.views if look.attribution is not None
    ]
    found: list[LayerData] = []
    if looks:
        half = audit.slices // 2
        tops = {
            "apart": _top(looks, range(audit.slices)),
            "together": _top(looks, set(range(audit.slices)) - {half}),
        }
        facts = {
            "contrast_limits": (0.0, tops["apart"]),
            "colormap": ONE,
            "blending": "translucent",
            "rgb": False,
            **placed_like(layer),
        }
        for slot, name in enumerate(slot_names(audit.slices)):
            ahead = slot - half
            places = _map(f"importance of {name}", shape, looks, slot, ahead)
            noted = {RESULT: "map", PLACES: {"ahead": ahead, "tops": tops, **places}}
            found.append(
                (
                    places["apart"],
                    {"name": f"importance of {name}", **facts, "metadata": noted},
                    "image",
                )
            )
    return [*found, *_predictions(audit.views, shape, layer)]


def _top(looks: Sequence[Measured], slots: Collection[int]) -> float:
    """Return what is white in the maps of some slots: nearly all of their values lie below."""
    values = [maps[slot].ravel() for _, maps in looks for slot in slots]
    return (float(np.percentile(np.concatenate(values), TOP)) if values else 0.0) or 1.0


def _map(
    name: str, shape: Shape, looks: Sequence[Measured], slot: int, ahead: int
) -> dict[str, LazyArray]:
    """Return the maps of one slot, each on the slice that the slot holds (``apart``) and on the centre slice (``together``)."""
    found = {}
    for place, shift in (("apart", ahead), ("together", 0)):
        pictures = [
            ((o[0] + shift, o[1], o[2]), np.asarray(maps[slot], np.float32)) for o, maps in looks
        ]
        found[place] = LazyArray(Volume(Pinned(shape, pictures, np.nan), source=name))
    return found


def _predictions(looks: Sequence[WindowView], shape: Shape, layer: Any) -> list[LayerData]:
    """Return what was predicted in the windows, hidden at first."""
    if not looks:
        return []
    numbered = any(look.numbered for look in looks)
    dtype, empty = (np.uint16, 0) if numbered else (np.float32, np.nan)
    pinned = Pinned(shape, [(look.origin, look.prediction.astype(dtype)) for look in looks], empty)
    facts = {
        "name": "prediction",
        "visible": False,
        "metadata": {RESULT: "prediction"},
        **placed_like(layer),
    }
    if numbered:
        return [(LazyArray(Volume(pinned)), facts, "labels")]
    return [
        (LazyArray(Volume(pinned)), {**facts, "contrast_limits": (0.0, 1.0), "rgb": False}, "image")
    ]


def show_together(layers: Sequence[Any], together: bool) -> None:
    """Lay the maps on the centre slice, earlier slots magenta and later ones green (white: alike), or back on their own slices."""
    covered = False
    for layer in layers:
        places = layer.metadata.get(PLACES)
        if places is None:
            continue
        ahead, place = places["ahead"], "together" if together else "apart"
        layer.data = places[place]
        layer.contrast_limits = (0.0, places["tops"][place])
        layer.colormap = (
            (BEFORE if ahead < 0 else AFTER if ahead > 0 else CENTRE) if together else ONE
        )
        layer.visible = not together or ahead != 0
        layer.blending = "additive" if together and covered else "translucent"
        covered = covered or layer.visible


def table_of(audit: Audit) -> tuple[list[str], list[list[str]]]:
    """Return an audit as a table of texts: the head, and a row per method.

    Shares and the mirror index come with their intervals below them.
    """
    head = ["method", "mirror index", *slot_names(audit.slices), "verdict"]
    rows = [
        [name, _estimate(method.index), *map(_estimate, method.shares), method.verdict]
        for name, method in audit.methods.items()
    ]
    return head, rows


def _estimate(found: Interval | None) -> str:
    if found is None:
        return DASH
    return f"{fixed(found.value)}\n{interval(found.low, found.high)}"


def small_print(audit: Audit) -> str:
    """Say on what an audit rests: windows, blocks, intervals, sanity checks."""
    text = (
        f"{audit.windows} windows in {audit.clusters} blocks, "
        f"{confidence(audit.confidence)} intervals. {sanity_checks(audit)}."
    )
    if audit.trained_on:
        text += f" {audit.trained_on} of the windows lie on slices the model was trained on."
    return text
