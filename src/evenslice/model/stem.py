"""The stem: the one place that touches the weights through which slices enter.

A stem of an RGB-pretrained network has three slots W_R, W_G, W_B. Uniform inits make all S slots of the new stem
equal, so that no slice counts more than another before training (Molnar, Szabo, Horvath, arXiv 2505.14105).
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from evenslice.errors import BadInputError
from evenslice.model.discovery import Stem, find_stems
from evenslice.volume.windows import check_slices

Init = Literal["rgb", "green", "red", "blue", "mean", "green-matched", "random"]
Tie = Literal["none", "mirror", "uniform"]
INITS: tuple[Init, ...] = ("rgb", "green", "red", "blue", "mean", "green-matched", "random")
TIES: tuple[Tie, ...] = ("none", "mirror", "uniform")


def uniform_stem(module: nn.Module, slices: int = 3, init: Init = "green", probe: Tensor | None = None) -> nn.Module:
    """Give an RGB-pretrained network a stem for S slices, in place, and return the network.

    With a uniform init (``green``, ``red``, ``blue``, ``mean``, ``green-matched``) the network's output does not
    depend on the order of the slices. Every other parameter stays as it is.

    Parameters
    ----------
    module
        Any network whose input is an RGB tensor (B, 3, y, x).
    slices
        S, odd, 1 to 9; afterwards the network takes (B, S, y, x).
    init
        ``green``/``red``/``blue``: w_s = (3/S) W_c, for S = 3 the method of arXiv 2505.14105. ``mean``:
        w_s = (W_R + W_G + W_B) / S, so S identical slices give the response of the grey photograph.
        ``green-matched``: w_s = (a/S) W_G with a the least-squares fit of W_R + W_G + W_B by W_G. ``rgb``: as
        pretrained for S = 3, the sum for S = 1, RGBRG... x 3/S beyond (control). ``random``: Kaiming.
    probe
        An example RGB input (B, 3, y, x) for networks that need a certain size.

    Raises
    ------
    BadInputError
        If S or the init is unknown, or no stem is found that can be handled. The network is then unchanged.
    """
    check_slices(slices)
    if init not in INITS:
        raise BadInputError(f"the init {init!r} is unknown, expected one of {', '.join(INITS)}; choose one")
    stems = find_stems(module, 3, probe)
    if any(stem.slots != 3 for stem in stems):
        raise BadInputError(
            f"the stem {stems[0].name!r} sees {stems[0].slots} of 3 channels, expected all of R, G and B; use init on an RGB network"
        )
    plans = [_plan(stem, slices, init) for stem in stems]
    undo = [(stem, stem.layer.weight, len(stem.slot_of)) for stem in stems]
    for stem, (wide, owners) in zip(stems, plans, strict=True):
        _replace(stem.layer, wide, len(owners))
    new_probe = None if probe is None else probe[:, :1].expand(-1, slices, -1, -1)
    try:
        found = find_stems(module, slices, new_probe)
        if [(s.name, s.slot_of) for s in found] != [(s.name, o) for s, (_, o) in zip(stems, plans, strict=True)]:
            raise BadInputError(
                f"the network feeds {slices} slices into {found[0].name!r} in another order than three; expected the same layout"
            )
    except BadInputError:
        for stem, weight, channels in undo:
            _replace(stem.layer, weight, channels)
        raise
    _update_records(module, stems, slices)
    return module


def mirror_stem(module: nn.Module, slices: int = 3, tie: Tie = "none", probe: Tensor | None = None) -> nn.Module:
    """Make the stem of a network that already sees S slices mirror-symmetric, in place, and return the network.

    w_s <- (w_s + w_{S-1-s}) / 2. In eval mode and with scalar normalisation the output is then the same for a
    window and its reversal, up to rounding.

    Parameters
    ----------
    module
        A network whose input is (B, S, y, x).
    slices
        S.
    tie
        ``none``: average once. ``mirror``: keep the stem symmetric while training goes on. ``uniform``: keep all
        slots equal, at their mean.
    probe
        An example input (B, S, y, x) for networks that need a certain size.

    Raises
    ------
    BadInputError
        If no stem is found that can be handled.
    """
    if tie not in TIES:
        raise BadInputError(f"the tie {tie!r} is unknown, expected one of {', '.join(TIES)}; choose one")
    for stem in find_stems(module, slices, probe):
        even = _Even(stem, "mirror" if tie == "none" else tie)
        if tie == "none":
            with torch.no_grad():
                stem.layer.weight.copy_(even(stem.layer.weight))
        else:
            parametrize.register_parametrization(stem.layer, "weight", even)
    return module


def tie_stem(module: nn.Module, slices: int, tie: Tie, probe: Tensor | None = None) -> nn.Module:
    """Apply the tie a model file records, if any, in place, for training to go on."""
    return module if tie == "none" else mirror_stem(module, slices, tie, probe)


def bake_stem(module: nn.Module) -> nn.Module:
    """Replace ties by the plain weights they stand for, in place, and return the network."""
    for layer in module.modules():
        if _tied(layer):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return module


def _tied(layer: nn.Module) -> bool:
    lists = getattr(layer, "parametrizations", {})
    return "weight" in lists and isinstance(lists["weight"][0], _Even)


def norms_per_slot(stem: Stem) -> list[float]:
    """Return the Frobenius norm of the weights of each slot of a stem."""
    weight = stem.layer.weight.detach().double()
    return [float(weight[:, stem.channels_of(slot)].norm()) for slot in range(stem.slots)]


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


def _plan(stem: Stem, slices: int, init: Init) -> tuple[Tensor, tuple[int, ...]]:
    """Compute new weights and layout; the slots lie as 0..0 1..1 2..2, any number of times in one run."""
    owners = stem.slot_of
    where = [c for c, owner in enumerate(owners) if owner >= 0]
    first, last = where[0], where[-1] + 1
    width = next((n for n, owner in enumerate(owners[first:last]) if owner != 0), last - first)
    turns = (last - first) // (3 * width)
    if owners[first:last] != tuple(s for s in range(3) for _ in range(width)) * turns:
        raise BadInputError(
            f"the stem {stem.name!r} mixes the channels in the order {owners[:12]}, expected R, G, B in turn; use a plain stem"
        )
    weight = stem.layer.weight.detach()
    parts = weight[:, first:last].reshape(weight.shape[0], turns, 3, width, *weight.shape[2:]).movedim(2, 1)
    wide = slot_weights(parts, slices, init).movedim(1, 2).flatten(1, 3)
    layout = owners[:first] + tuple(s for s in range(slices) for _ in range(width)) * turns + owners[last:]
    return torch.cat([weight[:, :first], wide, weight[:, last:]], dim=1), layout


def _replace(layer: nn.Conv2d | nn.Linear, weight: Tensor, channels: int) -> None:
    layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
    setattr(layer, "in_features" if isinstance(layer, nn.Linear) else "in_channels", channels)


def _update_records(module: nn.Module, stems: list[Stem], slices: int) -> None:
    """Tell the modules around the stems how many channels they take now, so that they rebuild and export."""
    around = {".".join(stem.name.split(".")[:n]) for stem in stems for n in range(stem.name.count(".") + 1)}
    for name in around:
        owner = module.get_submodule(name)
        for record in ("in_channels", "_in_channels", "in_chans", "num_channels"):
            if owner.__dict__.get(record) == 3:
                setattr(owner, record, slices)
        channels = owner.__dict__.get("_out_channels")
        if isinstance(channels, list) and channels[:1] == [3]:
            owner.__dict__["_out_channels"] = [slices, *channels[1:]]


class _Even(nn.Module):
    """Parametrisation that keeps slots alike: ``mirror`` pairs s with S-1-s, ``uniform`` takes the mean of all."""

    partner: Tensor
    by_slot: Tensor

    def __init__(self, stem: Stem, tie: Tie) -> None:
        super().__init__()
        by_slot = [stem.channels_of(s) for s in range(stem.slots)]
        partner = list(range(len(stem.slot_of)))
        for s, channels in enumerate(by_slot):
            for channel, other in zip(channels, by_slot[stem.slots - 1 - s], strict=True):
                partner[channel] = other
        self.tie = tie
        self.register_buffer("partner", torch.tensor(partner), persistent=False)
        self.register_buffer("by_slot", torch.tensor(by_slot), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the even weights."""
        if self.tie == "mirror":
            return (weight + weight[:, self.partner]) / 2
        even = weight.clone()
        mean = weight[:, self.by_slot].mean(dim=1, keepdim=True)
        even[:, self.by_slot] = mean.expand(-1, self.by_slot.shape[0], *mean.shape[2:])
        return even

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Start from the weights as they are."""
        return weight
