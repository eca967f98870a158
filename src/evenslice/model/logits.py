"""Networks around a network: any answer turned into logits, and the mean over the reversal."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from evenslice.errors import BadInputError
from evenslice.model.stem.probe import tensors_in
from evenslice.volume.normalisation import Normalisation

NAMES = ("logits", "out", "prediction", "pred", "output", "masks")


class Wrapper(nn.Module):
    """A network that calls another one, its ``network``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def train(self, mode: bool = True) -> Self:
        """Switch the mode; an exported network keeps the one in which it was exported."""
        with suppress(NotImplementedError):
            super().train(mode)
        return self


def plain(module: nn.Module) -> nn.Module:
    """Return the network inside of any wrappers."""
    while isinstance(module, Wrapper):
        module = module.network
    return module


class LogitsAdapter(Wrapper):
    """Turn what an external network returns into logits (B, C, y, x) of the input's size.

    Parameters
    ----------
    network
        Returns a tensor, or a tuple, dict or dataclass with one; of the input's size, or a whole
        fraction of it.
    probabilities
        Whether it returns probabilities, which become log-odds (log-probabilities for several
        classes).
    batch
        The one batch size it takes, or None for any.
    changes_input
        Whether it changes its input in place, so that it must get one of its own.
    """

    def __init__(
        self,
        network: nn.Module,
        probabilities: bool = False,
        batch: int | None = None,
        changes_input: bool = False,
    ) -> None:
        super().__init__(network)
        self.probabilities, self.batch = probabilities, batch
        self.changes_input = changes_input

    def forward(self, x: Tensor) -> Tensor:
        """Take normalised windows (B, S, y, x)."""
        own = x.clone() if self.changes_input else x
        parts = [
            find_prediction(self.network(part))[:count] for part, count in _batches(own, self.batch)
        ]
        out = resize_prediction(torch.cat(parts), x.shape[-2:])
        if not self.probabilities:
            return out
        small = torch.finfo(out.dtype).eps
        if out.shape[1] == 1:
            return torch.logit(out, eps=small)
        return out.clamp_min(small).log()


class AllOutputs(Wrapper):
    """Answer with all that a network without a prediction returns, as a list of tensors (B, ...).

    Parameters
    ----------
    network
        Returns a tensor or any nest of tensors.
    batch
        The one batch size it takes, or None for any.
    """

    def __init__(self, network: nn.Module, batch: int | None = None) -> None:
        super().__init__(network)
        self.batch = batch

    def forward(self, x: Tensor) -> list[Tensor]:
        """Take normalised windows (B, S, y, x)."""
        runs = [
            [t[:count] for t in window_tensors(self.network(part), len(part))]
            for part, count in _batches(x, self.batch)
        ]
        return [torch.cat(parts) for parts in zip(*runs, strict=True)]


def _batches(x: Tensor, batch: int | None) -> Iterator[tuple[Tensor, int]]:
    """Yield windows in batches of one size, the last filled up, and how many of each count."""
    for part in (x,) if batch is None else torch.split(x, batch):
        count = part.shape[0]  # not len, which would fix the batch of an export
        missing = 0 if batch is None else batch - count
        yield (torch.cat([part, part[-1:].expand(missing, -1, -1, -1)]) if missing else part), count


class Ensemble(Wrapper):
    """Average the probabilities for a window and its reversal, so that both get the same answer.

    Parameters
    ----------
    network
        Returns logits (B, C, y, x).
    normalisation
        That of its input: the reversal is one of raw slices, also where slots are normalised
        differently.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, normalisation: Normalisation | None = None) -> None:
        super().__init__(network)
        mean, std = torch.zeros(1), torch.ones(1)
        if normalisation is not None:
            mean = torch.tensor(normalisation.mean, dtype=torch.float64)
            std = torch.tensor(normalisation.std, dtype=torch.float64)
        self.register_buffer("scale", (std.flip(0) / std)[:, None, None])
        self.register_buffer("shift", ((mean.flip(0) - mean) / std)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Take normalised windows (B, S, y, x)."""
        reversal = x.flip(1) * self.scale.to(x) + self.shift.to(x)
        both = self.network(torch.cat([x, reversal]))
        one, other = both[: x.shape[0]], both[x.shape[0] :]  # chunk would fix an export's batch
        if one.shape[1] == 1:  # log-odds of the mean probability
            inside = torch.logaddexp(functional.logsigmoid(one), functional.logsigmoid(other))
            outside = torch.logaddexp(functional.logsigmoid(-one), functional.logsigmoid(-other))
            return inside - outside
        return torch.logaddexp(one.log_softmax(1), other.log_softmax(1))


def find_prediction(found: Any) -> Tensor:
    """Find the tensor (B, C, y, x) in what a network returned.

    By the usual names, else the first with four axes, else with three; ``BadInputError`` if there
    is none.
    """
    named = dict(_named(found))
    # four axes first, so that a flat score beside the prediction is passed over
    nested = sorted(tensors_in(found), key=lambda t: t.ndim != 4)
    first = [named[name] for name in NAMES if isinstance(named.get(name), Tensor)]
    tensors: list[Tensor] = first + nested
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.ndim in (3, 4) and tensor.numel():
            return tensor if tensor.ndim == 4 else tensor[:, None]
    shapes = ", ".join(str(tuple(t.shape)) for t in tensors) or type(found).__name__
    raise BadInputError(
        f"the network returns {shapes}, expected a prediction (B, classes, y, x); "
        "give a network that segments"
    )


def _named(found: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(found, Mapping):
        yield from found.items()
    elif is_dataclass(found):
        yield from ((field.name, getattr(found, field.name)) for field in fields(found))
    elif isinstance(found, tuple) and hasattr(found, "_asdict"):
        yield from found._asdict().items()


def window_tensors(found: Any, batch: int) -> list[Tensor]:
    """Return the tensors of numbers in an answer that have a row for each window."""
    return [t for t in tensors_in(found) if t.ndim and len(t) == batch and t.numel()]


def resize_prediction(out: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Bring a prediction (B, C, h, w) to the input's size (y, x), bilinearly.

    Raises ``BadInputError`` if it is no whole fraction of it: it could not be laid over the input.
    """
    if out.shape[-2:] == tuple(size):
        return out
    here = tuple(out.shape[-2:])
    if any(h > s or h < 1 or s % h for h, s in zip(here, size, strict=True)):
        raise BadInputError(
            f"the network answers {here[0]} x {here[1]} for {size[0]} x {size[1]} pixels, expected "
            "the same size or a whole fraction; wrap it so that its output lies on its input"
        )
    return functional.interpolate(out, size=tuple(size), mode="bilinear", align_corners=False)
