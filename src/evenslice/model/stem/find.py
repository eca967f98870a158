"""Finding the stems of a network by watching it run: which layers receive the slices themselves.

Each slot of a probe is one constant. A layer that receives the input itself, also through a pad, a reshape, an
interpolation, one mean and std, or beside other channels, sees in its channels those constants up to a scale and a
shift. Several probes, in which the constants change places, rule out coincidence.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from evenslice.errors import BadInputError
from evenslice.model.exported import is_exported
from evenslice.model.stem.graphs import watch_graph
from evenslice.model.stem.layer_input import LayerInput, looked_at, medians, noise_like
from evenslice.model.stem.probe import Call, Probe, call_of

JOINING = {torch.cat, torch.concat, torch.concatenate, torch.stack}


def watch(module: nn.Module, call: Call, probes: Tensor) -> list[LayerInput]:
    """Run the network once for each row of ``probes`` (runs, S), slots that are constants; return what met parameters.

    Returns
    -------
    list of Sight
        In the order of the calls; a layer that is called twice comes twice.
    """
    own = getattr(module, "watch", None)
    if callable(own):  # a network that runs outside of torch
        found: list[LayerInput] = own(call, probes)
        return found
    once = watch_graph if is_exported(module) else _watch_once
    runs = [once(module, call, constants) for constants in probes]
    sights = []
    for key, (name, layer, operation, values) in runs[0].items():
        same = [run[key][3] for run in runs if key in run]
        if all([v.shape for v in other] == [v.shape for v in values] for other in same) and len(
            same
        ) == len(runs):
            axes = tuple(
                torch.stack([other[axis] for other in same]) for axis in range(len(values))
            )
            sights.append(LayerInput(name, layer, operation, axes))
    return sights


def is_layer(module: nn.Module) -> bool:
    """Whether a module is watched as one layer: it has parameters of its own and no parts, or is of a known kind."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        return next(module.parameters(), None) is not None
    parts = [name for name, _ in module.named_children() if name != "parametrizations"]
    return next(module.parameters(), None) is not None and not parts


_Seen = tuple[str, nn.Module, str, tuple[Tensor, ...]]


