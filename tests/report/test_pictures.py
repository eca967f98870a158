import base64
import io

import numpy as np
import pytest
from PIL import Image

from evenslice.report import pictures


def opened(source):
    head, body = source.split(",", 1)
    assert head == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(body)))
    return np.asarray(image.convert("RGBA") if image.mode == "P" else image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_grey_levels_span_the_limits_in_every_type(dtype):
    image = np.linspace(0, 200, 60).reshape(6, 10).astype(dtype)
    grey = opened(pictures.grey_png(image, (0.0, 200.0)))
    assert (grey.shape, grey.min(), grey.max()) == ((6, 10), 0, 255)
    assert np.all(np.diff(grey.ravel().astype(int)) >= 0)


@pytest.mark.parametrize(
    ("image", "grey"),
    [
        (np.array([-300, 0, 300], np.int16), [0, 128, 255]),
        (np.full(3, 7, np.uint8), [128] * 3),
        (np.array([np.nan, 1.0, 2.0, np.inf], np.float32), [0, 0, 255, 255]),
        (np.array([np.nan, np.nan]), [128] * 2),
        (np.array([1] + [0] * 9999), [255] + [0] * 9999),
    ],
    ids=["negative", "constant", "missing", "nothing", "one bright pixel"],
)
def test_grey_levels_keep_their_order_and_what_is_missing_is_black(image, grey):
    assert pictures.grey_levels(image, pictures.grey_limits([image])).tolist() == grey


def test_no_importance_covers_nothing_and_more_of_it_covers_more_and_is_brighter():
    layer = opened(pictures.importance_png(np.array([[0.0, 0.4, 1.0]])))[0].astype(int)
    assert layer[0, 3] == 0
    assert 0 < layer[1, 3] < layer[2, 3] == round(0.92 * 255)
    assert layer[1, :3].sum() < layer[2, :3].sum()


def test_strength_has_one_scale_for_all_slots():
    slots = np.ones((3, 8, 8), np.float32) * np.array([1, 4, 2], np.float32)[:, None, None]
    assert pictures.strength(slots)[:, 0, 0].tolist() == [0.25, 1.0, 0.5]
    attribution = np.zeros((3, 40, 40), dtype=np.float32)
    assert not pictures.strength(attribution).any()
    attribution[0, 0, 0], attribution[1, 1, 1] = 2.0, np.nan
    assert pictures.strength(attribution).sum() == 1


def test_a_probability_is_the_denser_the_more_certain():
    layer = opened(pictures.probability_png(np.array([[0.0, 0.5, 1.0]])))[0].astype(int)
    assert layer[:, 3].tolist() == pytest.approx([0, 79, 158], abs=1)
    assert len({tuple(pixel[:3]) for pixel in layer.tolist()}) == 1


def test_numbers_have_a_colour_each_and_nothing_covers_nothing():
    layer = opened(pictures.classes_png(np.array([[-1, 0, 1, 2, 8, 9]])))[0].tolist()
    assert [pixel[3] > 0 for pixel in layer] == [False, False, True, True, True, True]
    assert len({tuple(pixel[:3]) for pixel in layer[2:]}) == 3
    assert layer[5] == layer[2]


def test_outlines_lie_between_unlike_numbers_alone():
    labels = np.zeros((6, 6), np.int64)
    labels[2:4, 2:4] = 70000
    drawn = opened(pictures.outline_png(labels))[..., 3] > 0
    expected = np.zeros((6, 6), bool)
    expected[2, 2:4] = expected[2:4, 2] = expected[4, 2:4] = expected[2:4, 4] = True
    assert np.array_equal(drawn, expected)


def test_what_is_wrong_has_a_colour_each_and_what_is_right_covers_nothing():
    layer = opened(pictures.wrong_png(np.array([[0, 1, 2, 3]], np.uint8)))[0].tolist()
    assert [pixel[3] > 0 for pixel in layer] == [False, True, True, True]
    assert len({tuple(pixel) for pixel in layer[1:]}) == 3


def test_large_pictures_shrink_and_keep_their_shape():
    assert opened(pictures.grey_png(np.zeros((600, 300)), (0, 1), most=20_000)).shape == (200, 100)
    assert opened(pictures.grey_png(np.zeros((600, 1)), (0, 1), most=50)).shape == (173, 1)


def test_colour_key_starts_at_grey():
    key = opened(pictures.colour_key())
    assert key[0, 0].tolist() == [128, 128, 128]
    assert len({tuple(pixel) for pixel in key[0].tolist()}) > 100


@pytest.mark.parametrize(
    ("width", "nm", "bar"),
    [(160, 6.0, (20.833, "200 nm")), (1024, 6.0, (32.552, "2 µm")), (100, 0.05, (20.0, "1 nm"))],
)
def test_scale_bar_is_round_and_true(width, nm, bar):
    per_cent, words = pictures.scale_bar(width, nm)
    assert (round(per_cent, 3), words) == bar
    assert per_cent <= 100 / 3


@pytest.mark.parametrize("nm", [0.0, -1.0, float("nan"), float("inf")])
def test_no_scale_bar_without_a_voxel_size(nm):
    assert pictures.scale_bar(160, nm) is None
