"""Watching a network run: what each layer with parameters receives of the slices.

Only what no other layer has touched counts. While it is watched, every layer answers noise that is the same in each
run, so whatever still follows the slots of the input has come from it through operations without parameters.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from evenslice.errors import BadInputError
from evenslice.model.exported import is_exported
from evenslice.model.graphs import watch_graph
from evenslice.model.probing import Call
from evenslice.model.sights import Sight, looked_at, medians, noise_like

__all__ = ["Sight", "is_layer", "watch"]

JOINING = {torch.cat, torch.concat, torch.concatenate, torch.stack}


def watch(module: nn.Module, call: Call, probes: Tensor) -> list[Sight]:
    """Run the network once for each row of ``probes`` (runs, S), slots that are constants; return what met parameters.

    Returns
    -------
    list of Sight
        In the order of the calls; a layer that is called twice comes twice.
    """
    own = getattr(module, "watch", None)
    if callable(own):  # a network that runs outside of torch
        found: list[Sight] = own(call, probes)
        return found
    once = watch_graph if is_exported(module) else _watch_once
    runs = [once(module, call, constants) for constants in probes]
    sights = []
    for key, (name, layer, operation, values) in runs[0].items():
        same = [run[key][3] for run in runs if key in run]
        if all([v.shape for v in other] == [v.shape for v in values] for other in same) and len(same) == len(runs):
            axes = tuple(torch.stack([other[axis] for other in same]) for axis in range(len(values)))
            sights.append(Sight(name, layer, operation, axes))
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
        return tree_map(lambda x: noise_like(x, draw) if isinstance(x, Tensor) and x.is_floating_point() else x, output)

    layers, loose = _parts(module)
    hooks = [
        layer.register_forward_pre_hook(
            lambda m, args, kwargs, n=name: look(n, m, "", tree_leaves((args, kwargs))), with_kwargs=True
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
