"""Networks around a network: any answer turned into logits, and the mean over the reversal."""

import copy
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import FunctionType, ModuleType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from evenslice.errors import BadInputError
from evenslice.model.stem.probe import named_tensors, tensors_in
from evenslice.volume.normalisation import Normalisation

USUAL = {"logits", "out", "output", "outputs", "pred", "preds", "prediction", "predictions"}
USUAL |= {"mask", "masks", "seg", "segmentation", "semantic", "sem_seg", "seg_logits", "main"}
USUAL |= {"probabilities", "probs", "final"}
BESIDE = re.compile(r"feat|hidden|attention|embed|aux|loss|backbone|encoder|skip", re.IGNORECASE)
NEAR = 1e-4


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


def duplicate(module: nn.Module) -> nn.Module:
    """Return a deep copy; outputs of earlier runs that a network keeps on itself lose their graph.

    torch refuses to copy tensors with one.
    """
    return copy.deepcopy(
        module, {id(t): t.detach() for t in _kept_tensors(module, set()) if not t.is_leaf}
    )


def _kept_tensors(thing: Any, seen: set[int]) -> Iterator[Tensor]:
    """Yield the tensors in what an object holds: attributes, and collections of any depth."""
    parts: Iterable[Any] = ()
    if id(thing) in seen or isinstance(thing, type | FunctionType | ModuleType):
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, Mapping):
        parts = thing.values()
    elif isinstance(thing, list | tuple | set | deque):
        parts = thing
    elif hasattr(thing, "__dict__"):
        parts = vars(thing).values()
    for part in list(parts):
        yield from _kept_tensors(part, seen)


def plain(module: nn.Module) -> nn.Module:
    """Return the network inside of any wrappers."""
    while isinstance(module, Wrapper):
        module = module.network
    return module


@dataclass(frozen=True)
class Picture:
    """Which of the tensors that a network returns is its prediction, and how that lies."""

    name: str  # see ``named_tensors``
    layout: str  # its axes: bcyx, byx, byxc (channels last) or bc1yx
    factor: int  # how many pixels of the input one of its pixels covers along y and x
    channel: int | None = None  # the one that is taken; None: all

    @property
    def answer(self) -> str:
        """What chooses it: its name, and behind a colon its channel."""
        return self.name if self.channel is None else f"{self.name}:{self.channel}"

    def of(self, found: Any) -> Tensor:
        """Return it as (B, C, y, x), in float32 at least."""
        out = found if isinstance(found, Tensor) else dict(named_tensors(found))[self.name]
        if self.layout == "byx":
            out = out[:, None]
        elif self.layout == "byxc":
            out = out.movedim(-1, 1)
        elif self.layout == "bc1yx":
            out = out[:, :, 0]
        out = out if self.channel is None else out[:, self.channel : self.channel + 1]
        return out.float() if out.dtype in (torch.float16, torch.bfloat16) else out


class LogitsAdapter(Wrapper):
    """Turn what an external network returns into logits (B, C, y, x) of the input's size.

    ``picture`` says which tensor is its prediction. If that holds ``probabilities``, they become
    log-odds (log-probabilities for several classes). ``batch`` is the one batch size that the
    network takes, None for any; one that ``changes_input`` in place gets one of its own.
    """

    def __init__(
        self,
        network: nn.Module,
        picture: Picture,
        probabilities: bool = False,
        batch: int | None = None,
        changes_input: bool = False,
    ) -> None:
        super().__init__(network)
        self.picture, self.probabilities, self.batch = picture, probabilities, batch
        self.changes_input = changes_input

    def forward(self, x: Tensor) -> Tensor:
        """Take normalised windows (B, S, y, x)."""
        own = x.clone() if self.changes_input else x
        parts = [
            self.picture.of(self.network(part))[:count] for part, count in _batches(own, self.batch)
        ]
        out = torch.cat(parts)
        if out.shape[-2:] != x.shape[-2:]:
            size = tuple(x.shape[-2:])
            out = functional.interpolate(out, size=size, mode="bilinear", align_corners=False)
        if not self.probabilities:
            return out
        small = torch.finfo(out.dtype).eps
        if out.shape[1] == 1:
            return torch.logit(out, eps=small)
        return out.clamp_min(small).log()


class AllOutputs(Wrapper):
    """Answer with all that a network without a prediction returns, as a list of tensors (B, ...).

    ``batch`` is the one batch size that it takes, None for any; ``reason`` says why none of it is
    taken for a prediction.
    """

    def __init__(self, network: nn.Module, batch: int | None = None, reason: str = "") -> None:
        super().__init__(network)
        self.batch, self.reason = batch, reason

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

    The network returns logits (B, C, y, x). The reversal is one of raw slices, also where
    ``normalisation`` treats slots differently.
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


