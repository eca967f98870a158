"""The maps of an audit as layers, where each slot mattered, and its figures as a table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evenslice.evidence.result import Audit
from evenslice.evidence.stats import Interval
from evenslice.evidence.window_view import WindowView
from evenslice.napari.layers import RESULT, LayerData, LazyArray, placed_like
from evenslice.report.verdict import DASH, confidence, fixed, interval, sanity_checks, slot_names
from evenslice.volume.array import Volume, Voxels, spans

if TYPE_CHECKING:
    from napari.layers import Layer

PLACES = "evenslice_places"
TOP = 99.5
BEFORE, CENTRE, AFTER = "magenta", "gray", "green"
ONE = "magma"
Shape = tuple[int, int, int]
Picture = tuple[Shape, Voxels]


class Pinned:
    """Pictures (y, x) pinned into an empty volume (z, y, x), each with its first pixel on a voxel.

    Where two overlap the larger value counts; what lies outside is cut off. ``empty`` is the value
    elsewhere; NaN is shown as nothing.
    """

    def __init__(self, shape: Shape, pictures: Sequence[Picture], empty: float) -> None:
        self.shape = shape
        self.dtype = np.result_type(*(picture for _, picture in pictures))
        self._empty = empty
        self._pictures = pictures

    def __getitem__(self, key: Any) -> Voxels:
        """Draw a box of it."""
        z, y, x = spans(key, self.shape)
        size = (z.stop - z.start, y.stop - y.start, x.stop - x.start)
        box = np.full(size, self._empty, self.dtype)
        for (at, top, left), picture in self._pictures:
            low, high = max(y.start, top), min(y.stop, top + picture.shape[0])
            west, east = max(x.start, left), min(x.stop, left + picture.shape[1])
            if z.start <= at < z.stop and low < high and west < east:
                plane = box[at - z.start, low - y.start : high - y.start]
                place = plane[:, west - x.start : east - x.start]
                part = picture[low - top : high - top, west - left : east - left]
                np.fmax(place, part, out=place)
        return box


def layers_of_audit(audit: Audit, layer: "Layer") -> list[LayerData]:
    """Return the maps of the windows that an audit kept, a layer per slot, and the predictions.

    Every map lies on the slices that its slot holds, and all have one contrast, so that brightness
    can be compared. ``layer`` is what was audited; the maps lie where it lies.
    """
    shape = (layer.data[0] if layer.multiscale else layer.data).shape
    mapped = [
        (view.origin, np.asarray(view.attribution, np.float32))
        for view in audit.views
        if view.attribution is not None
    ]
    found: list[LayerData] = []
    half = audit.slices // 2
    tops = {
        "apart": _top([maps for _, maps in mapped]),
        "together": _top([np.delete(maps, half, axis=0) for _, maps in mapped]),
    }
    for slot, name in enumerate(slot_names(audit.slices) if mapped else ()):
        places = {
            place: _pinned(shape, [((z + shift, y, x), maps[slot]) for (z, y, x), maps in mapped])
            for place, shift in (("apart", slot - half), ("together", 0))
        }
        attributes = {
            "name": f"importance of {name}",
            "contrast_limits": (0.0, tops["apart"]),
            "colormap": ONE,
            "blending": "translucent",
            "rgb": False,
            "metadata": {RESULT: "map", PLACES: {"offset": slot - half, "tops": tops, **places}},
        }
        found.append((places["apart"], attributes | placed_like(layer), "image"))
    return [*found, *_predictions(audit.views, shape, layer)]


def _top(maps: Sequence[NDArray[np.float32]]) -> float:
    """Return what is white in some maps: nearly all of their values lie below."""
    values = [one.ravel() for one in maps if one.size]
    return (float(np.percentile(np.concatenate(values), TOP)) if values else 0.0) or 1.0


def _pinned(shape: Shape, pictures: Sequence[Picture], empty: float = np.nan) -> LazyArray:
    return LazyArray(Volume(Pinned(shape, pictures, empty)))


def _predictions(views: Sequence[WindowView], shape: Shape, layer: "Layer") -> list[LayerData]:
    """Return what was predicted in the windows, hidden at first."""
    if not views:
        return []
    attributes = {"name": "prediction", "visible": False, "metadata": {RESULT: "prediction"}}
    attributes |= placed_like(layer)
    if any(view.numbered for view in views):
        numbers = [(view.origin, view.prediction.astype(np.uint16)) for view in views]
        return [(_pinned(shape, numbers, 0), attributes, "labels")]
    probabilities = [(view.origin, view.prediction.astype(np.float32)) for view in views]
    attributes |= {"contrast_limits": (0.0, 1.0), "rgb": False}
    return [(_pinned(shape, probabilities), attributes, "image")]


def show_together(layers: Sequence["Layer"], together: bool) -> None:
    """Lay the maps on the centre slice, or back on their own slices.

    On the centre slice earlier slots are magenta and later ones green: white where they are alike.
    """
    covered = False
    for layer in layers:
        places = layer.metadata.get(PLACES)
        if places is None:
            continue
        offset, place = places["offset"], "together" if together else "apart"
        colour = BEFORE if offset < 0 else AFTER if offset > 0 else CENTRE
        layer.data = places[place]
        layer.contrast_limits = (0.0, places["tops"][place])
        layer.colormap = colour if together else ONE
        layer.visible = not together or offset != 0
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
