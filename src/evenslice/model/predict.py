"""Predicting: normalised windows to logits and probabilities, on a device, in a precision."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from evenslice.errors import BadInputError
from evenslice.model.logits import duplicate
from evenslice.model.spec import ExternalSpec, Model


def logits_of(
    module: nn.Module, x: Tensor, stride: int, size: tuple[int, int] | None = None
) -> Tensor:
    """Run a network on normalised windows (B, S, y, x) of any size: logits (B, classes, y, x).

    What lacks to a multiple of ``stride``, or to ``size``, the only (y, x) that the network takes,
    is padded by repeating the edge, and cut off.
    """
    height, width = x.shape[-2:]
    if size is None:
        bottom, right = -height % stride, -width % stride
    else:
        bottom, right = size[0] - height, size[1] - width
    if bottom or right:
        x = functional.pad(x, (0, right, 0, bottom), mode="replicate")
    out: Tensor = module(x)
    return out[..., :height, :width]


def probabilities_of(logits: Tensor) -> Tensor:
    """Turn logits (B, C, y, x) into probabilities: sigmoid for one class, softmax over more."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def classes_of(probabilities: Tensor, threshold: float = 0.5) -> Tensor:
    """Turn probabilities (B, C, y, x) into classes (B, y, x): by threshold, or the largest."""
    if probabilities.shape[1] == 1:
        return (probabilities[:, 0] > threshold).to(torch.uint8)
    return probabilities.argmax(1).to(torch.uint8)


def device_named(name: str) -> torch.device:
    """Return the device ``auto``, ``cpu`` or ``cuda``; ``auto`` is a GPU where there is one."""
    if name not in ("auto", "cpu", "cuda"):
        raise BadInputError(
            f"the device {name!r} is unknown, expected auto, cpu or cuda; choose one"
        )
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInputError(
            "no CUDA device was found, expected one for --device cuda; use --device cpu or auto"
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def device_of(module: nn.Module) -> torch.device:
    """Return where a network is; the CPU if it has no parameters."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def runs_layer_by_layer(model: Model) -> bool:
    """Whether torch runs a network layer by layer, so that layout and precision can be chosen."""
    return not isinstance(model.spec, ExternalSpec) or model.spec.form == "callable"


def resolve_precision(
    requested: str, model: Model, device: torch.device
) -> Literal["fp32", "bf16"]:
    """Choose fp32 or bf16: ``auto`` is bfloat16 where the processor multiplies matrices of it.

    ``BadInputError`` if bf16 is requested of an exported network.
    """
    free = runs_layer_by_layer(model)
    if requested == "bf16" and not free:
        raise BadInputError(
            "bf16 was requested of an exported network, which has its own precision, "
            "expected auto or fp32; use --precision auto"
        )
    if requested != "auto":
        return "bf16" if requested == "bf16" else "fp32"
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
    return "bf16" if fast and free else "fp32"


@dataclass(frozen=True)
class Settings:
    """How a network is run; equal settings on one kind of processor give equal bits.

    ``bf16``: matrix products in bfloat16, float32 sums, weights and normalisation layers.
    """

    device: str = "cpu"  # or "cuda"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int = 1  # of the CPU
    batch: int = 1  # windows at a time


class Runner:
    """A network made ready to run by some settings: in eval mode, on its device, channels last."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self._device = torch.device(settings.device)
        self._free = runs_layer_by_layer(model)
        module = model.module.eval().to(self._device)
        if self._free:
            for weight in module.parameters():  # those of 3-D kernels have five axes
                if weight.ndim == 4:
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)

    def start(self, windows: NDArray[np.float32]) -> "Pending":
        """Start on normalised windows (B, S, y, x); on a GPU it returns before the work is done."""
        if self._device.type == "cpu" and torch.get_num_threads() != self.settings.threads:
            torch.set_num_threads(self.settings.threads)
        with torch.inference_mode():
            return Pending(probabilities_of(self._logits(windows)))

    def logits(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (B, C, y, x) of normalised windows (B, S, y, x)."""
        with torch.inference_mode():
            return Pending(self._logits(windows)).result()

    def _logits(self, windows: NDArray[np.float32]) -> Tensor:
        x = torch.from_numpy(np.ascontiguousarray(windows))
        if self._device.type == "cuda":
            x = x.pin_memory().to(self._device, non_blocking=True)
        if self._free:
            x = x.contiguous(memory_format=torch.channels_last)
        with self._cast():
            return logits_of(self.model.module, x, self.model.stride, self.model.size).float()

    def _cast(self) -> AbstractContextManager[object]:
        if self.settings.precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, torch.bfloat16)


class Pending:
    """A prediction that may still be on its way from a GPU."""

    def __init__(self, found: Tensor) -> None:
        self._event = None
        self._found = found
        if found.device.type == "cuda":
            self._found = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
            self._found.copy_(found, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def result(self) -> NDArray[np.float32]:
        """Wait for it, and return it as an array."""
        if self._event is not None:
            self._event.synchronize()
        found: NDArray[np.float32] = self._found.contiguous().numpy()
        return found


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
                return replace(model, module=module)
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
    folded = duplicate(module)
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
