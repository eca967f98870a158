"""A faster network for prediction: batch norms and ReLUs folded into convolutions, and verified."""

import copy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from evenslice.model.predict import device_of, runs_layer_by_layer
from evenslice.model.spec import Model

SIDE = 64
TOLERANCE = 1e-4  # of the largest logit


class Chain(NamedTuple):
    """A convolution and what alone reads its output: names of modules, None where there is none."""

    conv: str
    norm: str | None
    relu: str | None


def fused(model: Model, seed: int = 0) -> Model:
    """Return a copy of a model with layers folded into its convolutions; itself if that is inexact.

    What belongs together is found by running the network once: a batch norm whose input is what a
    convolution returned, a ReLU whose input is what one of these returned. The copy is kept only if
    it answers noise (of ``seed``) like the original, so that a convolution with a second reader is
    never folded.
    """
    model.module.eval()
    if not runs_layer_by_layer(model) or model.size is not None:
        return model
    device = device_of(model.module)
    side = -(-SIDE // model.stride) * model.stride
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, model.slices, side, side, generator=draw).to(device)
    with torch.inference_mode():
        before = model.module(noise)
        tolerance = TOLERANCE * float(before.abs().max())
        for with_relu in (True, False) if device.type == "cpu" and _has_conv_relu() else (False,):
            try:
                with torch.inference_mode(False), torch.no_grad():  # to leave ordinary parameters
                    chains = _find_chains(model.module, noise)
                    module = _fold(model.module, chains, with_relu)
                after = module(noise)
                with torch.autocast(device.type, torch.bfloat16):
                    module(noise)
            except Exception:  # a user's code may refuse a copy, or another kind of layer
                continue
            if chains and torch.allclose(after, before, rtol=0, atol=tolerance):
                return model.with_facts(module=module)
    return model


class _Trace:
    """Which layer reads what another one returned, seen while a network runs."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.readers: dict[str, str] = {}
        self._made: dict[int, tuple[str, Tensor, int]] = {}

    def before(self, part: nn.Module, inputs: tuple[Tensor, ...], name: str) -> None:
        self.calls.append(name)
        maker, tensor, version = self._made.get(id(inputs[0]), ("", None, 0))
        # another version: something was added in place between the two layers
        if tensor is not None and tensor._version == version and type(part) is not nn.Conv2d:
            self.readers[maker] = name

    def after(self, _: nn.Module, __: tuple[Tensor, ...], out: Tensor, name: str) -> None:
        self._made[id(out)] = (name, out, out._version)

    def reader(self, name: str) -> str | None:
        """Return the layer that reads a layer's output, if both are called once."""
        reader = self.readers.get(name)
        if reader is None or self.calls.count(name) != 1 or self.calls.count(reader) != 1:
            return None
        return reader


def _find_chains(module: nn.Module, x: Tensor) -> list[Chain]:
    """Find the convolutions with the batch norm and the ReLU that read them, each called once."""
    kinds = {name: kind for name, part in module.named_modules() if (kind := _kind(part))}
    trace, hooks = _Trace(), []
    for name in kinds:
        part = module.get_submodule(name)
        hooks.append(part.register_forward_pre_hook(partial(trace.before, name=name)))
        hooks.append(part.register_forward_hook(partial(trace.after, name=name)))
    try:
        module(x.clone())
    finally:
        for hook in hooks:
            hook.remove()
    chains = []
    for name in (name for name, kind in kinds.items() if kind == "conv"):
        norm = relu = None
        reader = trace.reader(name)
        if reader and kinds[reader] == "norm":
            norm, reader = reader, trace.reader(reader)
        if reader and kinds[reader] == "relu":
            relu = reader
        if norm or relu:
            chains.append(Chain(name, norm, relu))
    return chains


def _kind(part: nn.Module) -> str | None:
    if type(part) is nn.Conv2d and part.padding_mode == "zeros":
        plain = not isinstance(part.padding, str) and not hasattr(part, "parametrizations")
        return "conv" if plain else None
    if isinstance(part, nn.BatchNorm2d) and part.track_running_stats:
        return "norm"
    return "relu" if type(part) is nn.ReLU else None


def _fold(module: nn.Module, chains: list[Chain], with_relu: bool) -> nn.Module:
    """Return a copy in which chains are folded; an activation that cannot be folded stays."""
    folded = copy.deepcopy(module)
    for chain in chains:
        layer, activation = folded.get_submodule(chain.conv), chain.relu
        assert isinstance(layer, nn.Conv2d)
        if chain.norm is not None:
            norm = folded.get_submodule(chain.norm)
            assert isinstance(norm, nn.BatchNorm2d)
            layer = fuse_conv_bn_eval(layer, norm)
            act = getattr(norm, "act", nn.Identity())  # timm's batch norms bring an activation
            if with_relu and type(act) is nn.ReLU:
                activation, act = chain.norm, nn.Identity()
            folded.set_submodule(chain.norm, act)
        if with_relu and activation is not None:
            folded.set_submodule(chain.conv, ConvReLU(layer))
            folded.set_submodule(activation, nn.Identity())
        else:
            folded.set_submodule(chain.conv, layer)
    return folded


def _has_conv_relu() -> bool:
    """Whether this torch has oneDNN's convolution with a ReLU, the one that its compiler uses."""
    built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return built and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


class ConvReLU(nn.Module):
    """A convolution padded with zeros and a ReLU in one pass over memory, on the CPU."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self._bf16: tuple[Tensor, Tensor | None] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Take (B, C, y, x)."""
        conv = self.conv
        weight, bias = conv.weight, conv.bias
        if torch.is_autocast_enabled("cpu"):
            if self._bf16 is None:
                self._bf16 = weight.bfloat16(), None if bias is None else bias.bfloat16()
            (weight, bias), x = self._bf16, x.bfloat16()
        geometry = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, *geometry, "relu", [], ""
        )
        return out
