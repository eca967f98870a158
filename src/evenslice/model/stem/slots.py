"""The weights of slots: how a stem gets them, and how far they are from symmetric."""

from typing import get_args

import torch
from torch import Tensor, nn

from evenslice.errors import BadInputError
from evenslice.model.stem.find import Stem
from evenslice.options import Init

INITS: tuple[Init, ...] = get_args(Init)
UNIFORM: tuple[Init, ...] = ("green", "red", "blue", "mean", "green-matched")
EQUAL = 1e-5  # relative difference of weights that are taken for equal


def slot_weights(rgb: Tensor, slices: int, init: Init) -> Tensor:
    """Make the weights of S slots (outputs, S, ...) from those of R, G and B (outputs, 3, ...).

    For the formulas of ``init`` see ``uniform_stem``.
    """
    red, green, blue = rgb.unbind(1)
    total = red + green + blue
    if init == "rgb":
        if slices == 1:
            return total[:, None]
        cycle = rgb[:, [s % 3 for s in range(slices)]]
        return cycle if slices == 3 else cycle * (3.0 / slices)
    if init == "random":
        shape = (rgb.shape[0], slices, *rgb.shape[2:])
        fresh = torch.empty(shape, dtype=rgb.dtype, device=rgb.device)
        nn.init.kaiming_normal_(fresh.view(rgb.shape[0], -1), nonlinearity="relu")
        return fresh
    if init == "green-matched":
        fit = (green.double() * total.double()).sum() / green.double().square().sum()
        slot = green * float(fit / slices)
    elif init == "mean":
        slot = total / slices
    else:
        slot = {"red": red, "green": green, "blue": blue}[init] * (3.0 / slices)
    return slot[:, None].expand(-1, slices, *slot.shape[1:]).contiguous()


def widened(stem: Stem, slices: int, init: Init) -> tuple[Tensor, tuple[int, ...]]:
    """Compute the weights and the layout (``Stem.slot_of``) of a three-slot stem for S slots.

    The slots lie as 0..0 1..1 2..2, any number of times in one run; channels before and after stay
    as they are. Raises ``BadInputError`` if they lie in another order.
    """
    owners = stem.slot_of
    where = [c for c, owner in enumerate(owners) if owner >= 0]
    first, last = where[0], where[-1] + 1
    width = next((n for n, owner in enumerate(owners[first:last]) if owner != 0), last - first)
    turns = (last - first) // (3 * width) if width else 0
    if owners[first:last] != tuple(s for s in range(3) for _ in range(width)) * turns:
        raise BadInputError(
            f"the stem {stem.name!r} mixes the channels in the order {owners[:12]}, expected "
            "R, G, B in turn; use a plain stem"
        )
    weight = stem.layer.weight.detach()
    shape = (weight.shape[0], turns, 3, width, *weight.shape[2:])
    rgb = weight[:, first:last].reshape(shape).movedim(2, 1)
    wide = slot_weights(rgb, slices, init).movedim(1, 2).flatten(1, 3)
    slots = tuple(s for s in range(slices) for _ in range(width)) * turns
    layout = owners[:first] + slots + owners[last:]
    return torch.cat([weight[:, :first], wide, weight[:, last:]], dim=1), layout


def _slots(stem: Stem) -> Tensor | None:
    """Return the weights of each slot (S, outputs, ...) in float64, None if shapes differ."""
    weight = stem.layer.weight.detach().double()
    parts = [weight[:, stem.channels_of(slot)] for slot in range(stem.slots)]
    return torch.stack(parts) if len({part.shape for part in parts}) == 1 else None


def distances(stem: Stem) -> tuple[float, float]:
    """Return how far a stem is from uniform and from mirror-symmetric, relative to its weights.

    ||w - mean over slots|| / ||w|| and ||w - (w + reversed w) / 2|| / ||w|| over all filter
    entries: from 0 to 1. Slots that come in through different numbers of channels have 1.
    """
    slots = _slots(stem)
    if slots is None:
        return 1.0, 1.0
    size = slots.norm().clamp_min(torch.finfo(slots.dtype).tiny)
    uniform, mirror = (slots - slots.mean(0)).norm(), (slots - slots.flip(0)).norm() / 2
    return float(uniform / size), float(mirror / size)


def stem_asymmetry(stem: Stem) -> dict[str, list[float]] | None:
    """Compare the kernels of mirrored slots, exactly and without any image.

    For each mirror pair j, with a the weights of slot -j and b those of slot +j over all filters:
    ``kernels`` ||b - a|| / (||b|| + ||a||), 0 to 1, of every entry; ``sums`` the same of the sums
    over y and x, by which a filter answers to the level of a slice; ``norms``
    (||b|| - ||a||) / (||b|| + ||a||), -1 to 1, by which it answers to detail. None where slots come
    in through different numbers of channels.
    """
    slots = _slots(stem)
    if slots is None:
        return None
    centre = stem.slots // 2
    found: dict[str, list[float]] = {"kernels": [], "sums": [], "norms": []}
    tiny = torch.finfo(slots.dtype).tiny
    for j in range(1, centre + 1):
        a, b = slots[centre - j], slots[centre + j]
        level_a, level_b = a.flatten(2).sum(2), b.flatten(2).sum(2)
        size = (a.norm() + b.norm()).clamp_min(tiny)
        levels = (level_a.norm() + level_b.norm()).clamp_min(tiny)
        found["kernels"].append(float((b - a).norm() / size))
        found["sums"].append(float((level_b - level_a).norm() / levels))
        found["norms"].append(float((b.norm() - a.norm()) / size))
    return found


def norms_per_slot(stem: Stem) -> list[float]:
    """Return the Frobenius norm of the weights of each slot; 0 for one that the stem lacks."""
    weight = stem.layer.weight.detach().double()
    return [float(weight[:, stem.channels_of(slot)].norm()) for slot in range(stem.slots)]


def slot_pattern(stem: Stem) -> str:
    """Say what the weights of the slots look like.

    ``uniform``: all equal; ``cyclic``: slot s equals slot s - 3, as timm and
    segmentation-models-pytorch make them of RGB for more than three channels; ``mirror``: slot s
    equals slot S - 1 - s; ``none`` otherwise; ``one`` for S = 1.
    """
    if stem.slots == 1:
        return "one"
    slots = _slots(stem)
    if slots is None:
        return "none"
    if _equal(slots[1:], slots[:-1]):
        return "uniform"
    if stem.slots > 3 and _equal(slots[3:], slots[:-3]):
        return "cyclic"
    return "mirror" if _equal(slots, slots.flip(0)) else "none"


def _equal(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) <= EQUAL * float(one.abs().max())
