"""Finding the stems of a network by watching it run: which layers receive the slices themselves.

Each slot of a probe is one constant. A layer that receives the input itself, also through a pad, a reshape, an
interpolation or beside other channels, still sees those constants in its channels; any layer behind a
parameterised one does not. Two probes with other constants rule out coincidence.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from evenslice.errors import BadInputError

PROBE_SIDES = (64, 224, 256, 384, 518, 96)


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
    """

    name: str
    layer: nn.Conv2d | nn.Linear
    kind: str
    slot_of: tuple[int, ...]

    @property
    def slots(self) -> int:
        """How many slots this layer receives."""
        return max(self.slot_of) + 1

    def channels_of(self, slot: int) -> list[int]:
        """Input channels that carry this slot."""
        return [channel for channel, owner in enumerate(self.slot_of) if owner == slot]


def find_stems(module: nn.Module, slices: int = 3, probe: Tensor | None = None) -> list[Stem]:
    """Find every layer of ``module`` that receives the input slices themselves.

    Parameters
    ----------
    module
        Any network called with one tensor (B, S, y, x).
    slices
        S, the number of input channels the network has now.
    probe
        An example input (B, S, y, x) for networks that need a certain size; only its shape is used.

    Returns
    -------
    list of Stem
        In the order in which the layers were called.

    Raises
    ------
    BadInputError
        If the network cannot be run, no such layer is found, or one is of a kind that cannot be made even.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise BadInputError(
            "the network is a TorchScript module, expected a plain torch.nn.Module; pass the module it was scripted from"
        )
    first, second = _constants(slices, 0), _constants(slices, 1)
    shape = _working_shape(module, slices, probe)
    seen, again = _watch(module, shape, first), _watch(module, shape, second)
    stems = []
    for name, layer, values in seen:
        other = next((v for n, _, v in again if n == name and v.shape == values.shape), None)
        if other is None:
            continue
        owners = _owners(values, other, first, second)
        if any(owner >= 0 for owner in owners):
            stems.append(_stem(name, layer, owners))
    if not stems:
        raise BadInputError(
            f"no layer of {type(module).__name__} receives its {slices} input channels themselves; expected a convolution "
            "or a patch embedding that does, before anything mixes the channels; give the part of the network that starts with it"
        )
    return stems


def _constants(slices: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(1234 + seed)
    return torch.randn(slices, generator=draw, dtype=torch.float64) + 3.0


def _stem(name: str, layer: nn.Module, owners: tuple[int, ...]) -> Stem:
    if isinstance(layer, nn.Linear):
        return Stem(name, layer, "linear", owners)
    if not isinstance(layer, nn.Conv2d):
        raise BadInputError(
            f"the slices enter {name or 'the network itself'!r}, a {type(layer).__name__}, expected Conv2d or a linear patch embedding; "
            "wrap the network so that one of these comes first"
        )
    if layer.groups != 1:
        raise BadInputError(
            f"the stem {name!r} is a grouped convolution (groups = {layer.groups}) that keeps slices in separate outputs; "
            "expected groups = 1; put a plain convolution before it"
        )
    return Stem(name, layer, "conv", owners)


def _owners(values: Tensor, other: Tensor, first: Tensor, second: Tensor) -> tuple[int, ...]:
    """Match what each channel saw, in both runs, with the slots' constants."""
    match = torch.isclose(values[:, None], first, rtol=1e-4, atol=1e-5)
    match &= torch.isclose(other[:, None], second, rtol=1e-4, atol=1e-5)
    return tuple(int(row.nonzero()[0]) if row.any() else -1 for row in match)


def _watch(module: nn.Module, shape: tuple[int, ...], constants: Tensor) -> list[tuple[str, nn.Module, Tensor]]:
    """Run once; return for each parameterised layer the median of every input channel, in calling order."""
    seen: list[tuple[str, nn.Module, Tensor]] = []
    names: dict[str, int] = {}

    def look(name: str, layer: nn.Module, args: tuple[Any, ...]) -> None:
        x = next((a for a in args if isinstance(a, Tensor) and a.is_floating_point()), None)
        if x is None or x.ndim < 2 or name in names:
            return
        names[name] = 1
        axis = 1 if x.ndim == 4 and not isinstance(layer, nn.Linear) else x.ndim - 1
        flat = x.detach().movedim(axis, 0).reshape(x.shape[axis], -1)
        seen.append((name, layer, flat.double().cpu().median(dim=1).values))

    hooks = [
        layer.register_forward_pre_hook(lambda m, args, n=name: look(n, m, args))
        for name, layer in module.named_modules()
        if next(layer.parameters(recurse=False), None) is not None or parametrize.is_parametrized(layer)
    ]
    try:
        run_probe(module, shape, constants)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def run_probe(module: nn.Module, shape: tuple[int, ...], constants: Tensor) -> Any:
    """Run the network, in eval mode and without gradients, on slots that are constants (S,)."""
    example = next(module.parameters(), torch.zeros(()))
    x = constants.to(example.device, example.dtype)[None, :, None, None].expand(shape).contiguous()
    with evaluating(module), torch.no_grad():
        return module(x)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a network into eval mode; put each of its parts back as it was."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, training in modes.items():
            m.training = training


def _working_shape(module: nn.Module, slices: int, probe: Tensor | None) -> tuple[int, ...]:
    """Return an input shape that the network accepts: the probe's, or the first of a few square ones."""
    if probe is not None:
        if probe.ndim != 4 or probe.shape[1] != slices:
            raise BadInputError(
                f"the probe has shape {tuple(probe.shape)}, expected (B, {slices}, y, x); make one like the network's input"
            )
        return tuple(probe.shape)
    size = (getattr(module, "pretrained_cfg", None) or {}).get("input_size", ())
    sides = [*PROBE_SIDES[:1], *size[-1:], *PROBE_SIDES[1:]]
    reason = ""
    for side in sides:
        try:
            run_probe(module, (1, slices, side, side), _constants(slices, 0))
        except Exception as error:  # networks refuse sizes in ways of their own
            reason = reason or str(error).splitlines()[0]
        else:
            return 1, slices, side, side
    raise BadInputError(
        f"{type(module).__name__} does not run on {slices} channels of {PROBE_SIDES[0]} to {max(PROBE_SIDES)} pixels ({reason}); "
        "expected a network called with one tensor (B, S, y, x); give an example input as probe"
    )
