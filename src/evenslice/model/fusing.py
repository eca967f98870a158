"""A network made quicker for prediction: batch norms and ReLUs folded into the convolutions before them, proven to answer alike."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from evenslice.model.runner import form_takes_layout
from evenslice.model.spec import Model

SIDE = 64
TOLERANCE = 1e-4  # of the largest logit


class Chain(NamedTuple):
    """A convolution and what alone reads its output: names of modules, None where there is none."""

    conv: str
    norm: str | None
    relu: str | None


def fused(model: Model, seed: int = 0) -> Model:
    """Return a copy of a model with layers folded into its convolutions; the model itself where that is not exact.

    What belongs together is found by running the network once: a batch norm whose input is what a convolution returned, a ReLU
    whose input is what one of these returned. The copy is kept only if it answers noise like the original, so that a convolution
    with a second reader is never folded.

    Parameters
    ----------
    model
        Stays as it is, in eval mode.
    seed
        Of the noise.
    """
    model.module.eval()
    if not form_takes_layout(model) or model.size is not None:
        return model
    device = next((p.device for p in model.module.parameters()), torch.device("cpu"))
    side = -(-SIDE // model.stride) * model.stride
    noise = torch.randn(
        2, model.slices, side, side, generator=torch.Generator().manual_seed(seed)
    ).to(device)
    with torch.inference_mode():
        before = model.module(noise)
        for relu in (True, False) if device.type == "cpu" and _has_fused_relu() else (False,):
            try:
                chains = _chains(model.module, noise)
                module = _folded(model.module, chains, relu)
                after = module(noise)
                with torch.autocast(device.type, torch.bfloat16):
                    module(noise)
            except (
                Exception
            ):  # their code may refuse a copy, or a layer of another kind: the next way, then
                continue
            if chains and torch.allclose(
                after, before, rtol=0, atol=TOLERANCE * float(before.abs().max())
            ):
                return model.with_facts(module=module)
    return model


def _chains(module: nn.Module, x: Tensor) -> list[Chain]:
    """Find the convolutions of a network with the batch norm and the ReLU that read them, each called once."""
    made: dict[int, tuple[str, Tensor, int]] = {}
    calls: list[str] = []
    reads: dict[str, str] = {}

    def see(part: nn.Module, seen: Tensor, name: str) -> None:
        calls.append(name)
        maker, tensor, version = made.get(id(seen), ("", None, 0))
        if tensor is not None and tensor._version == version and type(part) is not nn.Conv2d:
            reads[maker] = name

    def make(out: Tensor, name: str) -> None:
        made[id(out)] = (
            name,
            out,
            out._version,
        )  # a version: something added in place between two layers is seen

    kinds = {name: part for name, part in module.named_modules() if _kind(part)}
    hooks = []
    for name, part in kinds.items():
        hooks.append(
            part.register_forward_pre_hook(lambda p, seen, name=name: see(p, seen[0], name))
        )
        hooks.append(part.register_forward_hook(lambda _, __, out, name=name: make(out, name)))
    try:
        with torch.inference_mode(False), torch.no_grad():
            module(x.clone())
    finally:
        for hook in hooks:
            hook.remove()
    once = {
        name: reads[name] for name in reads if calls.count(name) == calls.count(reads[name]) == 1
    }
    chains = []
    for name, part in kinds.items():
        norm = relu = None
        if _kind(part) == "conv" and name in once:
            reader = once[name]
            norm = reader if _kind(kinds[reader]) == "norm" else None
            relu = once.get(norm) if norm else reader
            relu = relu if relu and _kind(kinds[relu]) == "relu" else None
        if norm or relu:
            chains.append(Chain(name, norm, relu))
    return chains


def _kind(part: nn.Module) -> str | None:
    if (
        type(part) is nn.Conv2d
        and part.padding_mode == "zeros"
        and not isinstance(part.padding, str)
    ):
        return None if hasattr(part, "parametrizations") else "conv"
    if isinstance(part, nn.BatchNorm2d) and part.track_running_stats:
        return "norm"
    return "relu" if type(part) is nn.ReLU else None


def _folded(module: nn.Module, chains: list[Chain], relu: bool) -> nn.Module:
    """Return a copy in which chains are folded; an activation that is part of a batch norm stays where it cannot be."""
    quick = copy.deepcopy(module)
    for chain in chains:
        layer, activation = quick.get_submodule(chain.conv), chain.relu
        assert isinstance(layer, nn.Conv2d)
        if chain.norm is not None:
            after = quick.get_submodule(chain.norm)
            assert isinstance(after, nn.BatchNorm2d)
            layer, act = fuse_conv_bn_eval(layer, after), getattr(after, "act", nn.Identity())
            if relu and type(act) is nn.ReLU:
                activation, act = chain.norm, nn.Identity()
            _put(quick, chain.norm, act)
        if relu and activation is not None:
            _put(quick, chain.conv, ConvReLU(layer))
            _put(quick, activation, nn.Identity())
        else:
            _put(quick, chain.conv, layer)
    return quick


def _put(module: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, part)


def _has_fused_relu() -> bool:
    """Whether this torch has oneDNN's convolution with a ReLU at its end, the one its own compiler uses."""
    built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return built and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


class ConvReLU(nn.Module):
    """A convolution and a ReLU in one pass over memory, on the CPU.

    Parameters
    ----------
    conv
        The convolution, padded with zeros.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self._rough: tuple[Tensor, Tensor | None] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Take (B, C, y, x)."""
        conv = self.conv
        weight, bias = conv.weight, conv.bias
        if torch.is_autocast_enabled("cpu"):
            if self._rough is None:
                self._rough = weight.bfloat16(), None if bias is None else bias.bfloat16()
            (weight, bias), x = self._rough, x.bfloat16()
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x,
            weight,
            bias,
            list(conv.padding),
            list(conv.stride),
            list(conv.dilation),
            conv.groups,
            "relu",
            [],
            "",
        )
        return out
