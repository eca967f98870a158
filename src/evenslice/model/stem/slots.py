"""The weights of slots: how a stem gets them, and how far they are from symmetric."""

from typing import get_args

import torch
from torch import Tensor, nn

from evenslice.model.stem.find import Stem
from evenslice.options import Init

INITS: tuple[Init, ...] = get_args(Init)
UNIFORM: tuple[Init, ...] = ("green", "red", "blue", "mean", "green-matched")
MIRRORED: tuple[Init, ...] = ("mirror", "centre")
EQUAL = 1e-5  # relative difference of weights that are taken for equal


def slot_weights(source: Tensor, slices: int, init: Init) -> Tensor:
    """Make the weights of S slots (outputs, S, ...) from those of C channels (outputs, C, ...).

    For the formulas of ``init`` and the channels that each takes see ``initialise_stem``.
    """
    shape = (source.shape[0], slices, *source.shape[2:])
    total = source.sum(1)
    if init == "random":
        fresh = source.new_empty(shape)
        nn.init.kaiming_normal_(fresh.view(shape[0], -1), nonlinearity="relu")
        return fresh
    if init == "centre" or (init == "mirror" and slices == 1):
        wide = source.new_zeros(shape)
        wide[:, slices // 2] = total
        return wide
    if source.shape[1] == 1 or init == "mean":
        slot = total / slices
    elif init == "rgb":
        if slices == 1:
            return total[:, None]
        cycle = source[:, [s % 3 for s in range(slices)]]
        return cycle if slices == 3 else cycle * (3.0 / slices)
    elif init == "mirror":
        wide = ((source[:, 0] + source[:, 2]) / (slices - 1))[:, None].repeat_interleave(slices, 1)
        wide[:, slices // 2] = source[:, 1]
        return wide
    elif init == "green-matched":
        green = source[:, 1]
        fit = (green.double() * total.double()).sum() / green.double().square().sum()
        slot = green * float(fit / slices)
    else:
        slot = source[:, ("red", "green", "blue").index(init)] * (3.0 / slices)
    return slot[:, None].expand(shape).contiguous()


def by_slot(stem: Stem) -> Tensor:
    """Return the weights of a stem by slot and by place in it, (outputs, C, places, ...)."""
    weight = stem.layer.weight.detach()
    return torch.stack([weight[:, stem.channels_of(slot)] for slot in range(stem.slots)], 1)


def resized(stem: Stem, slices: int) -> Tensor:
    """Return zeros in the shape of a stem's weight for S slots."""
    weight, places = stem.layer.weight.detach(), len(stem.channels_of(0))
    inputs = weight.shape[1] + (slices - stem.slots) * places
    return weight.new_zeros(weight.shape[0], inputs, *weight.shape[2:])


def laid_out(old: Stem, new: Stem, weight: Tensor, fresh: Tensor) -> Tensor:
    """Return the weight of a new stem; what is not a slice keeps its part of the old one."""
    wide = weight.new_empty(weight.shape[0], len(new.slot_of), *weight.shape[2:])
    wide[:, new.channels_of(-1)] = weight[:, old.channels_of(-1)]
    for slot in range(new.slots):
        wide[:, new.channels_of(slot)] = fresh[:, slot]
    return wide


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

    ``uniform``: all equal; ``centre``: all but the centre are zero; ``mirror``: slot s equals slot
    S - 1 - s; ``cyclic``: slot s equals slot s - 3, as timm and segmentation-models-pytorch make
    them of RGB for more than three channels; ``none`` otherwise; ``one`` for S = 1.
    """
    if stem.slots == 1:
        return "one"
    slots = _slots(stem)
    if slots is None:
        return "none"
    if _equal(slots[1:], slots[:-1]):
        return "uniform"
    if not slots[torch.arange(stem.slots) != stem.slots // 2].any():
        return "centre"
    if _equal(slots, slots.flip(0)):
        return "mirror"
    return "cyclic" if stem.slots > 3 and _equal(slots[3:], slots[:-3]) else "none"


def _equal(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) <= EQUAL * float(one.abs().max())
