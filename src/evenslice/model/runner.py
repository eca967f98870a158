"""Running a network over windows in one chosen way: device, precision, layout, threads."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenslice.errors import BadInputError
from evenslice.model.predict import logits_of, probabilities_of
from evenslice.model.spec import ExternalSpec, Model

Precision = Literal["auto", "fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Settings:
    """How a network is run; the same settings on one kind of processor give the same bits.

    Attributes
    ----------
    device
        ``cpu`` or ``cuda``.
    precision
        ``fp32``, or ``bf16``: matrix products in bfloat16 with float32 sums, weights and normalisation layers in float32.
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
    """A network made ready: in eval mode, on its device, channels last.

    Parameters
    ----------
    model
        The model.
    settings
        How to run it.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self._device = torch.device(settings.device)
        model.module.eval()
        if form_takes_layout(model):
            model.module.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        else:
            model.module.to(self._device)

    def start(self, windows: NDArray[np.float32]) -> "Pending":
        """Begin with normalised windows (B, S, y, x); on a GPU this returns before the work is done."""
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
        if form_takes_layout(self.model):
            x = x.contiguous(memory_format=torch.channels_last)
        with self._cast():
            return logits_of(self.model.module, x, self.model.stride, self.model.size).float()

    def _cast(self) -> AbstractContextManager[Any]:
        if self.settings.precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, torch.bfloat16)


class Pending:
    """An answer that may still be on its way from a GPU."""

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


def form_takes_layout(model: Model) -> bool:
    """Whether a network is run by torch layer by layer, so that layout and precision are ours to choose."""
    return not isinstance(model.spec, ExternalSpec) or model.spec.form == "callable"


def resolve_precision(asked: str, model: Model, device: torch.device) -> Literal["fp32", "bf16"]:
    """Choose the precision: ``auto`` is bfloat16 where the processor multiplies matrices of it, else float32.

    Raises
    ------
    BadInputError
        If the name is unknown, or bf16 is asked of an exported network.
    """
    if asked not in PRECISIONS:
        raise BadInputError(
            f"the precision {asked!r} is unknown, expected {', '.join(PRECISIONS)}; choose one"
        )
    ours = form_takes_layout(model)
    if asked == "bf16" and not ours:
        raise BadInputError(
            "bf16 was asked of an exported network, which has its precision already; use --precision auto"
        )
    if asked != "auto":
        return "bf16" if asked == "bf16" else "fp32"
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
    return "bf16" if fast and ours else "fp32"
