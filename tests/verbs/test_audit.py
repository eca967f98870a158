"""The audit: laws that hold for any model and volume."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from evenslice import audit, mirror_stem
from evenslice.errors import BadInputError
from evenslice.evidence.summary import method_result
from evenslice.model.spec import Model, Spec
from evenslice.volume.normalisation import Normalisation

SMALL = {"windows": 12, "tile": 32}
GRADIENT = {**SMALL, "methods": ["gradient"]}


@pytest.fixture
def volume(grey):
    return np.concatenate([grey, grey[::-1] // 2 + 40])  # 18 slices, not symmetric in intensity


def linear_model(weights, normalisation=None):
    conv = nn.Conv2d(len(weights), 1, 1)
    conv.weight.data = torch.tensor(weights).view(1, -1, 1, 1)
    return Model(
        conv.eval(),
        Spec(slices=len(weights)),
        normalisation or Normalisation((128.0,), (40.0,), "file"),
        stride=1,
    )


@pytest.mark.parametrize("weights", [[1.0, -2.0, 0.5], [0.1, 0.2, 1.0, -0.2, 0.3], [2.0]])
def test_a_linear_model_has_the_shares_of_its_weights(volume, weights):
    found = audit(linear_model(weights), volume, **SMALL)
    sizes = np.abs(weights) / np.abs(weights).sum()
    method = found.methods["gradient"]
    np.testing.assert_allclose([s.value for s in method.shares], sizes, rtol=1e-5)
    assert [s.low for s in method.shares] == [s.value for s in method.shares]
    half = len(weights) // 2
    expected = [
        (sizes[half + j] - sizes[half - j]) / (sizes[half + j] + sizes[half - j])
        for j in range(1, half + 1)
    ]
    np.testing.assert_allclose([p.value for p in method.pairs], expected, rtol=1e-5, atol=1e-7)
    assert found.verdict == ("abstained" if len(weights) == 1 else "asymmetric")


def test_a_model_that_looks_at_the_centre_alone_abstains(volume):
    assert audit(linear_model([0.009, 1.0, 0.009]), volume, **SMALL).verdict == "abstained"


def test_a_uniform_stem_is_even_before_training(volume, make_model, move_weights):
    for init, even in (("green", True), ("rgb", False)):
        model = make_model(init)
        for name, parameter in model.module.named_parameters():
            if "conv1.weight" not in name:
                parameter.data.add_(
                    0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
                )
        if not even:
            model.module.encoder.model.conv1.weight.data[:, 0] *= 3
        found = audit(model, volume, **GRADIENT)
        shares = np.array([s.value for s in found.methods["gradient"].shares])
        assert (np.abs(shares - 1 / 3).max() < 1e-6) == even
        assert found.verdict == ("symmetric" if even else "asymmetric")
        assert found.checks["mirror_twin"].passed
        assert found.checks["random_weights"].passed


def test_a_mirror_symmetric_model_is_even_in_every_window(volume, make_model):
    model = make_model("random")
    mirror_stem(model.module, 3)
    found = audit(model, volume, **GRADIENT)
    pair = found.methods["gradient"].pairs[0]
    assert max(abs(pair.low), abs(pair.high)) < 1e-4
    assert found.probability_change < 1e-6
    assert found.flipped_fraction == 0.0
    assert found.verdict == "symmetric"


def test_reading_the_volume_backwards_changes_nothing(volume, make_model, move_weights):
    model = make_model("random")
    move_weights(model.module)
    volume = volume[:15]  # a multiple of S, so that the blocks of both are the same
    everything = {"windows": 10_000, "tile": 32, "methods": ["gradient"]}
    one, back = audit(model, volume, **everything), audit(model, volume[::-1], **everything)
    assert one.windows == back.windows == 13 * 2 * 3
    for name in ("shares", "pairs"):
        found, expected = (
            [i.value for i in getattr(a.methods["gradient"], name)] for a in (one, back)
        )
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert one.probability_change == pytest.approx(back.probability_change, abs=1e-6)
    assert one.flipped_fraction > 0  # else the decision's own order would not be tested


def test_normalisation_per_slot_breaks_an_even_stem_and_is_caught(volume, make_model):
    model = make_model("green")
    found = audit(model, volume, mean=[100, 128, 140], std=[30, 40, 60], **GRADIENT)
    assert found.verdict != "symmetric"
    assert found.probability_change > 1e-4
    check = found.checks["uniform_normalisation"]
    assert check.passed is False
    assert check.value == 40 + 30
    assert found.to_dict()["normalisation"] == {
        "uniform": False,
        "mean": [100, 128, 140],
        "std": [30, 40, 60],
        "source": "option",
    }


def test_the_json_is_as_designed_and_the_same_for_the_same_seed(volume, make_model):
    model = make_model("rgb")
    one, two, other = (audit(model, volume, seed=seed, **GRADIENT).to_json() for seed in (1, 1, 2))
    assert one == two != other
    found = json.loads(one)
    assert found["schema"] == "evenslice.audit/1"
    top = [
        "slices",
        "windows",
        "clusters",
        "seed",
        "margin",
        "confidence",
        "stems",
        "normalisation",
        "methods",
        "reversal",
        "lag",
        "checks",
        "verdict",
    ]
    assert set(top) <= set(found)
    method = found["methods"]["gradient"]
    ends = [f"{name}{end}" for name in ("shares", "mirror_pairs") for end in ("", "_low", "_high")]
    assert set(method) == {
        *ends,
        "mirror_index",
        "mirror_low",
        "mirror_high",
        "centre_share",
        "verdict",
    }
    assert set(found["reversal"]) == {"probability_change", "flipped_fraction"}
    assert set(found["stems"][0]) >= {"module", "kind", "norms"}
    assert all(
        set(check) == {"value", "tolerance", "passed", "reason"}
        for check in found["checks"].values()
    )
    assert (found["windows"], found["slices"], found["seed"]) == (12, 3, 1)


def test_one_slice_has_no_index(volume):
    found = json.loads(audit(linear_model([1.0]), volume, **SMALL).to_json())
    assert found["methods"]["gradient"]["mirror_index"] is None
    assert found["methods"]["gradient"]["verdict"] == "abstained"


def test_few_blocks_are_inconclusive(make_model, grey):
    found = audit(make_model("rgb"), grey[:3], windows=40, tile=64)
    assert found.clusters == 1
    assert found.verdict == "inconclusive: too few blocks"


def test_windows_without_importance_are_dropped():
    importance = np.ones((20, 2, 3))
    importance[3:5] = 0
    found = method_result(importance, np.arange(20), 0.05, 0.95, 0)
    assert found.verdict == "symmetric"
    with pytest.raises(BadInputError, match="no window has any importance"):
        method_result(np.zeros((4, 2, 3)), np.arange(4), 0.05, 0.95, 0)


def test_the_model_is_left_alone(volume, make_model):
    model = make_model("rgb")
    model.module.train()
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    audit(model, volume, **GRADIENT)
    assert model.module.training
    assert all(p.requires_grad for p in model.module.parameters())
    assert all(torch.equal(before[k], v) for k, v in model.module.state_dict().items())


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32])
def test_any_type_of_voxel_gives_the_same_audit(volume, dtype):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 1)).eval()
    model = Model(network, Spec(), Normalisation((128.0,), (40.0,), "file"), stride=1)
    one, other = (audit(model, v, **SMALL) for v in (volume, volume.astype(dtype)))
    for name, method in one.methods.items():
        assert other.methods[name].index.value == pytest.approx(method.index.value, abs=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["magic"]}, "method magic is unknown, expected reversal, ablation"),
        ({"windows": "many"}, "windows is 'many', expected a whole number or auto"),
        ({"region": "truth"}, "there are no labels"),
        ({"region": "here"}, "region 'here' is unknown"),
        ({"design": "random"}, "design 'random' is unknown"),
        ({"roi": "0:2,:,:"}, "has 2 slices, expected at least 3"),
        ({"methods": []}, "method .none. is unknown"),
        ({"margin": 0.0}, "margin is 0.0, expected a number between 0 and 1"),
        ({"windows": 0}, "0 windows were asked for"),
        ({"mean": [1.0]}, "only one of mean and std"),
        ({"mean": [1.0, 2.0], "std": [1.0, 2.0]}, "2 means were given, expected 1 or 3"),
        ({"mean": [1.0], "std": [0.0]}, "a std above 0"),
        ({"device": "tpu"}, "device 'tpu' is unknown"),
        ({"labels": np.zeros((2, 3, 4), np.uint8)}, r"shape \(2, 3, 4\), expected \(18, 64, 96\)"),
    ],
)
def test_what_cannot_be_used_is_said(volume, make_model, options, message):
    with pytest.raises(BadInputError, match=message):
        audit(make_model("rgb"), volume, **options)


def test_constant_and_broken_volumes_are_said(make_model, volume):
    model = make_model("rgb").with_facts(normalisation=None)
    with pytest.raises(BadInputError, match="is constant"):
        audit(model, np.full((9, 64, 64), 7, np.uint8))
    broken = volume.astype(np.float32)
    broken[8] = np.nan
    with pytest.raises(BadInputError, match="NaN or infinite"):
        audit(make_model("rgb"), broken, windows=200, tile=32)
