"""Predicting: any size, any tiling, the same answer."""

import numpy as np
import pytest
import torch
from torch import nn

from evenslice import build_model
from evenslice.errors import BadInputError
from evenslice.model.predict import classes_of, logits_of, probabilities_of
from evenslice.model.spec import Model, Spec
from evenslice.model.streaming import predict_slices
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation

ALL = (slice(0, 5), slice(0, 70), slice(0, 90))
CPU = torch.device("cpu")


def centre_model(slices=3, reach=3):
    """A network whose logit is a local mean of the centre slice: its answer is known and its reach small."""
    conv = nn.Conv2d(slices, 1, 2 * reach + 1, padding=reach, bias=False)
    nn.init.zeros_(conv.weight)
    conv.weight.data[:, slices // 2] = 1.0 / (2 * reach + 1) ** 2
    return Model(conv.eval(), Spec(slices=slices), Normalisation((0.5,), (0.25,), "file"), stride=1)


@pytest.fixture
def volume():
    return Volume(np.random.default_rng(0).random((5, 70, 90), np.float32))


def test_the_identity_segments_to_its_input(volume):
    model = centre_model(reach=0)
    found = np.stack([p[0] for p in predict_slices(model, volume, ALL, CPU)])
    expected = 1 / (1 + np.exp(-(volume.pixels - 0.5) / 0.25))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("tile", [32, 33, 64, 89])
def test_tiled_equals_whole(volume, tile):
    model = centre_model()
    whole = np.stack(list(predict_slices(model, volume, ALL, CPU)))
    tiled = np.stack(list(predict_slices(model, volume, ALL, CPU, tile=tile)))
    np.testing.assert_allclose(tiled, whole, atol=1e-6)


def test_a_box_equals_the_same_part_of_the_whole(volume):
    model = centre_model(reach=0)
    model.module.weight.data[:] = torch.tensor([0.7, 1.0, -0.4])[None, :, None, None]
    box = (slice(1, 4), slice(8, 40), slice(5, 77))
    whole = np.stack(list(predict_slices(model, volume, ALL, CPU)))
    part = np.stack(list(predict_slices(model, volume, box, CPU)))
    np.testing.assert_allclose(part, whole[1:4, :, 8:40, 5:77], atol=1e-6)


def test_the_reversal_ensemble_does_not_see_the_order(volume):
    model = centre_model(reach=0)
    model.module.weight.data[:] = torch.tensor([0.7, 1.0, -0.4])[None, :, None, None]
    both = model.with_tta("reversal")
    one = np.stack(list(predict_slices(both, volume, ALL, CPU)))
    back = np.stack(list(predict_slices(both, Volume(volume.pixels[::-1]), ALL, CPU)))
    np.testing.assert_allclose(back[::-1], one, atol=1e-6)
    alone = np.stack(list(predict_slices(model, volume, ALL, CPU)))
    assert np.abs(alone - one).max() > 0.01


def test_sizes_that_are_no_multiple_are_padded_and_cut():
    class Fussy(nn.Module):
        def forward(self, x):
            assert x.shape[-2] % 32 == x.shape[-1] % 32 == 0
            return x[:, :1] * 2

    x = torch.randn(2, 3, 33, 50)
    assert torch.equal(logits_of(Fussy(), x, 32), x[:, :1] * 2)


def test_probabilities_and_classes_by_hand():
    logits = torch.tensor([0.0, float(np.log(3.0))]).view(1, 1, 1, 2)
    assert torch.allclose(probabilities_of(logits).flatten(), torch.tensor([0.5, 0.75]))
    assert classes_of(probabilities_of(logits), 0.6).flatten().tolist() == [0, 1]
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0]]).view(1, 3, 1, 2)
    assert torch.allclose(probabilities_of(logits).sum(1), torch.ones(1, 1, 2))
    assert classes_of(probabilities_of(logits)).flatten().tolist() == [1, 2]


def test_not_a_number_is_refused(volume):
    pixels = volume.pixels.copy()
    pixels[2, 3, 4] = np.nan
    with pytest.raises(BadInputError, match="1 voxels that are NaN or infinite"):
        list(predict_slices(centre_model(), Volume(pixels), ALL, CPU))


def test_a_model_without_normalisation_is_refused(volume):
    model = centre_model().with_facts(normalisation=None)
    with pytest.raises(BadInputError, match="no normalisation"):
        list(predict_slices(model, volume, ALL, CPU))


@pytest.mark.parametrize("size", [(48, 80), (20, 17)])
def test_vision_transformers_take_any_size(size):
    model = build_model("dpt", "vit_tiny_patch16_224", weights="none")
    with torch.no_grad():
        assert logits_of(model.module.eval(), torch.randn(1, 3, *size), model.stride).shape == (1, 1, *size)
