"""The assertion: passes for an even model, and says what is wrong with any other."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from evenslice import assert_symmetric, save_model, save_volume
from evenslice.evidence.result import Audit, Check, MethodResult
from evenslice.evidence.stats import Interval
from evenslice.verbs.assert_symmetric import failure_message
from evenslice.volume.normalisation import Normalisation

ONE = Normalisation((0.0,), (1.0,))
QUICK = {"windows": 8, "tile": 32, "methods": ["gradient"]}


@pytest.fixture
def volume(grey):
    return np.concatenate([grey, grey[::-1] // 2 + 40])


def conv(*weights):
    network = nn.Conv2d(len(weights), 1, 1)
    network.weight.data = torch.tensor(weights).view(1, -1, 1, 1)
    return network


def test_an_even_network_passes_and_stays_as_it_was(volume):
    network = conv(1.0, 2.0, 1.0).train().double()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = assert_symmetric(network, volume, **QUICK)
    assert isinstance(found, Audit) and found.verdict == "symmetric"
    assert network.training and all(
        p.requires_grad and p.grad is None for p in network.parameters()
    )
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_leaning_network_fails_with_all_that_is_known(volume):
    with pytest.raises(AssertionError) as caught:
        assert_symmetric(conv(1.0, 2.0, 3.0), volume, **QUICK)
    assert str(caught.value).startswith(
        "the model is asymmetric: by gradient mirror pair 1 is +0.500 (95 % interval +0.500 to +0.500), beyond the margin of 0.05: "
        "the next slice counts more than the previous slice; make the stem even with uniform_stem before training"
    )


def test_of_more_slices_the_pair_that_leans_most_is_named(volume):
    with pytest.raises(
        AssertionError, match=r"mirror pair 2 is -0.500 .*: slice -2 counts more than slice \+2;"
    ):
        assert_symmetric(conv(3.0, 1.0, 2.0, 1.2, 1.0), volume, **QUICK)
    assert assert_symmetric(conv(3.0, 1.0, 2.0, 1.2, 1.0), volume, margin=0.51, **QUICK).slices == 5


def test_it_takes_models_and_paths(tmp_path, make_model, volume):
    save_volume(tmp_path / "raw.tif", volume)
    save_model(tmp_path / "even.safetensors", make_model("green"))
    options = {"windows": 6, "tile": 16, "methods": ["gradient"], "seed": 1}
    assert (
        assert_symmetric(tmp_path / "even.safetensors", tmp_path / "raw.tif", **options).windows
        == 6
    )


def test_what_is_not_judged_fails_too_unless_allowed(volume):
    with pytest.raises(
        AssertionError, match=r"too few blocks \(\d\), expected six or more; give a larger volume"
    ):
        assert_symmetric(conv(1.0, 2.0, 1.0), volume, windows=4, tile=32, methods=["gradient"])
    few = assert_symmetric(
        conv(1.0, 2.0, 3.0),
        volume,
        windows=4,
        tile=32,
        methods=["gradient"],
        allow_inconclusive=True,
    )
    assert few.verdict == "inconclusive: too few blocks"
    for network, why in ((conv(2.0), "it sees one slice"), (conv(0.009, 1.0, 0.009), "under 2 %")):
        with pytest.raises(
            AssertionError, match=re.escape(f"(abstained): {why}".split(":")[0]) + ".*" + why
        ):
            assert_symmetric(network, volume, slices=network.in_channels, **QUICK)
    with pytest.raises(AssertionError, match="asymmetric"):
        assert_symmetric(conv(1.0, 2.0, 3.0), volume, allow_inconclusive=True, **QUICK)


def made(verdict, low, high, passed=True, norm=ONE):
    pair = Interval((low + high) / 2, low, high)
    method = MethodResult((Interval(0.3, 0.3, 0.3),) * 3, (pair,), pair, verdict)
    check = Check(0.0, 1e-4, passed, "")
    audit = Audit(
        3,
        8,
        8,
        0,
        0,
        0.05,
        0.95,
        (32, 32),
        (),
        norm,
        {"gradient": method},
        0.0,
        0.0,
        {"twin": check},
        verdict,
    )
    return failure_message(audit)


def test_the_words_for_each_way_to_fail():
    assert made("symmetric", -0.01, 0.01) is None
    assert made("symmetric", -0.01, 0.01, passed=False) == (
        "the model looks symmetric, but do not believe it: twin failed; look at the audit"
    )
    assert "(but do not believe it: twin failed)" in made("asymmetric", 0.1, 0.2, passed=False)
    assert (
        "by gradient mirror pair 1 is -0.020 (95 % interval -0.100 to +0.060), neither inside nor beyond"
        in made("inconclusive", -0.1, 0.06)
    )
    assert "give more than 8 windows" in made("inconclusive", -0.1, 0.06)
    assert "normalised by different numbers" in made(
        "inconclusive", 0, 0, norm=Normalisation((0.0, 1, 2), (1.0,) * 3)
    )


def test_pytest_does_not_show_its_own_frames(volume):
    with pytest.raises(AssertionError) as caught:
        assert_symmetric(conv(1.0, 2.0, 3.0), volume, **QUICK)
    shown = caught.traceback.filter(caught)
    assert [entry.name for entry in shown] == ["test_pytest_does_not_show_its_own_frames"]