def _watch_once(module: nn.Module, call: Call, constants: Tensor) -> dict[tuple[str, int], _Seen]:
    seen: dict[tuple[str, int], _Seen] = {}
    draw = torch.Generator().manual_seed(0)

    def look(name: str, layer: nn.Module, operation: str, tensors: Iterable[Any]) -> None:
        for x in tensors:
            if looked_at(x):
                turn = sum(key[0] == name for key in seen)
                seen[name, turn] = (name, layer, operation, medians(x))

    def mask(_layer: nn.Module, _args: Any, output: Any) -> Any:
        return tree_map(
            lambda x: noise_like(x, draw) if isinstance(x, Tensor) and x.is_floating_point() else x,
            output,
        )

    layers, loose = _parts(module)
    hooks = [
        layer.register_forward_pre_hook(
            lambda m, args, kwargs, n=name: look(n, m, "", tree_leaves((args, kwargs))),
            with_kwargs=True,
        )
        for name, layer in layers.items()
    ]
    hooks += [layer.register_forward_hook(mask) for layer in layers.values()]
    try:
        with _LooseParameters(loose, look):
            call.run(module, constants)
    except Exception as error:  # a network may not bear noise between its layers
        raise BadInputError(
            f"{type(module).__name__} cannot be watched while it runs ({type(error).__name__}: {str(error)[:200]}); expected "
            "plain layers in torch modules; give the part of the network that starts with the stem"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _parts(module: nn.Module) -> tuple[dict[str, nn.Module], dict[int, tuple[str, nn.Module]]]:
    """Return the layers by name, and by id the parameters that belong to no layer, with name and owner."""
    layers: dict[str, nn.Module] = {}
    loose = {}
    for name, part in module.named_modules():
        inside = any(not above or name.startswith(f"{above}.") for above in layers)
        if inside or isinstance(part, torch.jit.ScriptModule):
            continue
        if is_layer(part):
            layers[name] = part
        for key, parameter in () if is_layer(part) else part.named_parameters(recurse=False):
            loose[id(parameter)] = (f"{name}.{key}".removeprefix("."), part)
    return layers, loose


class _LooseParameters(TorchFunctionMode):
    """See the functions in which a parameter that belongs to no layer meets another tensor."""

    def __init__(self, loose: dict[int, tuple[str, nn.Module]], look: Any) -> None:
        super().__init__()
        self.loose, self.look = loose, look

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in JOINING and self.loose:
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            met = next((self.loose[id(t)] for t in tensors if id(t) in self.loose), None)
            others = [t for t in tensors if id(t) not in self.loose]
            if met is not None and others:
                self.look(*met, getattr(func, "__name__", str(func)), others)
        return func(*args, **kwargs)


RUNS = 4


@dataclass(frozen=True)
class Stem:
    """A layer that receives slices.

    Attributes
    ----------
    name
        Dotted name of the module, ``""`` for the network itself.
    layer
        The module.
    kind
        ``"conv"`` or ``"linear"``.
    slot_of
        For each input channel of the layer the slot it carries, -1 for anything else.
    slots
        S, how many slots the network has.
    maps
        For each input channel the scale and the shift by which the network itself normalises it; (0, 0) for -1.
    """

    name: str
    layer: nn.Conv2d | nn.Linear
    kind: str
    slot_of: tuple[int, ...]
    slots: int
    maps: tuple[tuple[float, float], ...]

    def channels_of(self, slot: int) -> list[int]:
        """Input channels that carry this slot."""
        return [channel for channel, owner in enumerate(self.slot_of) if owner == slot]

    def same_input(self, slot: int, other: int) -> bool:
        """Whether two slots come in alike: in as many channels, by the same scales and shifts."""
        one, two = ([self.maps[c] for c in self.channels_of(s)] for s in (slot, other))
        near = 1e-3 + 4 * torch.finfo(next(self.layer.parameters()).dtype).eps
        return len(one) == len(two) and torch.allclose(
            torch.tensor(one), torch.tensor(two), rtol=near, atol=near
        )

    @property
    def description(self) -> str:
        """The stem in words, for example ``7x7 convolution, stride 2``."""
        copies = len(self.slot_of) // self.slots
        layer = self.layer
        if isinstance(layer, nn.Linear):
            return f"linear layer, {copies} values per slot"
        size = "x".join(map(str, layer.kernel_size))
        if layer.kernel_size == layer.stride and layer.stride[0] > 1:
            words = f"{size} patch embedding"
        else:
            words = f"{size} convolution" + (
                "" if set(layer.stride) == {1} else f", stride {layer.stride[0]}"
            )
        return words + ("" if copies == 1 else f", {copies} values per slot (space to depth)")


def find_stems(module: nn.Module, slices: int = 3, probe: Probe | None = None) -> list[Stem]:
    """Find every layer of ``module`` that receives the input slices themselves.

    Parameters
    ----------
    module
        Any network; called with one tensor (B, S, y, x) unless ``probe`` says otherwise.
    slices
        S, the number of input channels the network has now.
    probe
        An example input for networks that need one: a tensor (B, S, y, x), or a tuple or a dict of inputs in which
        the first such tensor is the image. Only the shape of the image is used; the others are passed as they are.

    Returns
    -------
    list of Stem
        In the order in which the layers were called.

    Raises
    ------
    BadInputError
        If the network cannot be run, no such layer is found, or one is of a kind that cannot be made even.
    """
    check_kind(module)
    return stems_on(module, call_of(module, slices, probe))


def check_kind(module: nn.Module) -> None:
    """Raise ``BadInputError`` for what is not a network to be watched: scripted, compiled, partly exported, not yet made."""
    found, advice = "", ""
    if not isinstance(module, nn.Module):
        found, advice = f"a {type(module).__name__}", "pass the network itself"
    elif isinstance(module, torch.jit.ScriptModule):
        found, advice = "a TorchScript module", "pass the module it was scripted from"
    elif hasattr(module, "_orig_mod"):
        found, advice = "compiled", "pass the module it was compiled from, and compile afterwards"
    elif part := next(
        (name for name, part in module.named_modules() if name and is_exported(part)), ""
    ):
        found, advice = (
            f"one with an exported program inside ({part})",
            "give that part, or the network before torch.export",
        )
    if found:
        raise BadInputError(f"the network is {found}, expected a plain torch.nn.Module; {advice}")
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.UninitializedParameter):
            raise BadInputError(
                f"the parameter {name!r} is lazy and has no shape yet, expected a network with weights; run it once on an RGB input"
            )


def stems_on(module: nn.Module, call: Call) -> list[Stem]:
    """Find the stems of a network that is called in a known way; see ``find_stems``."""
    slices = call.shape[1]
    probes = probe_constants(slices)
    sights = watch(module, call, probes)
    stems: dict[str, Stem] = {}
    for sight in sights:
        stem = _stem(sight, probes)
        if stem is None:
            continue
        if stem.slot_of != stems.setdefault(stem.name, stem).slot_of:
            raise _apart(stem.name, "is called on the slices one after the other")
    for sight in sights:
        if sight.name in stems and not _same_layout(sight, stems[sight.name], probes):
            raise BadInputError(
                f"the stem {sight.name!r} is also called on something else than the slices, expected a layer of its own; give "
                "the slices a copy of it"
            )
    if not stems:
        raise BadInputError(
            f"no layer of {type(module).__name__} receives its {slices} input channels themselves; expected a convolution "
            f"or a patch embedding that does, before anything mixes the channels; {_hidden(module)}give the part of the network that "
            "starts with it"
        )
    return list(stems.values())


def _hidden(module: nn.Module) -> str:
    """Say which part of a network cannot be watched, if any."""
    scripted = [
        name for name, part in module.named_modules() if isinstance(part, torch.jit.ScriptModule)
    ]
    return f"the part {scripted[0]!r} is TorchScript and cannot be watched; " if scripted else ""


