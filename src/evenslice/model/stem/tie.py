"""Ties: a stem kept even while training goes on, as a parametrisation of its weight."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from evenslice.model.stem.find import Stem
from evenslice.options import Tie

TIES: tuple[Tie, ...] = ("none", "mirror", "uniform")


class EvenWeight(nn.Module):
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
        device = next(stem.layer.parameters()).device
        seen = [channels for channels in by_slot if channels]
        self.register_buffer("partner", torch.tensor(partner, device=device), persistent=False)
        self.register_buffer("by_slot", torch.tensor(seen, device=device), persistent=False)

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


def tie_of(layer: nn.Module) -> Tie:
    """Return the tie on a layer's weight."""
    lists = getattr(layer, "parametrizations", {})
    if "weight" not in lists:
        return "none"
    ties: list[Tie] = [part.tie for part in lists["weight"] if isinstance(part, EvenWeight)]
    return ties[0] if ties else "none"


def bake_stem(module: nn.Module) -> nn.Module:
    """Replace ties by the plain weights they stand for, in place, and return the network."""
    for layer in module.modules():
        if tie_of(layer) != "none":
            _give_own_class(layer)
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return module


def _give_own_class(layer: nn.Module) -> None:
    """Part a layer from its deep copies: torch takes the weight out of the class of a layer, which copies share."""
    shared = type(layer)
    held = {
        key: value for key, value in vars(shared).items() if key not in ("__dict__", "__weakref__")
    }
    layer.__class__ = type(shared.__name__, shared.__bases__, held)
