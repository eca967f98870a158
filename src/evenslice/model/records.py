"""What the libraries note down about a network's input, brought up to date, so that it still rebuilds and exports."""

import copy
from collections.abc import Iterable
from typing import Any

from torch import nn

COUNTS = ("in_channels", "_in_channels", "in_chans", "num_channels", "in_planes", "input_channels")
TIMM = ("pretrained_cfg", "default_cfg")


def update_records(module: nn.Module, stems: Iterable[str], slices: int, uniform: bool) -> None:
    """Tell the modules around the stems how many channels they take now.

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
    owners = [module.get_submodule(name) for name in around]
    for owner in owners:
        for record in COUNTS:
            if owner.__dict__.get(record) == 3 and not isinstance(owner.__dict__[record], bool):
                setattr(owner, record, slices)
        channels = owner.__dict__.get("_out_channels")
        if isinstance(channels, list | tuple) and tuple(channels[:1]) == (3,):
            owner.__dict__["_out_channels"] = type(channels)([slices, *channels[1:]])
        hub = owner.__dict__.get("_hub_mixin_config")
        if isinstance(hub, dict) and hub.get("in_channels") == 3:
            owner.__dict__["_hub_mixin_config"] = hub | {"in_channels": slices}
        _update_timm(owner, slices, uniform)
    _update_configs(module, owners, slices)


def _update_timm(owner: nn.Module, slices: int, uniform: bool) -> None:
    """Replace timm's record of the input by a changed copy; networks of one name share the original."""
    fresh: dict[int, Any] = {}
    for key in TIMM:
        old = owner.__dict__.get(key)
        if not isinstance(old, dict):
            continue
        if id(old) not in fresh:
            new = dict(old)
            for size in ("input_size", "test_input_size", "min_input_size"):
                if isinstance(new.get(size), tuple) and new[size][:1] == (3,):
                    new[size] = (slices, *new[size][1:])
            for fact in ("mean", "std"):
                if uniform and isinstance(new.get(fact), tuple) and len(new[fact]) == 3:
                    new[fact] = (sum(new[fact]) / 3,) * slices
            fresh[id(old)] = new
        setattr(owner, key, fresh[id(old)])


def _update_configs(module: nn.Module, owners: Iterable[nn.Module], slices: int) -> None:
    """Replace the configuration object of transformers by a changed copy, wherever in the network it is held."""
    fresh: dict[int, Any] = {}
    for owner in owners:
        old = getattr(owner, "config", None)
        if getattr(old, "num_channels", None) == 3 and id(old) not in fresh:
            fresh[id(old)] = copy.deepcopy(old)
            fresh[id(old)].num_channels = slices
    for part in module.modules():
        held = getattr(part, "config", None)
        if id(held) in fresh:
            part.config = fresh[id(held)]
