"""What the libraries note down about a network's input, brought up to date, so that it still rebuilds and exports."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from evenslice.errors import BadInputError
from evenslice.model.stem.find import Stem
from evenslice.options import Init

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
        fresh = torch.empty(
            rgb.shape[0], slices, *rgb.shape[2:], dtype=rgb.dtype, device=rgb.device
        )
        nn.init.kaiming_normal_(fresh.view(rgb.shape[0], -1), nonlinearity="relu")
        return fresh
    if init == "green-matched":
        one = green * float(
            (green.double() * total.double()).sum() / green.double().square().sum() / slices
        )
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
    parts = (
        weight[:, first:last]
        .reshape(weight.shape[0], turns, 3, width, *weight.shape[2:])
        .movedim(2, 1)
    )
    wide = slot_weights(parts, slices, init).movedim(1, 2).flatten(1, 3)
    layout = (
        owners[:first]
        + tuple(s for s in range(slices) for _ in range(width)) * turns
        + owners[last:]
    )
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
    return float((slots - slots.mean(0)).norm() / size), float(
        (slots - slots.flip(0)).norm() / 2 / size
    )


def norms_per_slot(stem: Stem) -> list[float]:
    """Return the Frobenius norm of the weights of each slot of a stem; 0 for a slot that it does not see."""
    weight = stem.layer.weight.detach().double()
    return [float(weight[:, stem.channels_of(slot)].norm()) for slot in range(stem.slots)]


COUNTS = ("in_channels", "_in_channels", "in_chans", "num_channels")
TIMM = ("pretrained_cfg", "default_cfg")
Record = tuple[nn.Module, str, Any]


@contextmanager
def update_input_channels(
    module: nn.Module, stems: Iterable[str], slices: int, uniform: bool
) -> Iterator[None]:
    """Tell the modules around the stems how many channels they take now; take it back when something fails.

    Parameters
    ----------
    module
        The network.
    stems
        Dotted names of the stems.
    slices
        S, in place of 3.
    uniform
        Whether one mean and std for all slots replace those of R, G and B in timm's record.
    """
    around = {".".join(name.split(".")[:n]) for name in stems for n in range(name.count(".") + 1)}
    parts = dict(module.named_modules(remove_duplicate=False))
    owners = [parts[name] for name in sorted(around) if name in parts]
    records = [
        record
        for owner in owners
        for record in (*_counts(owner, slices), *_timm(owner, slices, uniform))
    ]
    records += _configs(module, owners, slices)
    before = [(owner, key, owner.__dict__[key]) for owner, key, _ in records]
    try:
        _write(records)
        yield
    except BaseException:
        _write(before)
        raise


def _write(records: Iterable[Record]) -> None:
    for owner, key, value in records:
        owner.__dict__[key] = value


def _counts(owner: nn.Module, slices: int) -> Iterator[Record]:
    """Yield the plain numbers of channels, and those of segmentation-models-pytorch."""
    for key in COUNTS:
        if owner.__dict__.get(key) == 3:
            yield owner, key, slices
    channels = owner.__dict__.get("_out_channels")
    if isinstance(channels, list | tuple) and tuple(channels[:1]) == (3,):
        yield owner, "_out_channels", type(channels)([slices, *channels[1:]])
    hub = owner.__dict__.get("_hub_mixin_config")
    if isinstance(hub, dict) and hub.get("in_channels") == 3:
        yield owner, "_hub_mixin_config", hub | {"in_channels": slices}


def _timm(owner: nn.Module, slices: int, uniform: bool) -> Iterator[Record]:
    """Yield changed copies of timm's record of the input; networks of one name may share the original."""
    fresh: dict[int, dict[str, Any]] = {}
    for key in TIMM:
        old = owner.__dict__.get(key)
        if not isinstance(old, dict):
            continue
        new = fresh.setdefault(id(old), dict(old))
        for size in ("input_size", "test_input_size", "min_input_size"):
            if isinstance(new.get(size), tuple) and new[size][:1] == (3,):
                new[size] = (slices, *new[size][1:])
        for fact in ("mean", "std"):
            if uniform and isinstance(old.get(fact), tuple) and len(old[fact]) == 3:
                new[fact] = (sum(old[fact]) / 3,) * slices
        yield owner, key, new


def _configs(module: nn.Module, owners: Iterable[nn.Module], slices: int) -> Iterator[Record]:
    """Yield a changed copy of the configuration object of transformers, wherever in the network it is held."""
    fresh: dict[int, Any] = {}
    for owner in owners:
        old = owner.__dict__.get("config")
        if getattr(old, "num_channels", None) == 3 and id(old) not in fresh:
            fresh[id(old)] = copy.deepcopy(old)
            fresh[id(old)].num_channels = slices
    for part in module.modules():
        held = part.__dict__.get("config")
        if id(held) in fresh:
            yield part, "config", fresh[id(held)]
