"""Volumes as layers and back; no Qt."""

from types import SimpleNamespace

import numpy as np
import pytest

from evenslice.errors import BadInputError
from evenslice.napari.layers import (
    LazyArray,
    contrast_of,
    file_of,
    layer_of,
    placed_like,
    volume_of_layer,
)
from evenslice.volume.array import Volume

NUMBERS = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)


class Counted:
    """Pixels that note which boxes were read."""

    shape, dtype = NUMBERS.shape, NUMBERS.dtype

    def __init__(self):
        self.boxes = []

    def __getitem__(self, key):
        self.boxes.append(tuple((s.start, s.stop) for s in key))
        return NUMBERS[key]


@pytest.mark.parametrize(
    "key",
    [
        *(np.s_[2], np.s_[-1], np.s_[:], np.s_[1, 2, 3], np.s_[:, 2], np.s_[..., 0:2], np.s_[2:2]),
        *(np.s_[0:3, 1:4, ::2], np.s_[::-1, ::3, 4], np.s_[1, ::2, ::-2]),
        np.s_[(slice(None), slice(0, 99), np.int64(3))],
    ],
)
def test_a_lazy_array_is_sliced_as_numpy_slices(key):
    found, wanted = LazyArray(Volume(NUMBERS))[key], NUMBERS[key]
    assert found.shape == wanted.shape
    assert (found == wanted).all()


def test_one_plane_reads_one_plane():
    pixels = Counted()
    LazyArray(Volume(pixels))[2, :, :]
    assert pixels.boxes == [((2, 3), (0, 5), (0, 6))]


def test_a_lazy_array_is_an_array():
    with pytest.raises(IndexError):
        LazyArray(Volume(NUMBERS))[4]
    lazy = LazyArray(Volume(NUMBERS > 3))
    assert (lazy.ndim, lazy.size, len(lazy), lazy.dtype) == (3, 120, 4, np.dtype(np.uint8))
    assert (np.asarray(lazy) == (NUMBERS > 3)).all()
    assert np.asarray(lazy).dtype == np.uint8


def test_a_volume_becomes_an_image_with_its_voxels_in_nm():
    data, facts, kind = layer_of(Volume(NUMBERS, (50.0, 4.0, 4.0)), "made")
    assert (kind, facts["name"], facts["units"]) == ("image", "made", ("nm",) * 3)
    assert facts["scale"] == (50.0, 4.0, 4.0)
    assert isinstance(data, LazyArray)
    assert "scale" not in layer_of(Volume(NUMBERS), "no size")[1]
    assert "translate" not in facts
    for voxel, place in (((50.0, 4.0, 4.0), (100.0, 12.0, 2.0)), (None, (2.0, 3.0, 0.5))):
        part = Volume(NUMBERS, voxel, origin=(2.0, 3.0, 0.5))
        assert layer_of(part, "part")[1]["translate"] == place
    assert layer_of(Volume(NUMBERS, meaning="labels"), "labels")[2] == "labels"


def test_contrast_comes_from_the_middle_and_never_vanishes():
    middle = np.zeros((3, 8, 8), np.float32)
    middle[1], middle[0] = np.linspace(10, 20, 64).reshape(8, 8), 1e6
    low, high = contrast_of(Volume(middle))
    assert 10 <= low < 10.1
    assert 19.9 < high <= 20
    assert contrast_of(Volume(np.full((3, 4, 4), 7, np.uint8))) == (7.0, 8.0)
    assert contrast_of(Volume(np.full((3, 4, 4), np.nan, np.float32))) == (0.0, 1.0)
    assert contrast_of(Volume(NUMBERS.astype(np.uint8), meaning="probabilities")) == (0.0, 255.0)


def stand_in(data, **changes):
    """The attributes of a layer that are read."""
    facts = {"name": "it", "rgb": False, "multiscale": False, "units": None}
    facts |= {"scale": (1, 1, 1), "translate": (0, 0, 0)}
    return SimpleNamespace(data=data, **(facts | changes))


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (None, "there is no image layer"),
        (stand_in(np.zeros((4, 5, 3), np.uint8), rgb=True), "'it' is in colour, expected grey"),
        (stand_in(np.zeros((4, 5))), "'it' has the shape 4 x 5, expected a volume"),
        (stand_in(np.zeros((1, 4, 5, 6))), "has the shape 1 x 4 x 5 x 6, expected a volume"),
        (stand_in(np.zeros((4, 5, 6), complex)), "type complex128, expected whole or real"),
    ],
)
def test_a_layer_that_is_no_volume_is_refused_in_one_line(layer, words):
    with pytest.raises(BadInputError, match=words):
        volume_of_layer(layer)


def test_a_layer_that_was_opened_gives_its_volume_and_file_back():
    volume = Volume(NUMBERS, (50.0, 4.0, 4.0), "here.tif")
    small = Volume(NUMBERS[::2, ::2, ::2])
    for layer in (
        stand_in(LazyArray(volume)),
        stand_in([LazyArray(volume), LazyArray(small)], multiscale=True),
    ):
        assert volume_of_layer(layer) == volume
        assert file_of(layer) == "here.tif"
    assert file_of(stand_in(NUMBERS)) is None
    assert file_of(stand_in(LazyArray(Volume(NUMBERS)))) is None


def test_voxel_sizes_and_places_of_real_layers():
    layers = pytest.importorskip("napari.layers")
    micrometres = layers.Image(NUMBERS, scale=(0.05, 0.004, 0.004), units=("um",) * 3)
    assert volume_of_layer(micrometres).voxel_nm == pytest.approx((50, 4, 4))
    moved = layers.Image(NUMBERS, scale=(50, 4, 4), translate=(100, 12, 2))
    assert volume_of_layer(moved).origin == (2.0, 3.0, 0.5)
    assert (
        volume_of_layer(layers.Image(NUMBERS, scale=(2, 1, 1))).voxel_nm is None
    )  # pixels are no length
    data, facts, kind = layer_of(Volume(NUMBERS, (50.0, 4.0, 4.0)), "made")
    assert volume_of_layer(layers.Layer.create(data, facts, kind)).voxel_nm == (50.0, 4.0, 4.0)


def test_a_layer_placed_like_another_starts_on_its_voxel():
    layers = pytest.importorskip("napari.layers")
    affine = np.array([[1, 0, 0, 5], [0, 0, -2, 1], [0, 1, 0, 2], [0, 0, 0, 1]])
    first = layers.Image(
        NUMBERS, scale=(50, 4, 4), translate=(10, 20, 30), rotate=30, affine=affine
    )
    second = layers.Image(NUMBERS[2:, 1:, 3:], **placed_like(first, (2, 1, 3)))
    for voxel in ((0, 0, 0), (1, 2, 1)):
        wanted = first.data_to_world(np.add(voxel, (2, 1, 3)))
        np.testing.assert_allclose(second.data_to_world(voxel), wanted)
    assert second.units == first.units
