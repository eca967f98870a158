"""Predicting: normalised windows to logits and probabilities, on a device, in a precision."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from evenslice.errors import BadInputError
from evenslice.model.spec import ExternalSpec, Model


def logits_of(
    module: nn.Module, x: Tensor, stride: int, size: tuple[int, int] | None = None
) -> Tensor:
    """Run the network on windows of any size.

    Parameters
    ----------
    module
        The network.
    x
        Normalised windows (B, S, y, x).
    stride
        The network takes multiples of it; the rest is padded by repeating the edge, and cut off.
    size
        The only (y, x) that it takes, or None; smaller windows are padded in the same way.

    Returns
    -------
    Tensor
        Logits (B, classes, y, x).
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

    Raises
    ------
    BadInputError
        If bf16 is requested of an exported network.
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

    Attributes
    ----------
    device
        ``cpu`` or ``cuda``.
    precision
        ``fp32``, or ``bf16``: matrix products in bfloat16 with float32 sums; weights and
        normalisation layers stay in float32.
    threads
        Of the CPU.
    batch
        Windows at a time.
    """

    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int = 1
    batch: int = 1


class Runner:
    """A network made ready to run by some settings: in eval mode, on its device, channels last."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self._device = torch.device(settings.device)
        self._free = runs_layer_by_layer(model)
        module = model.module.eval().to(self._device)
        if self._free:
            module.to(memory_format=torch.channels_last)

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
