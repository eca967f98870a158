"""Finding the stems of a network by watching it run: which layers receive the slices themselves.

Each slot of a probe is one constant. A layer that receives the input itself, also through a pad, a
reshape, an interpolation, one mean and std, or beside other channels, sees in its channels those
constants up to a scale and a shift. Several probes, in which the constants change places, rule out
coincidence. While it is watched every layer answers noise, so that what lies behind it sees none.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from evenslice.errors import BadInputError
from evenslice.model.stem.probe import Call, LayerInput, Probe, WatchedInputs, call_of, is_exported
from evenslice.options import JsonObject

JOINING_GRAPHS = {"aten::cat", "aten::stack", "aten::concat", "aten::concatenate"}
LAYERS = {  # the arguments that are the data and the weight
    "aten::conv2d": ("input", "weight"),
    "aten::convolution": ("input", "weight"),
    "aten::_convolution": ("input", "weight"),
    "aten::linear": ("input", "weight"),
    "aten::mm": ("self", "mat2"),
    "aten::addmm": ("mat1", "mat2"),
    "aten::matmul": ("self", "other"),
}
TRANSPOSES = {"aten::t", "aten::transpose", "aten::permute", "aten::numpy_T"}
ALIASES = {"aten::detach", "aten::alias", "aten::lift_fresh_copy"}
COMPUTED = 9  # in place of a number of transposes: no parameter any more


class GraphWatcher(TorchFunctionMode):
    """Keeps what meets parameters while a graph is run, and answers noise in its place."""

    def __init__(self, module: nn.Module, watched: WatchedInputs) -> None:
        super().__init__()
        self.module, self.watched = module, watched
        # what does not depend on the image, by id: a parameter's name or "", the tensor, transposes
        self.fixed: dict[int, tuple[str, Tensor, int]] = {}
        for name, parameter in module.named_parameters():
            self.fixed[id(parameter)] = (name, parameter, 0)
        for buffer in module.buffers():
            self.fixed[id(buffer)] = ("", buffer, 0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if not isinstance(func, torch._ops.OpOverload):
            return output
        operation = func._schema.name
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        learned = [t for t in tensors if self.fixed.get(id(t), ("",))[0]]
        others = [t for t in tensors if id(t) not in self.fixed]
        if not others:
            name, _, turns = self.fixed[id(learned[0])] if learned else ("", None, 0)
            turns += operation in TRANSPOSES
            turns = turns if operation in TRANSPOSES | ALIASES else COMPUTED
            for leaf in tree_leaves(output):
                if isinstance(leaf, Tensor):
                    self.fixed[id(leaf)] = (name, leaf, turns)
        elif learned and operation not in JOINING_GRAPHS:
            names = [argument.name for argument in func._schema.arguments]
            self._add(operation, dict(zip(names, args, strict=False)) | kwargs, learned, others)
            return tree_map(self.watched.noise, output)
        return output

    def _add(
        self, operation: str, given: JsonObject, learned: list[Tensor], others: list[Tensor]
    ) -> None:
        data, weight = (given.get(name) for name in LAYERS.get(operation, ("", "")))
        layer = None
        if any(weight is t for t in learned) and any(data is t for t in others):
            layer = self._layer(operation, given, weight)
        if layer is None:
            name = self.fixed[id(learned[0])][0]
            self.watched.add(name, self.module, operation.rsplit("::", maxsplit=1)[-1], others)
        else:
            name = self.fixed[id(weight)][0].removesuffix("weight").removesuffix(".")
            self.watched.add(name, layer, "", [data])

    def _layer(self, operation: str, given: JsonObject, weight: Any) -> nn.Module | None:
        """Return a layer that holds the parameter of an operation, None if there is none.

        A weight that is computed is no parameter of that layer, as those of ``weight_norm``.
        """
        name, _, turns = self.fixed[id(weight)]
        transposed = LAYERS[operation][1] != "weight"
        if "conv" in operation and weight.ndim == 4 and not given.get("transposed"):
            layer: nn.Module = convolution(given, weight)
        elif "conv" not in operation and weight.ndim == 2:
            outputs, inputs = weight.shape[::-1] if transposed else weight.shape
            layer = nn.Linear(inputs, outputs, bias=False, device="meta")
        else:
            return None
        if turns == transposed:
            layer.weight = self.module.get_parameter(name)
        elif transposed and turns == 0:
            return None  # (in, out): no weight of a Linear
        else:
            del layer.weight
            layer.weight = weight.detach()
        return layer


def convolution(given: JsonObject, weight: Tensor) -> nn.Conv2d:
    """Return a layer of the shape of a weight, with the options that an operation was given."""
    groups, padding = given.get("groups", 1), given.get("padding", 0)
    return nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        (int(weight.shape[2]), int(weight.shape[3])),
        _pair(given.get("stride", 1)),
        padding if isinstance(padding, str) else _pair(padding),
        _pair(given.get("dilation", 1)),
        groups,
        bias=False,
        device="meta",
    )


def _pair(numbers: Any) -> tuple[int, int]:
    many = [int(n) for n in numbers] if isinstance(numbers, list | tuple) else [int(numbers)]
    return (many[0], many[-1])


JOINING = {torch.cat, torch.concat, torch.concatenate, torch.stack}
RUNS = 4


@dataclass(frozen=True)
class Stem:
    """A layer that receives slices."""

    name: str  # dotted, "" for the network itself
    layer: nn.Conv2d | nn.Linear
    kind: str  # "conv" or "linear"
    slot_of: tuple[int, ...]  # for each input channel the slot it carries, -1 for anything else
    slots: int  # S
    maps: tuple[tuple[float, float], ...]  # scale and shift before each channel; (0, 0) for -1

    def channels_of(self, slot: int) -> list[int]:
        """Input channels that carry this slot."""
        return [channel for channel, owner in enumerate(self.slot_of) if owner == slot]

    def same_input(self, slot: int, other: int) -> bool:
        """Whether two slots come in alike: in as many channels, by the same scales and shifts."""
        one, two = ([self.maps[c] for c in self.channels_of(s)] for s in (slot, other))
        near = 1e-3 + 4 * _precision(self.layer)
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
        words = "x".join(map(str, layer.kernel_size))
        if layer.kernel_size == layer.stride and layer.stride[0] > 1:
            words += " patch embedding"
        else:
            words += " convolution"
            words += "" if set(layer.stride) == {1} else f", stride {layer.stride[0]}"
        return words + ("" if copies == 1 else f", {copies} values per slot (space to depth)")


def find_stems(module: nn.Module, slices: int = 3, probe: Probe | None = None) -> list[Stem]:
    """Find every layer of ``module`` that receives the input slices themselves.

    ``slices`` is S, the number of input channels it has now. ``probe`` is an example input for
    networks that need one: a tensor (B, S, y, x), or a tuple or a dict of inputs in which the first
    such tensor is the image. Only the shape of the image is used; the others are passed as they
    are.

    They come in the order in which they were called. ``BadInputError`` if the network cannot be
    run, no such layer is found, or one is of a kind that cannot be made symmetric.
    """
    check_kind(module)
    return stems_on(module, call_of(module, slices, probe))


def check_kind(module: nn.Module) -> None:
    """Raise ``BadInputError`` for what cannot be watched: scripted, compiled, not yet made."""
    found, advice = "", ""
    if not isinstance(module, nn.Module):
        found, advice = f"a {type(module).__name__}", "pass the network itself"
    elif isinstance(module, torch.jit.ScriptModule):
        found, advice = "a TorchScript module", "pass the module it was scripted from"
    elif hasattr(module, "_orig_mod"):
        found, advice = "compiled", "pass the module it was compiled from, and compile afterwards"
    elif part := next((n for n, m in module.named_modules() if n and is_exported(m)), ""):
        found = f"one with an exported program inside ({part})"
        advice = "give that part, or the network before torch.export"
    if found:
        raise BadInputError(f"the network is {found}, expected a plain torch.nn.Module; {advice}")
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.UninitializedParameter):
            raise BadInputError(
                f"the parameter {name!r} is lazy and has no shape yet, expected a network with "
                "weights; run it once on an RGB input"
            )


def stems_on(module: nn.Module, call: Call) -> list[Stem]:
    """Find the stems of a network that is called in a known way; see ``find_stems``."""
    probes = probe_constants(call.shape[1])
    inputs = watch(module, call, probes)
    stems: dict[str, Stem] = {}
    for seen in inputs:
        stem = _stem_of(seen, probes)
        if stem and stem.slot_of != stems.setdefault(stem.name, stem).slot_of:
            raise _keeps_apart(stem.name, "is called on the slices one after the other")
    for seen in inputs:
        if seen.name not in stems:
            continue
        axis, near = _channel_axis(seen), 1e-4 + 4 * _precision(seen.layer)
        if _owners(seen.values[axis], probes, near)[0] != stems[seen.name].slot_of:
            raise BadInputError(
                f"the stem {seen.name!r} is also called on something else than the slices, "
                "expected a layer of its own; give the slices a copy of it"
            )
    if not stems:
        scripted = [n for n, m in module.named_modules() if isinstance(m, torch.jit.ScriptModule)]
        hidden = f"the part {scripted[0]!r} is TorchScript, not watched; " if scripted else ""
        raise BadInputError(
            f"no layer of {type(module).__name__} receives its {call.shape[1]} input channels "
            "themselves; expected a convolution or a patch embedding that does, before anything "
            f"mixes the channels; {hidden}give the part of the network that "
            "starts with it"
        )
    return list(stems.values())


def watch(module: nn.Module, call: Call, probes: Tensor) -> list[LayerInput]:
    """Run once for each row of ``probes`` (runs, S); return what met parameters.

    In the order of the calls; a layer that is called twice comes twice.
    """
    own = getattr(module, "watch", None)
    if callable(own):  # a network that runs outside of torch
        found: list[LayerInput] = own(call, probes)
        return found
    runs = [_watch_once(module, call, constants) for constants in probes]
    found = []
    for key, first in runs[0].items():
        same = [run[key].values for run in runs if key in run]
        shapes = {tuple(v.shape for v in values) for values in same}
        if len(same) == len(runs) and len(shapes) == 1:
            axes = tuple(torch.stack(axis) for axis in zip(*same, strict=True))
            found.append(LayerInput(first.name, first.layer, first.operation, axes))
    return found


def _watch_once(
    module: nn.Module, call: Call, constants: Tensor
) -> dict[tuple[str, int], LayerInput]:
    watched = WatchedInputs()
    hooks = []
    try:
        if is_exported(module):
            with GraphWatcher(module, watched):
                call.run(module, constants)
            return watched.seen
        layers, loose = _parts(module)
        for name, layer in layers.items():

            def before(m: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
                watched.add(name, m, "", tree_leaves((args, kwargs)))

            hooks += [
                layer.register_forward_pre_hook(before, with_kwargs=True),
                layer.register_forward_hook(lambda _m, _args, out: tree_map(watched.noise, out)),
            ]
        with _LooseParameters(loose, watched):
            call.run(module, constants)
    except Exception as error:  # a network may not bear noise between its layers
        raise BadInputError(
            f"{type(module).__name__} cannot be watched while it runs ({type(error).__name__}: "
            f"{str(error)[:200]}); expected plain layers in torch modules; give the part of the "
            "network that starts with the stem"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return watched.seen


def _is_layer(module: nn.Module) -> bool:
    """Whether a module has parameters of its own and no parts, or is of a known kind."""
    if next(module.parameters(), None) is None:
        return False
    parts = [name for name, _ in module.named_children() if name != "parametrizations"]
    return isinstance(module, nn.Conv2d | nn.Linear) or not parts


def _parts(module: nn.Module) -> tuple[dict[str, nn.Module], dict[int, tuple[str, nn.Module]]]:
    """Return the layers by name, and by id the other parameters, with their name and owner."""
    layers: dict[str, nn.Module] = {}
    loose = {}
    for name, part in module.named_modules():
        inside = any(not above or name.startswith(f"{above}.") for above in layers)
        if inside or isinstance(part, torch.jit.ScriptModule):
            continue
        if _is_layer(part):
            layers[name] = part
            continue
        for key, parameter in part.named_parameters(recurse=False):
            loose[id(parameter)] = (f"{name}.{key}".removeprefix("."), part)
    return layers, loose


class _LooseParameters(TorchFunctionMode):
    """See the functions in which a parameter that belongs to no layer meets another tensor."""

    def __init__(self, loose: dict[int, tuple[str, nn.Module]], watched: WatchedInputs) -> None:
        super().__init__()
        self.loose, self.watched = loose, watched

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in JOINING and self.loose:
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            met = next((self.loose[id(t)] for t in tensors if id(t) in self.loose), None)
            others = [t for t in tensors if id(t) not in self.loose]
            if met is not None and others:
                self.watched.add(*met, getattr(func, "__name__", str(func)), others)
        return func(*args, **kwargs)


@lru_cache
def probe_constants(slices: int, runs: int = RUNS) -> Tensor:
    """Return the constants of S slots in each run, (runs, S): the same ones in changing places.

    Exact in any type. Of many drawn tables the one is taken in which no slot comes near to any
    scale and shift of another.
    """
    draw = torch.Generator().manual_seed(slices)
    tables = []
    for _ in range(60):
        values = (14 + torch.randperm(100, generator=draw)).double() / 128
        orders = [values[torch.randperm(slices, generator=draw)] for _ in range(runs)]
        if slices <= 2:  # two in changing places would be each other's mirror image
            orders = list(values[: runs * slices].view(runs, slices))
        tables.append(torch.stack(orders))
    return max(tables, key=_separation)


def _separation(table: Tensor) -> float:
    """Return the smallest sine between two slots over the runs, shifts left out."""
    sent = table - table.mean(0)
    unit = torch.nn.functional.normalize(sent, dim=0)
    apart = 1 - (unit.T @ unit).square() + torch.eye(table.shape[1], dtype=table.dtype)
    return float(torch.minimum(apart.clamp_min(0).sqrt().min(), sent.norm(dim=0).min()))


def _stem_of(seen: LayerInput, probes: Tensor) -> Stem | None:
    """Return the stem that was seen, if its input shows slots; raise if it cannot be handled."""
    layer, near = seen.layer, 1e-4 + 4 * _precision(seen.layer)
    matches = [_owners(values, probes, near) for values in seen.values]
    shows = [any(owner >= 0 for owner in owners) for owners, _ in matches]
    if not any(shows):
        return None
    name = seen.name or "the network itself"
    if seen.operation:
        raise BadInputError(
            f"the slices meet the parameter {name!r} of {type(layer).__name__} in "
            f"{seen.operation}, outside of any layer; expected a Conv2d or a Linear; make that "
            "parameter the weight of one"
        )
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        raise BadInputError(
            f"the slices enter {name!r}, a {type(layer).__name__}, expected Conv2d or a linear "
            f"patch embedding; {_advice(type(layer).__name__)}"
        )
    axis = _channel_axis(seen)
    if not shows[axis]:
        raise _keeps_apart(seen.name, "takes the slices one by one")
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        raise _keeps_apart(seen.name, f"is a grouped convolution (groups = {layer.groups})")
    owners, maps = matches[axis]
    kind = "linear" if isinstance(layer, nn.Linear) else "conv"
    return Stem(seen.name, layer, kind, owners, probes.shape[1], maps)


def _channel_axis(seen: LayerInput) -> int:
    return len(seen.values) - (1 if isinstance(seen.layer, nn.Linear) else 3)


def _precision(layer: nn.Module) -> float:
    example = next((p for p in layer.parameters() if p.is_floating_point()), torch.zeros(()))
    return float(torch.finfo(example.dtype).eps)


def _advice(kind: str) -> str:
    if "Norm" in kind:
        return (
            "give the part behind it, and normalise by one mean and one std outside of the network"
        )
    if "3d" in kind.lower():
        return "a 3-D kernel moves along the slices and has no slots; use a 2-D network"
    return "wrap the network so that one of these comes first"


def _keeps_apart(name: str, what: str) -> BadInputError:
    return BadInputError(
        f"the stem {name!r} {what} and keeps slices in separate outputs; expected one layer that "
        "takes all slices at once; put a plain convolution before it"
    )


def _owners(
    values: Tensor, probes: Tensor, near: float
) -> tuple[tuple[int, ...], tuple[tuple[float, float], ...]]:
    """Match what each channel saw (runs, channels) with the constants of each slot (runs, S).

    For each channel the slot, or -1; and the scale and shift from the slot's constants to what was
    seen.
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
        shift = values[:, channel].mean() - a * probes[:, slot].mean() if slot >= 0 else 0.0
        owners.append(slot)
        maps.append((a, float(shift)))
    return tuple(owners), tuple(maps)
