"""The assertion: passes for a symmetric model, and says what is wrong with any other."""

import numpy as np
import pytest
import torch
from torch import nn

from evenslice import assert_symmetric, save_model, save_volume
from evenslice.evidence.result import Audit, Check, MethodResult
from evenslice.evidence.stats import Interval
from evenslice.options import AuditOptions
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


def test_a_symmetric_network_passes_and_stays_as_it_was(volume):
    network = conv(1.0, 2.0, 1.0).train().double()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = assert_symmetric(network, volume, **QUICK)
    assert isinstance(found, Audit) and found.verdict == "symmetric"
    assert network.training and all(
        p.requires_grad and p.grad is None for p in network.parameters()
    )
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_an_asymmetric_network_fails_with_all_that_is_known(volume):
    pair = r"by gradient mirror pair 1 is \+0.500 \(95 % interval \+0.500 to \+0.500\)"
    with pytest.raises(AssertionError, match=f"{pair}, beyond the margin of 0.05: the next slice"):
        assert_symmetric(conv(1.0, 2.0, 3.0), volume, **QUICK)


def test_of_more_slices_the_most_asymmetric_pair_is_named(volume):
    with pytest.raises(
        AssertionError, match=r"mirror pair 2 is -0.500 .*: slice -2 counts more than slice \+2;"
    ):
        assert_symmetric(conv(3.0, 1.0, 2.0, 1.2, 1.0), volume, **QUICK)
    assert assert_symmetric(conv(3.0, 1.0, 2.0, 1.2, 1.0), volume, margin=0.51, **QUICK).slices == 5


def test_it_takes_models_and_paths(tmp_path, make_model, volume):
    save_volume(tmp_path / "raw.tif", volume)
    save_model(tmp_path / "m.safetensors", make_model("green"))
    options = AuditOptions(windows=6, tile=16, methods=["gradient"], seed=1)
    found = assert_symmetric(tmp_path / "m.safetensors", tmp_path / "raw.tif", options)
    assert found.windows == 6


def test_what_is_not_judged_fails_too_unless_allowed(volume):
    options = {**QUICK, "windows": 4}
    with pytest.raises(AssertionError, match=r"too few blocks \(\d\), expected six or more"):
        assert_symmetric(conv(1.0, 2.0, 1.0), volume, **options)
    few = assert_symmetric(conv(1.0, 2.0, 3.0), volume, allow_inconclusive=True, **options)
    assert few.verdict == "inconclusive: too few blocks"
    for network, why in ((conv(2.0), "it sees one slice"), (conv(0.009, 1.0, 0.009), "under 2 %")):
        with pytest.raises(AssertionError, match=rf"\(abstained\): .*{why}"):
            assert_symmetric(network, volume, slices=network.in_channels, **QUICK)
    with pytest.raises(AssertionError, match="asymmetric"):
        assert_symmetric(conv(1.0, 2.0, 3.0), volume, allow_inconclusive=True, **QUICK)


def message(verdict, low, high, passed=True, norm=ONE):
    pair = Interval((low + high) / 2, low, high)
    method = MethodResult((Interval(0.3, 0.3, 0.3),) * 3, (pair,), pair, verdict)
    check = Check(0.0, 1e-4, passed, "")
    counts, margins = (3, 8, 8, 0, 0), (0.05, 0.95)
    measured = ({"gradient": method}, 0.0, 0.0, {"twin": check}, verdict)
    return failure_message(Audit(*counts, *margins, (32, 32), (), norm, *measured))


def test_each_way_to_fail_has_its_message():
    assert message("symmetric", -0.01, 0.01) is None
    for verdict in ("symmetric", "asymmetric"):
        unreliable = message(verdict, 0.1, 0.2, passed=False)
        assert "sanity checks twin failed, so the result is unreliable" in unreliable
    wide = message("inconclusive", -0.1, 0.06)
    assert "pair 1 is -0.020 (95 % interval -0.100 to +0.060), neither inside nor beyond" in wide
    assert "give more than 8 windows" in wide
    by_slot = message("inconclusive", 0, 0, norm=Normalisation((0.0, 1, 2), (1.0,) * 3))
    assert "normalised by different numbers" in by_slot


def test_pytest_does_not_show_its_own_frames(volume):
    with pytest.raises(AssertionError) as caught:
        assert_symmetric(conv(1.0, 2.0, 3.0), volume, **QUICK)
    shown = caught.traceback.filter(caught)
    assert [entry.name for entry in shown] == ["test_pytest_does_not_show_its_own_frames"]
