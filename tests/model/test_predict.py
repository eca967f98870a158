"""How a network is run: windows of any size, precision, threads, and layers folded."""

import numpy as np
import pytest
import torch
from torch import nn

from evenslice.errors import BadInputError
from evenslice.model.predict import (
    ConvReLU,
    Runner,
    Settings,
    classes_of,
    fused,
    logits_of,
    probabilities_of,
    resolve_precision,
)
from evenslice.model.spec import ExternalSpec, Model, Spec

CPU = torch.device("cpu")


def external(form):
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
        assert resolve_precision("auto", external("callable"), torch.device(device)) == found
        assert resolve_precision("auto", external("onnx"), torch.device(device)) == "fp32"
        assert resolve_precision("fp32", ours, torch.device(device)) == "fp32"
        assert resolve_precision("bf16", ours, torch.device(device)) == "bf16"


def test_auto_is_fp32_where_torch_cannot_say(ours, monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert resolve_precision("auto", ours, CPU) == "fp32"


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_an_exported_network_has_its_precision(form):
    with pytest.raises(BadInputError, match="bf16 was requested of an exported network"):
        resolve_precision("bf16", external(form), CPU)
    assert resolve_precision("fp32", external(form), CPU) == "fp32"


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


@pytest.mark.parametrize(
    ("sizes", "stride", "only"),
    [([(33, 50)], 32, None), ([(40, 64), (33, 50), (1, 1)], 1, (40, 64))],
    ids=["a multiple of 32", "one size"],
)
def test_other_sizes_than_a_network_takes_are_padded_and_cut(sizes, stride, only):
    class Fussy(nn.Module):
        def forward(self, x):
            assert x.shape[-2:] == only if only else not x.shape[-2] % 32 + x.shape[-1] % 32
            return x[:, :1] * 2

    for size in sizes:
        x = torch.randn(2, 3, *size)
        assert torch.equal(logits_of(Fussy(), x, stride, only), x[:, :1] * 2)


def test_probabilities_and_classes_by_hand():
    logits = torch.tensor([0.0, float(np.log(3.0))]).view(1, 1, 1, 2)
    assert torch.allclose(probabilities_of(logits).flatten(), torch.tensor([0.5, 0.75]))
    assert classes_of(probabilities_of(logits), 0.6).flatten().tolist() == [0, 1]
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0]]).view(1, 3, 1, 2)
    assert torch.allclose(probabilities_of(logits).sum(1), torch.ones(1, 1, 2))
    assert classes_of(probabilities_of(logits)).flatten().tolist() == [1, 2]


class TwoReaders(nn.Module):
    """A convolution whose output a batch norm and a sum both read."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        y = self.conv(x)
        return self.last(self.norm(y) + y)


def count(module, kind):
    return sum(isinstance(layer, kind) for layer in module.modules())


def with_statistics(module):
    """Move the running statistics, so that a batch norm does something."""
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -1, 1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return module.eval()


def test_folded_layers_answer_like_the_network(make_model):
    model = make_model()
    with_statistics(model.module)
    faster, x = fused(model).module, torch.randn(2, 3, 64, 96)
    assert count(model.module, nn.BatchNorm2d) > 0 == count(faster, nn.BatchNorm2d)
    assert not any(parameter.is_inference() for parameter in faster.parameters())
    if hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        assert count(faster, ConvReLU) > 0
    with torch.no_grad():
        torch.testing.assert_close(faster(x), model.module(x), rtol=0, atol=1e-4)


def test_a_convolution_with_a_second_reader_is_not_folded():
    model = Model(with_statistics(TwoReaders()), Spec(), stride=1)
    assert fused(model) is model
