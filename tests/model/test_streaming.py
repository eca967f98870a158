"""Predicting volumes: any tiling, any batch, the same answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from evenslice.errors import BadInputError
from evenslice.model.predict import Runner, Settings
from evenslice.model.spec import Model, Spec
from evenslice.model.streaming import normalisation_of, predict_blocks, predict_slices
from evenslice.model.tile_limits import find_halo
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation
from evenslice.volume.sections import SectionReader, Sections
from evenslice.volume.tiles import TileLayout, plan_blocks

CPU = torch.device("cpu")


def centre_model(slices=3, reach=3):
    """A network whose logit is a local mean of the centre slice, over a small field."""
    conv = nn.Conv2d(slices, 1, 2 * reach + 1, padding=reach, bias=False)
    nn.init.zeros_(conv.weight)
    conv.weight.data[:, slices // 2] = 1.0 / (2 * reach + 1) ** 2
    return Model(conv.eval(), Spec(slices=slices), Normalisation((0.5,), (0.25,), "file"), stride=1)


def order_model():
    """One pixel of each slice, weighted differently: only the order of slices matters."""
    model = centre_model(reach=0)
    model.module.weight.data[:] = torch.tensor([0.7, 1.0, -0.4])[None, :, None, None]
    return model


def predicted(model, volume, cut, roi=None, batch=1, depth=2, side=48):
    """The probabilities (C, z, y, x) of a box, put together from blocks."""
    roi = roi or tuple(slice(0, n) for n in volume.shape)
    out = np.full((model.spec.classes, *volume.shape), np.nan, np.float32)
    reader = SectionReader(Sections(volume), normalisation_of(model), model.slices)
    blocks = plan_blocks(volume.shape, roi, cut, depth, side)
    for block, found in predict_blocks(Runner(model, Settings(batch=batch)), reader, blocks):
        out[(slice(None), *block.core)] = found
    return out[(slice(None), *roi)]


def whole(model, volume):
    return predicted(model, volume, TileLayout(volume.shape[1:], 0, 0, model.stride))


@pytest.fixture
def volume():
    return Volume(np.random.default_rng(0).random((5, 70, 90), np.float32))


@pytest.fixture
def answer(volume):
    """What the identity answers to the volume."""
    return 1 / (1 + np.exp(-(volume.pixels - 0.5) / 0.25))


def test_the_identity_segments_to_its_input(volume, answer):
    found = np.stack([p[0] for p in predict_slices(centre_model(reach=0), volume, range(5), CPU)])
    np.testing.assert_allclose(found, answer, rtol=1e-5)
    some = [p[0] for p in predict_slices(centre_model(reach=0), volume, [4, 1], CPU)]
    np.testing.assert_array_equal(some, found[[4, 1]])


def test_a_large_slice_is_predicted_in_tiles_that_blend(volume, answer, monkeypatch):
    monkeypatch.setattr("evenslice.model.streaming.WHOLE", 80)
    monkeypatch.setattr("evenslice.model.streaming.TILE", 40)
    found = np.stack([p[0] for p in predict_slices(centre_model(reach=0), volume, range(5), CPU)])
    np.testing.assert_allclose(found, answer, atol=1e-6)


@pytest.mark.parametrize("tile", [32, 33, 64, 89])
@pytest.mark.parametrize("batch", [1, 2])
def test_tiles_with_the_halo_equal_the_whole(volume, tile, batch):
    model = centre_model()
    tiled = predicted(model, volume, TileLayout((tile, tile), 3, 0, 1), batch=batch)
    np.testing.assert_allclose(tiled, whole(model, volume), atol=1e-6)


def test_tiles_with_less_than_the_halo_do_not(volume):
    model = centre_model()
    less = predicted(model, volume, TileLayout((32, 32), 2, 0, 1))
    assert np.abs(less - whole(model, volume)).max() > 1e-4


def test_tiles_of_a_unet_with_the_halo_found_equal_the_whole(make_model):
    model = replace(make_model(), normalisation=Normalisation((0.0,), (1.0,), "file"))
    runner = Runner(model, Settings())
    halo = find_halo(runner.logits, 3, model.stride)
    assert halo % model.stride == 0
    assert 8 <= halo <= 96
    side = 2 * halo + 160
    pixels = np.random.default_rng(0).normal(size=(3, side + 75, side + 3))
    volume = Volume(pixels.astype(np.float32))
    one = (slice(1, 2), *(slice(0, n) for n in volume.shape[1:]))
    cut = TileLayout((side, side), halo, 0, model.stride)
    exact = predicted(model, volume, TileLayout(volume.shape[1:], 0, 0, model.stride), one)
    np.testing.assert_allclose(predicted(model, volume, cut, one), exact, atol=1e-6)
    box = (slice(1, 2), slice(37, side + 60), slice(101, 200))
    crop = exact[:, :, 37 : side + 60, 101:200]
    np.testing.assert_allclose(predicted(model, volume, cut, box), crop, atol=1e-6)
    if halo > model.stride:
        less = predicted(model, volume, TileLayout((side, side), 0, 0, model.stride), one)
        assert np.abs(less - exact).max() > 1e-3


@pytest.mark.parametrize("batch", [2, 7])
def test_batches_agree(volume, make_model, batch):
    model, bright = make_model(classes=3), Volume(volume.pixels * 255)
    cut = TileLayout((70, 90), 0, 0, 32)
    one, several = (predicted(model, bright, cut, depth=5, batch=n) for n in (1, batch))
    np.testing.assert_allclose(several, one, atol=1e-6)


@pytest.mark.parametrize(
    ("tile", "overlap"), [((32, 32), 8), ((40, 90), 16), ((32, 200), 31), ((71, 32), 1)]
)
@pytest.mark.parametrize("side", [17, 48, 4096])
def test_tiles_that_blend_add_up_to_the_identity(volume, answer, tile, overlap, side):
    cut = TileLayout(tile, 0, overlap, 1)
    found = predicted(centre_model(reach=0), volume, cut, side=side)
    np.testing.assert_allclose(found[0], answer, atol=1e-6)
    box = (slice(1, 3), slice(5, 60), slice(20, 85))
    found = predicted(centre_model(reach=0), volume, cut, box)
    np.testing.assert_allclose(found[0], answer[box], atol=1e-6)


@pytest.mark.parametrize("cut", [TileLayout((200, 200), 3, 0, 1), TileLayout((32, 40), 3, 0, 1)])
def test_a_box_equals_the_same_part_of_the_whole(volume, cut):
    model = centre_model()
    model.module.weight.data[:, 0] = -0.01
    box = (slice(1, 4), slice(8, 40), slice(5, 77))
    exact = whole(model, volume)[(slice(None), *box)]
    np.testing.assert_allclose(predicted(model, volume, cut, box), exact, atol=1e-6)


def test_the_reversal_ensemble_does_not_see_the_order(volume):
    both = order_model().with_tta("reversal")
    one = whole(both, volume)
    back = whole(both, Volume(volume.pixels[::-1]))
    np.testing.assert_allclose(back[:, ::-1], one, atol=1e-6)
    assert np.abs(whole(order_model(), volume) - one).max() > 0.01


def test_a_model_without_normalisation_is_refused(volume):
    model = replace(centre_model(), normalisation=None)
    with pytest.raises(BadInputError, match="no normalisation"):
        list(predict_slices(model, volume, range(5), CPU))