@lru_cache
def probe_constants(slices: int, runs: int = RUNS) -> Tensor:
    """Return the constants of S slots in each run, (runs, S): the same ones in changing places, exact in any type.

    Of many drawn tables the one is taken in which no slot comes near to any scale and shift of another.
    """
    draw = torch.Generator().manual_seed(slices)
    tables = []
    for _ in range(60):
        values = (14 + torch.randperm(100, generator=draw)).double() / 128
        orders = [values[torch.randperm(slices, generator=draw)] for _ in range(runs)]
        tables.append(torch.stack(orders) if slices > 1 else values[:runs, None])
    return max(tables, key=_separation)


def _separation(table: Tensor) -> float:
    """Return the smallest sine between what two slots hold over the runs, shifts left out; 0 if one stays the same."""
    sent = table - table.mean(0)
    unit = torch.nn.functional.normalize(sent, dim=0)
    apart = 1 - (unit.T @ unit).square() + torch.eye(table.shape[1], dtype=table.dtype)
    return float(torch.minimum(apart.clamp_min(0).sqrt().min(), sent.norm(dim=0).min()))


def _stem(sight: LayerInput, probes: Tensor) -> Stem | None:
    """Return the stem that was seen, if the sight shows slots; raise if it is of a kind that cannot be handled."""
    layer = sight.layer
    near = 1e-4 + 4 * _precision(layer)
    matches = [_owners(values, probes, near) for values in sight.values]
    swap_axis = [any(owner >= 0 for owner in owners) for owners, _ in matches]
    if not any(swap_axis):
        return None
    name = sight.name or "the network itself"
    if sight.operation:
        raise BadInputError(
            f"the slices meet the parameter {name!r} of {type(layer).__name__} in {sight.operation}, outside of any layer; "
            "expected a Conv2d or a Linear; make that parameter the weight of one"
        )
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        raise BadInputError(
            f"the slices enter {name!r}, a {type(layer).__name__}, expected Conv2d or a linear patch embedding; {_advice(layer)}"
        )
    axis = len(matches) - (1 if isinstance(layer, nn.Linear) else 3)
    if not swap_axis[axis]:
        raise _apart(sight.name, "takes the slices one by one")
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        raise BadInputError(
            f"the stem {sight.name!r} is a grouped convolution (groups = {layer.groups}) that keeps slices in separate outputs; "
            "expected groups = 1; put a plain convolution before it"
        )
    owners, maps = matches[axis]
    return Stem(
        sight.name,
        layer,
        "linear" if isinstance(layer, nn.Linear) else "conv",
        owners,
        probes.shape[1],
        maps,
    )


def _precision(layer: nn.Module) -> float:
    example = next((p for p in layer.parameters() if p.is_floating_point()), torch.zeros(()))
    return float(torch.finfo(example.dtype).eps)


def _advice(layer: nn.Module) -> str:
    kind = type(layer).__name__
    if "Norm" in kind:
        return (
            "give the part behind it, and normalise by one mean and one std outside of the network"
        )
    if "3d" in kind.lower():
        return "a 3-D kernel moves along the slices and has no slots; use a 2-D network"
    return "wrap the network so that one of these comes first"


def _apart(name: str, what: str) -> BadInputError:
    return BadInputError(
        f"the stem {name!r} {what} and keeps them in separate outputs; expected one layer that takes all slices at once; put a "
        "plain convolution before it"
    )


def _same_layout(sight: LayerInput, stem: Stem, probes: Tensor) -> bool:
    axis = len(sight.values) - (1 if stem.kind == "linear" else 3)
    return _owners(sight.values[axis], probes, 1e-4 + 4 * _precision(stem.layer))[0] == stem.slot_of


def _owners(
    values: Tensor, probes: Tensor, near: float
) -> tuple[tuple[int, ...], tuple[tuple[float, float], ...]]:
    """Match what each channel saw in the runs (runs, channels) with the constants of each slot (runs, S).

    Returns
    -------
    tuple
        For each channel the slot, or -1; and the scale and shift from the slot's constants to what was seen.
    """
    seen, sent = values - values.mean(0), probes - probes.mean(0)
    scale = (seen.T @ sent) / sent.square().sum(0)
    missed = (seen[:, :, None] - scale * sent[:, None]).norm(dim=0)
    size = seen.norm(dim=0)[:, None]
    match = (missed <= near * size) & (size > near * (1e-9 + values.abs().amax(0)[:, None]))
    owners, maps = [], []
    for channel, row in enumerate(match):
        slot = int(row.nonzero()[0]) if row.any() else -1
        a = float(scale[channel, slot]) if slot >= 0 else 0.0
        owners.append(slot)
        maps.append(
            (a, float(values[:, channel].mean() - a * probes[:, slot].mean()) if slot >= 0 else 0.0)
        )
    return tuple(owners), tuple(maps)
