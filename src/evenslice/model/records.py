"""What the libraries note down about a network's input, brought up to date, so that it still rebuilds and exports."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

COUNTS = ("in_channels", "_in_channels", "in_chans", "num_channels")
TIMM = ("pretrained_cfg", "default_cfg")
Record = tuple[nn.Module, str, Any]


@contextmanager
def updated_records(module: nn.Module, stems: Iterable[str], slices: int, uniform: bool) -> Iterator[None]:
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
    records = [record for owner in owners for record in (*_counts(owner, slices), *_timm(owner, slices, uniform))]
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
