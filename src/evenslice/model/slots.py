"""The weights of slots, as arithmetic: from R, G and B to S slots, and where they lie in a layer."""

from typing import Literal

import torch
from torch import Tensor, nn

from evenslice.errors import BadInputError
from evenslice.model.discovery import Stem

Init = Literal["rgb", "green", "red", "blue", "mean", "green-matched", "random"]
INITS: tuple[Init, ...] = ("rgb", "green", "red", "blue", "mean", "green-matched", "random")
EVEN: tuple[Init, ...] = ("green", "red", "blue", "mean", "green-matched")


def slot_weights(rgb: Tensor, slices: int, init: Init) -> Tensor:
    """Make the weights of S slots from those of R, G and B.

    Parameters
    ----------
    rgb
        (outputs, 3, ...): all filter entries, the slot on axis 1.
    slices
        S.
    init
        See ``uniform_stem``.

    Returns
    -------
    Tensor
        (outputs, S, ...), same type.
    """
    red, green, blue = rgb.unbind(1)
    total = red + green + blue
    if init == "rgb":
        if slices == 1:
            return total[:, None]
        cycle = rgb[:, [s % 3 for s in range(slices)]]
        return cycle if slices == 3 else cycle * (3.0 / slices)
    if init == "random":
        fresh = torch.empty(rgb.shape[0], slices, *rgb.shape[2:], dtype=rgb.dtype, device=rgb.device)
        nn.init.kaiming_normal_(fresh.view(rgb.shape[0], -1), nonlinearity="relu")
        return fresh
    if init == "green-matched":
        one = green * float((green.double() * total.double()).sum() / green.double().square().sum() / slices)
    elif init == "mean":
        one = total / slices
    else:
        one = {"red": red, "green": green, "blue": blue}[init] * (3.0 / slices)
    return one[:, None].expand(-1, slices, *one.shape[1:]).contiguous()


def widened(stem: Stem, slices: int, init: Init) -> tuple[Tensor, tuple[int, ...]]:
    """Compute the weights and the layout of a three-slot stem for S slots.

    The slots lie as 0..0 1..1 2..2, any number of times in one run; channels before and after stay as they are.

    Raises
    ------
    BadInputError
        If the slots lie in another order.
    """
    owners = stem.slot_of
    where = [c for c, owner in enumerate(owners) if owner >= 0]
    first, last = where[0], where[-1] + 1
    width = next((n for n, owner in enumerate(owners[first:last]) if owner != 0), last - first)
    turns = (last - first) // (3 * width) if width else 0
    if owners[first:last] != tuple(s for s in range(3) for _ in range(width)) * turns:
        raise BadInputError(
            f"the stem {stem.name!r} mixes the channels in the order {owners[:12]}, expected R, G, B in turn; use a plain stem"
        )
    weight = stem.layer.weight.detach()
    parts = weight[:, first:last].reshape(weight.shape[0], turns, 3, width, *weight.shape[2:]).movedim(2, 1)
    wide = slot_weights(parts, slices, init).movedim(1, 2).flatten(1, 3)
    layout = owners[:first] + tuple(s for s in range(slices) for _ in range(width)) * turns + owners[last:]
    return torch.cat([weight[:, :first], wide, weight[:, last:]], dim=1), layout


def distances(stem: Stem) -> tuple[float, float]:
    """Return how far the weights of a stem are from uniform and from mirror-symmetric ones, relative to their size.

    ||w - mean over slots|| / ||w|| and ||w - (w + reversed w) / 2|| / ||w|| over all filter entries: 0 for an even stem, at
    most 1. Slots that come in through different numbers of channels are as far apart as can be: 1.
    """
    weight = stem.layer.weight.detach().double()
    parts = [weight[:, stem.channels_of(slot)] for slot in range(stem.slots)]
    if len({part.shape for part in parts}) > 1:
        return 1.0, 1.0
    slots = torch.stack(parts)
    size = slots.norm().clamp_min(torch.finfo(slots.dtype).tiny)
    return float((slots - slots.mean(0)).norm() / size), float((slots - slots.flip(0)).norm() / 2 / size)


def norms_per_slot(stem: Stem) -> list[float]:
    """Return the Frobenius norm of the weights of each slot of a stem; 0 for a slot that it does not see."""
    weight = stem.layer.weight.detach().double()
    return [float(weight[:, stem.channels_of(slot)].norm()) for slot in range(stem.slots)]
