"""How a network is run: its precision, its threads, the same answer in each batch."""

import numpy as np
import pytest
import torch
from torch import nn

from evenslice.errors import BadInputError
from evenslice.model.predict import Runner, Settings, resolve_precision
from evenslice.model.spec import ExternalSpec, Model, Spec

CPU = torch.device("cpu")


def foreign(form):
    return Model(nn.Conv2d(3, 1, 1), ExternalSpec(form, "a.b:c", 3, 1, 3), stride=1)


@pytest.fixture
def ours():
    return Model(nn.Conv2d(3, 1, 1).eval(), Spec(), stride=1)


@pytest.fixture
def windows():
    return np.random.default_rng(0).normal(size=(3, 3, 40, 64)).astype(np.float32)


@pytest.mark.parametrize(("fast", "found"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_where_the_processor_has_it(ours, monkeypatch, fast, found):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: fast, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: fast)
    for device in ("cpu", "cuda"):
        assert resolve_precision("auto", ours, torch.device(device)) == found
        assert resolve_precision("auto", foreign("callable"), torch.device(device)) == found
        assert resolve_precision("auto", foreign("onnx"), torch.device(device)) == "fp32"
        assert resolve_precision("fp32", ours, torch.device(device)) == "fp32"
        assert resolve_precision("bf16", ours, torch.device(device)) == "bf16"


def test_auto_is_fp32_where_torch_cannot_say(ours, monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert resolve_precision("auto", ours, CPU) == "fp32"


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_an_exported_network_has_its_precision(form):
    with pytest.raises(BadInputError, match="bf16 was requested of an exported network"):
        resolve_precision("bf16", foreign(form), CPU)
    assert resolve_precision("fp32", foreign(form), CPU) == "fp32"


def test_bf16_is_near_and_not_the_same(make_model, windows):
    model = make_model()
    exact = Runner(model, Settings()).start(windows).result()
    rough = Runner(model, Settings(precision="bf16")).start(windows).result()
    assert exact.dtype == rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.03
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}


def test_the_layout_of_memory_does_not_change_the_answer(make_model, windows):
    model = make_model()
    with torch.no_grad():
        plain = model.module(torch.from_numpy(windows)).numpy()
    np.testing.assert_allclose(Runner(model, Settings()).logits(windows), plain, atol=1e-5)


def test_it_runs_in_eval_mode(windows):
    model = Model(nn.Sequential(nn.Conv2d(3, 1, 1), nn.Dropout(0.5)).train(), Spec(), stride=1)
    runner = Runner(model, Settings())
    assert not model.module.training
    np.testing.assert_array_equal(runner.logits(windows), runner.logits(windows))


def test_probabilities_are_those_of_the_logits(ours, windows):
    runner = Runner(ours, Settings())
    logits = runner.logits(windows)
    np.testing.assert_allclose(runner.start(windows).result(), 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_threads_are_those_chosen(ours, windows):
    before = torch.get_num_threads()
    try:
        Runner(ours, Settings(threads=before + 1)).start(windows)
        assert torch.get_num_threads() == before + 1
        Runner(ours, Settings(threads=before)).start(windows)
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(before)
