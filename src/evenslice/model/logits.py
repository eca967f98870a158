"""Networks around a network: one that turns any answer into logits, and one that answers as the mean over the reversal."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from evenslice.errors import BadInputError
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
    """Turn what a foreign network returns into logits (B, C, y, x) of the input's size.

    Parameters
    ----------
    network
        Returns a tensor, or a tuple, dict or dataclass with one; of the input's size, or a whole fraction of it.
    probabilities
        Whether it returns probabilities, which become log-odds (log-probabilities for several classes).
    batch
        The one batch size it takes, or None for any.
    spoils
        Whether it changes its input in place, so that it must get one of its own.
    """

    def __init__(
        self,
        network: nn.Module,
        probabilities: bool = False,
        batch: int | None = None,
        spoils: bool = False,
    ) -> None:
        super().__init__(network)
        self.probabilities, self.batch, self.spoils = probabilities, batch, spoils

    def forward(self, x: Tensor) -> Tensor:
        """Take normalised windows (B, S, y, x)."""
        out = resized(self._run(x), x.shape[-2:])
        if not self.probabilities:
            return out
        small = torch.finfo(out.dtype).eps
        if out.shape[1] == 1:
            return torch.logit(out, eps=small)
        return out.clamp_min(small).log()

    def _run(self, x: Tensor) -> Tensor:
        own = x.clone() if self.spoils else x
        return torch.cat(
            [picture_in(self.network(part))[:count] for part, count in _batches(own, self.batch)]
        )


class Tensors(Wrapper):
    """Answer with all that a network without a prediction returns for each window, as a list of tensors (B, ...).

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
            [t[:count] for t in tensors_of(self.network(part), len(part))]
            for part, count in _batches(x, self.batch)
        ]
        return [torch.cat(parts) for parts in zip(*runs, strict=True)]


def _batches(x: Tensor, batch: int | None) -> Iterator[tuple[Tensor, int]]:
    """Yield windows in batches of the one size that is taken, the last filled up, and how many of each are meant."""
    for part in (x,) if batch is None else torch.split(x, batch):
        count = part.shape[0]  # not len, which would fix the batch of an export
        missing = 0 if batch is None else batch - count
        yield (torch.cat([part, part[-1:].expand(missing, -1, -1, -1)]) if missing else part), count


class Ensemble(Wrapper):
    """Average the probabilities for a window and its reversal, so that the answer to both is the same.

    Parameters
    ----------
    network
        Returns logits (B, C, y, x).
    normalisation
        That of its input: the reversal is one of raw slices, also where slots are normalised differently.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, normalisation: Normalisation | None = None) -> None:
        super().__init__(network)
        mean, std = (
            (torch.zeros(1), torch.ones(1))
            if normalisation is None
            else (
                torch.tensor(v, dtype=torch.float64)
                for v in (normalisation.mean, normalisation.std)
            )
        )
        self.register_buffer("scale", (std.flip(0) / std)[:, None, None])
        self.register_buffer("shift", ((mean.flip(0) - mean) / std)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Take normalised windows (B, S, y, x)."""
        mirrored = x.flip(1) * self.scale.to(x) + self.shift.to(x)
        both = self.network(torch.cat([x, mirrored]))
        one, other = (
            both[: x.shape[0]],
            both[x.shape[0] :],
        )  # chunk would fix the batch of an export
        if one.shape[1] == 1:  # log-odds of the mean probability
            inside = torch.logaddexp(functional.logsigmoid(one), functional.logsigmoid(other))
            return inside - torch.logaddexp(
                functional.logsigmoid(-one), functional.logsigmoid(-other)
            )
        return torch.logaddexp(one.log_softmax(1), other.log_softmax(1))


def picture_in(found: Any) -> Tensor:
    """Find the tensor (B, C, y, x) in what a network returned: by the usual names, else the first with four axes.

    Raises
    ------
    BadInputError
        If there is none.
    """
    named = dict(_named(found))
    tensors = [named[name] for name in NAMES if name in named] + list(_tensors(found))
    for tensor in tensors:
        if (
            isinstance(tensor, Tensor)
            and tensor.is_floating_point()
            and tensor.ndim in (3, 4)
            and tensor.numel()
        ):
            return tensor if tensor.ndim == 4 else tensor[:, None]
    shapes = (
        ", ".join(str(tuple(t.shape)) for t in tensors if isinstance(t, Tensor))
        or type(found).__name__
    )
    raise BadInputError(
        f"the network returns {shapes}, expected a prediction (B, classes, y, x); give a network that segments"
    )


def _named(found: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(found, Mapping):
        yield from found.items()
    elif is_dataclass(found):
        yield from ((field.name, getattr(found, field.name)) for field in fields(found))
    elif isinstance(found, tuple) and hasattr(found, "_asdict"):
        yield from found._asdict().items()


def _tensors(found: Any) -> Iterator[Tensor]:
    """Yield what a nest holds, four axes first, so that a flat score beside the picture is passed over."""
    leaves = list(_leaves(found))
    yield from sorted(leaves, key=lambda t: t.ndim != 4)


def _leaves(found: Any) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, Mapping) or is_dataclass(found):
        for _, value in _named(found):
            yield from _leaves(value)
    elif isinstance(found, list | tuple):
        for value in found:
            yield from _leaves(value)


def tensors_of(found: Any, batch: int) -> list[Tensor]:
    """Return the tensors of numbers in an answer that have a row for each window and at least one number in it."""
    return [
        t
        for t in _leaves(found)
        if (t.is_floating_point() or t.is_complex()) and t.ndim and len(t) == batch and t.numel()
    ]


def resized(out: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Bring a prediction (B, C, h, w) that is a whole fraction of the input to the input's size (y, x), bilinearly.

    Raises
    ------
    BadInputError
        If it is no whole fraction: it could not be laid over the input.
    """
    if out.shape[-2:] == tuple(size):
        return out
    here = tuple(out.shape[-2:])
    if any(h > s or h < 1 or s % h for h, s in zip(here, size, strict=True)):
        raise BadInputError(
            f"the network answers {here[0]} x {here[1]} for {size[0]} x {size[1]} pixels, expected the same size or a whole "
            "fraction; wrap it so that its output lies on its input"
        )
    return functional.interpolate(out, size=tuple(size), mode="bilinear", align_corners=False)
