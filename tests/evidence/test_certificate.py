"""The certificate, BatchNorm statistics recalibrated, and the change of the output."""

import numpy as np
import pytest
import torch
from torch import nn

from evenslice import mirror_stem
from evenslice.evidence.certificate import certify
from evenslice.labels.targets import Target
from evenslice.model.spec import Model, Spec
from evenslice.verbs.fix import output_change, predict_windows, recalibrate, window_scores
from evenslice.volume.normalisation import Normalisation


def linear(weights, norm=None):
    conv = nn.Conv2d(len(weights), 1, 1, bias=False)
    conv.weight.data = torch.tensor(weights).view(1, -1, 1, 1)
    return Model(
        conv.eval(), Spec(slices=len(weights)), norm or Normalisation((100.0,), (20.0,)), stride=1
    )


def test_a_symmetric_model_is_certified_and_an_asymmetric_one_is_not():
    assert certify(linear([0.5, 2.0, 0.5])).symmetric
    found = certify(linear([0.5, 2.0, 0.6]))
    assert not found.symmetric
    assert found.float32 == pytest.approx(found.float64, rel=1e-3)


def test_the_response_by_hand():
    # One slot counts: f(x) = x0, f(reverse x) = x2, on a window of 1, 0, -3 in normalised units:
    # |1 + 3| / 1, or more, by noise.
    raw = np.stack([np.full((64, 64), v) for v in (120.0, 100.0, 40.0)])
    model = linear([1.0, 0.0, 0.0])
    assert certify(model, [raw]).float64 >= 4.0
    assert certify(model).real_windows == 0


def test_float64_sees_what_float32_takes_for_rounding():
    found = certify(linear([0.5, 2.0, 0.5000002]))
    assert found.float32 < 1e-5
    assert not found.symmetric


def test_normalisation_per_slot_is_seen():
    norm = Normalisation((90.0, 100.0, 120.0), (20.0, 20.0, 30.0))
    assert not certify(linear([1.0, 1.0, 1.0], norm)).symmetric


def test_a_network_is_certified_after_the_mirror_average(grey):
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)
    network = nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), last)
    model = Model(network.eval(), Spec(), Normalisation((128.0,), (40.0,)), stride=1)
    windows = [grey[z - 1 : z + 2] for z in (2, 5)]
    assert not certify(model, windows).symmetric
    mirror_stem(model.module, 3)
    found = certify(model, windows, seed=3)
    assert found.symmetric
    assert found == certify(model, windows, seed=3)
    assert found.to_dict()["tolerance"] == {"float32": 1e-5, "float64": 1e-12}
    assert next(model.module.parameters()).dtype == torch.float32


def test_batch_norm_statistics_by_hand():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))
    network[0].running_mean.fill_(9.0)
    windows = [np.random.default_rng(n).normal(100, 20, (3, 16, 16)) for n in range(4)]
    norm = Normalisation((100.0,), (20.0,))
    before = network[1].weight.clone()
    assert recalibrate(network, 1, norm, windows) == 1
    pairs = np.stack([np.stack([norm.apply(w), norm.apply(w[::-1])]) for w in windows])
    np.testing.assert_allclose(network[0].running_mean, pairs.mean((0, 1, 3, 4)), atol=1e-6)
    np.testing.assert_allclose(network[0].running_mean[0], network[0].running_mean[2], atol=1e-6)
    assert network[0].momentum == 0.1
    assert network.training
    assert torch.equal(network[1].weight, before)


def test_networks_without_batch_norm_are_left_alone():
    norm, network = Normalisation((0.0,), (1.0,)), nn.BatchNorm2d(3)
    assert recalibrate(nn.Conv2d(3, 1, 1), 1, norm, [np.ones((3, 8, 8))]) == 0
    network.running_mean.fill_(2.0)
    assert recalibrate(network, 1, norm, []) == 0
    assert network.running_mean[0] == 2.0


def test_the_change_of_output_and_dice_by_hand():
    one, other = linear([0.0, 1.0, 0.0]), linear([0.0, -1.0, 0.0])
    raw = np.stack(
        [np.full((2, 2), 100.0), np.array([[80.0, 80.0], [120.0, 120.0]]), np.full((2, 2), 100.0)]
    )
    before, after = (predict_windows(m, m.normalisation, [raw]) for m in (one, other))
    sigmoid = 1 / (1 + np.exp(-1))
    assert output_change(before, after) == pytest.approx(2 * sigmoid - 1)
    truth = [np.array([[0, 0], [1, 1]])]
    target = Target("foreground", 1)
    assert window_scores(before, truth, target).dice == 1.0
    assert window_scores(after, truth, target).dice == 0.0