def find_picture(found: Any, image: Tensor, answer: str | None = None) -> Picture:
    """Find the prediction in what a network returned for an image (B, S, y, x).

    ``answer`` is its name or number among the tensors, and behind a colon its channel: ``out``,
    ``1``, ``heads.0:2``. None: what lies over the image counts, tensors with a usual name
    (``logits``, ``out``, ...) first, then those without the name of something else (``features``,
    ``aux``, ...); of several with as many channels (deep supervision) the largest.

    ``BadInputError`` if there is none, or several could be it; the candidates are named.
    """
    tensors = [(name, t) for name, t in named_tensors(found) if t.ndim and not _equal(t, image)]
    shapes = ", ".join(f"{name} {tuple(t.shape)}".strip() for name, t in tensors)
    name, _, channel = (answer or "").partition(":")
    if answer is not None:
        below = [(n, t) for n, t in tensors if n == name or n.startswith(f"{name}.")]
        numbered = name.isdecimal() and int(name) < len(tensors)
        tensors = below or ([tensors[int(name)]] if numbered else [])
    pictures = {
        name: (picture, picture.of(tensor))
        for name, tensor in tensors
        if (picture := _picture(name, tensor, image)) is not None
    }
    if not pictures:
        asked = "" if answer is None else f" (--answer {answer})"
        raise BadInputError(
            f"the network returns {shapes or type(found).__name__} for {tuple(image.shape)}, "
            f"expected a prediction (B, classes, y, x) that lies on its input{asked}; give a "
            "network that segments, padded so that its output is of the input's size"
        )
    chosen = _chosen(pictures, by_name=answer is None)
    tensor = pictures[chosen[0]][1] if chosen else None
    if tensor is None or (answer is None and _are_queries(tensor, tensors)):
        raise BadInputError(
            f"the network returns {shapes}, expected a prediction (B, classes, y, x); "
            "these are features or mask queries: wrap the network so that it returns its "
            "prediction, or choose by --answer"
        )
    if len(chosen) > 1:
        raise BadInputError(
            f"the network returns {shapes}, expected one prediction, and each of "
            f"{', '.join(chosen)} could be it; choose by --answer {chosen[-1]}, or another"
        )
    picture = pictures[chosen[0]][0]
    if not channel:
        return picture
    if not channel.isdecimal() or int(channel) >= tensor.shape[1]:
        raise BadInputError(
            f"--answer is {answer}, expected a channel from 0 to {tensor.shape[1] - 1} behind the "
            "colon; choose one"
        )
    return replace(picture, channel=int(channel))


def _picture(name: str, tensor: Tensor, image: Tensor) -> Picture | None:
    """Return how a tensor lies on an image; None if it does not."""
    sides = tensor.shape
    if len(tensor) != len(image) or tensor.is_complex() or not tensor.numel():
        return None
    layouts = {3: {"byx": sides[1:]}, 4: {"bcyx": sides[2:], "byxc": sides[1:3]}}
    if tensor.ndim == 5 and sides[2] == 1:
        layouts[5] = {"bc1yx": sides[3:]}
    for layout, (height, width) in layouts.get(tensor.ndim, {}).items():
        factor = image.shape[2] // height
        if (height * factor, width * factor) == tuple(image.shape[2:]) and min(height, width) > 1:
            return Picture(name, layout, factor)
    return None


def _chosen(pictures: Mapping[str, tuple[Picture, Tensor]], by_name: bool) -> list[str]:
    """Return the names of the tensors that could be the prediction: one, where it is clear."""
    parts = {name: name.lower().split(".") for name in pictures}
    names = [name for name in pictures if not (by_name and BESIDE.search(name))]
    usual = [name for name in names if by_name and not USUAL.isdisjoint(parts[name])]
    names = usual or names
    if usual or len({pictures[name][1].shape[1] for name in names}) == 1:
        finest = min(pictures[name][0].factor for name in names)
        names = [name for name in names if pictures[name][0].factor == finest]
    return [
        name
        for n, name in enumerate(names)
        if not n or not _alike(pictures[names[0]][1], pictures[name][1])
    ]


def _are_queries(tensor: Tensor, tensors: Sequence[tuple[str, Tensor]]) -> bool:
    """Whether a prediction (B, Q, y, x) holds masks whose classes another tensor has, (B, Q, K)."""
    queries = tensor.shape[:2]
    return any(t.ndim == 3 and t.shape[:2] == queries and queries[1] > 1 for _, t in tensors)


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two predictions are one, as they are or as its probabilities."""
    if one.shape != other.shape:
        return False
    p, q = (t.sigmoid() if t.shape[1] == 1 else t.softmax(1) for t in (one, other))
    return any(torch.allclose(a, b, atol=NEAR) for a, b in ((one, other), (p, other), (one, q)))


def _equal(tensor: Tensor, image: Tensor) -> bool:
    return tensor.shape == image.shape and torch.equal(tensor.to(image), image)


def window_tensors(found: Any, batch: int) -> list[Tensor]:
    """Return the tensors of numbers in an answer that have a row for each window."""
    return [t for t in tensors_in(found) if t.ndim and len(t) == batch and t.numel()]
