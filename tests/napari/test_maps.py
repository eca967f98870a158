"""The maps of an audit as layers; no Qt."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from one_layer import linear

from evenslice import audit
from evenslice.evidence.result import Check
from evenslice.evidence.window_view import WindowView
from evenslice.napari.layers import is_result
from evenslice.napari.maps import Pinned, layers_of_audit, show_together, small_print, table_of


def test_pictures_lie_where_they_are_pinned():
    one, two = np.full((2, 2), 1.0, np.float32), np.full((2, 2), 2.0, np.float32)
    pinned = Pinned(
        (3, 4, 4), [((1, 0, 0), one), ((1, 1, 1), two), ((5, 0, 0), two), ((2, 3, 3), one)], 0.0
    )
    middle = [[1, 1, 0, 0], [1, 2, 2, 0], [0, 2, 2, 0], [0, 0, 0, 0]]
    assert pinned[1:2][0].tolist() == middle
    assert pinned[1:2, 1:3, 0:2][0].tolist() == [[1, 2], [0, 2]]
    assert not pinned[0:1].any()
    assert pinned[2:3].sum() == 1  # three of its pixels are outside


def view_at(origin, weights, numbered=False):
    """A window of 2 x 2 pixels with one importance per slot."""
    maps = None if weights is None else np.ones((2, 2)) * np.array(weights)[:, None, None]
    prediction = np.full((2, 2), 2.0 if numbered else 0.25, np.float32)
    return WindowView("it", origin, np.zeros((3, 2, 2), np.uint8), maps, prediction, None, None)


def layer_like(shape):
    """A real layer, voxels of 50 x 4 x 4 nm."""
    return pytest.importorskip("napari.layers").Image(
        np.zeros(shape, np.uint8), scale=(50, 4, 4), units=("nm",) * 3
    )


def value(data, z):
    """What a map shows on a slice; None where it shows nothing."""
    plane = np.asarray(data[z])
    return None if np.isnan(plane).all() else float(np.nanmax(plane))


def test_each_map_lies_on_the_slices_of_its_slot_and_all_have_one_contrast():
    layer = layer_like((6, 8, 8))
    found = SimpleNamespace(
        slices=3, views=(view_at((2, 0, 0), [1, 5, 2]), view_at((4, 4, 4), [1, 5, 2]))
    )
    *maps, (prediction, facts, kind) = layers_of_audit(found, layer)
    names = [f"importance of {slot}" for slot in ("previous", "centre", "next")]
    assert [f["name"] for _, f, _ in maps] == names
    assert [[value(data, z) for z in range(6)] for data, _, _ in maps] == [
        [None, 1, None, 1, None, None],
        [None, None, 5, None, 5, None],
        [None, None, None, 2, None, 2],
    ]
    assert np.isnan(np.asarray(maps[0][0][3])[:4]).all()  # the second window, in its own corner
    assert {f["contrast_limits"] for _, f, _ in maps} == {(0.0, 5.0)}
    assert all(
        tuple(f["scale"]) == (50, 4, 4) and tuple(f["translate"]) == (0, 0, 0) for _, f, _ in maps
    )
    assert (kind, facts["visible"]) == ("image", False)
    assert (value(prediction, 2), value(prediction, 1)) == (0.25, None)


def test_maps_are_laid_together_and_apart_again():
    napari = pytest.importorskip("napari.layers")
    layer = layer_like((6, 8, 8))
    found = SimpleNamespace(slices=3, views=(view_at((2, 0, 0), [1, 5, 2]),))
    layers = [napari.Layer.create(*one) for one in layers_of_audit(found, layer)]
    assert all(is_result(one) for one in layers)
    show_together([layer, *layers], True)
    assert [value(one.data, 2) for one in layers[:3]] == [1, 5, 2]
    assert [one.colormap.name for one in layers[:3]] == ["magenta", "gray", "green"]
    assert [one.visible for one in layers[:3]] == [True, False, True]
    limits = [layers[n].contrast_limits for n in (0, 2)]
    assert limits == [[0, 2]] * 2, "of the outer slots"
    assert [one.blending for one in (layers[0], layers[2])] == ["translucent", "additive"]
    show_together([layer, *layers], False)
    assert [value(one.data, 1) for one in layers[:3]] == [1, None, None]
    assert {one.colormap.name for one in layers[:3]} == {"magma"}
    assert [one.contrast_limits for one in layers[:3]] == [[0, 5]] * 3
    assert [one.visible for one in layers] == [True, True, True, False]


def test_class_numbers_become_labels_and_what_was_not_measured_no_map():
    layer = layer_like((6, 8, 8))
    unmeasured = SimpleNamespace(slices=3, views=(view_at((2, 0, 0), None, numbered=True),))
    ((data, facts, kind),) = layers_of_audit(unmeasured, layer)
    assert (kind, facts["name"]) == ("labels", "prediction")
    assert (np.asarray(data[2]).max(), data.dtype) == (2, np.uint16)
    assert layers_of_audit(SimpleNamespace(slices=3, views=()), layer) == []


def test_the_table_and_the_small_print_of_a_real_audit(grey):
    found = audit(linear([1.0, 2.0, 1.0]), grey, windows=12, tile=32, methods=["gradient"])
    head, rows = table_of(found)
    assert head == ["method", "mirror index", "previous", "centre", "next", "verdict"]
    cells = [f"{value}\n{value} to {value}" for value in ("0.000", "0.250", "0.500", "0.250")]
    assert rows == [["gradient", *cells, "symmetric"]]
    words = small_print(found)
    windows = f"{found.windows} windows in {found.clusters} blocks"
    assert words.startswith(f"{windows}, 95 % intervals. Sanity checks passed")
    checks = {"agreement": Check(0.9, 0.1, False, "")}
    failed = small_print(dataclasses.replace(found, checks=checks, trained_on=3))
    assert "Sanity checks failed (agreement): the result is unreliable. 3 of the win" in failed


def test_one_slice_has_no_index(grey):
    head, rows = table_of(audit(linear([2.0]), grey, windows=12, tile=32, methods=["gradient"]))
    assert head == ["method", "mirror index", "centre", "verdict"]
    assert rows[0][1] == "–"
