"""Running a network on an example: sizes it takes, its answer, and what its layers receive."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from evenslice.errors import BadInputError

Probe = Tensor | Sequence[Any] | Mapping[str, Any]
SIDES = (64, 128, 224, 256, 512, 384, 518, 96, 192)
SMALLEST = 32  # of the sides that a parameter may have by the size of the image
MOST = 64  # channels of an image
LARGE, SAMPLE = 4096, 1023  # entries of which a median is taken in full, and of a sample


@dataclass(frozen=True)
class Call:
    """How a network is called: positional and named inputs, and which of them is the image."""

    inputs: Mapping[int | str, Any]  # positional ones under 0, 1, ..., named ones by name
    image: int | str  # the key of the image (B, S, y, x)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the image."""
        return tuple(self.inputs[self.image].shape)

    def widened(self, slices: int) -> "Call":
        """Return the same call with an image of S channels."""
        batch, _, height, width = self.shape
        image = torch.zeros(batch, slices, height, width)
        return replace(self, inputs={**self.inputs, self.image: image})

    def run(self, module: nn.Module, image: Tensor, seed: int = 0) -> Any:
        """Run on an image (B, S, y, x) or (S,) in eval mode; weights and randomness stay as is.

        Where the network draws numbers it gets those of ``seed``.
        """
        example = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
        full = image[None, :, None, None].expand(self.shape) if image.ndim == 1 else image
        inputs = {**self.inputs, self.image: full.to(example.device, example.dtype).contiguous()}
        positional = [inputs[key] for key in sorted(k for k in inputs if isinstance(k, int))]
        named = {key: value for key, value in inputs.items() if isinstance(key, str)}
        with evaluating(module), torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            try:
                return module(*positional, **named)
            except SystemExit as error:
                raise RuntimeError(f"it exits with {error.code}") from error


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a network into eval mode; put each of its parts back as it was."""
    modes = {m: m.training for m in module.modules()}
    try:
        module.eval()
    except NotImplementedError:  # an exported part keeps the mode it was exported in
        for m in modes:
            m.training = False
    try:
        yield
    finally:
        for m, training in modes.items():
            m.training = training


def call_of(module: nn.Module, slices: int, probe: Probe | None = None) -> Call:
    """Find a way to call a network: the probe, or a square image of a size that it accepts.

    ``BadInputError`` if the probe holds no image of S channels, or the network does not run.
    """
    if probe is not None:
        calls = [_call_on(probe, slices)]
    else:
        calls = [Call({0: torch.zeros(shape)}, 0) for shape in _shapes(module, slices)]
    reasons = []
    for call in calls:
        reason = _failure(module, call)
        if not reason:
            return call
        reasons.append(reason)
    if probe is not None:
        raise BadInputError(
            f"{type(module).__name__} does not run on a probe with an image of shape "
            f"{calls[0].shape} ({reasons[0]}); expected a probe like the network's input"
        )
    sides = [side for call in calls for side in call.shape[2:]]
    raise BadInputError(
        f"{type(module).__name__} does not run on {slices} channels of {min(sides)} to {max(sides)}"
        f" pixels ({reasons[0]}); expected a network called with one tensor (B, S, y, x); "
        "give a size that it takes by --probe Y,X (in Python an example input as probe)"
    )


def channels_of(module: nn.Module, probe: Probe | None = None) -> int:
    """Return the channels of the images that a network takes: 3 if it can, else as its parts say.

    Those of the probe, if one is given. 3 also where nothing else runs.
    """
    if probe is not None:
        shapes = [t.shape for t in _inputs(probe).values() if _is_image(t)]
        return 3 if any(s[1] == 3 for s in shapes) or not shapes else shapes[0][1]
    stated = image_shape(module)[1]
    parts = [m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d)]
    parts = [n for n in parts[:1] if n <= MOST]
    for channels in dict.fromkeys([3, *parts, 1]) if stated is None else [stated]:
        try:
            return call_of(module, channels).shape[1]
        except BadInputError:
            continue
    return 3


def check_runs(module: nn.Module, call: Call) -> None:
    """Raise ``BadInputError`` unless a network runs on the channels it was just given."""
    reason = _failure(module, call)
    if reason:
        slices, height, width = call.shape[1:]
        raise BadInputError(
            f"{type(module).__name__} does not run on {slices} channels of {height} x {width} "
            f"pixels ({reason}); expected a network in which only the stem knows the number of "
            "channels; keep 3 slices, or give the part that starts with the stem"
        )


def _failure(module: nn.Module, call: Call) -> str:
    """Return why a network does not run, "" if it does."""
    slices = call.shape[1]
    image = 0.25 + 0.5 * torch.rand(slices, generator=torch.Generator().manual_seed(0))
    try:
        call.run(module, image)
    except Exception as error:  # networks refuse inputs in ways of their own
        return (str(error).splitlines() or [type(error).__name__])[0][:200] or "no reason given"
    return ""


def _inputs(probe: Probe) -> dict[int | str, Any]:
    inputs: dict[int | str, Any] = {}
    if isinstance(probe, Mapping):
        inputs.update(probe)
    else:
        inputs.update(enumerate([probe] if isinstance(probe, Tensor) else probe))
    return inputs


def _is_image(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point()


def _call_on(probe: Probe, slices: int) -> Call:
    inputs = _inputs(probe)
    tensors = {key: value for key, value in inputs.items() if isinstance(value, Tensor)}
    for key, value in tensors.items():
        if _is_image(value) and value.shape[1] == slices:
            return Call(inputs, key)
    shapes = ", ".join(str(tuple(value.shape)) for value in tensors.values()) or "no tensor"
    raise BadInputError(
        f"the probe has shape {shapes}, expected (B, {slices}, y, x) of floating point; "
        "make one like the network's input"
    )


def is_exported(module: nn.Module) -> bool:
    """Whether a network is a graph of fixed operations, as torch.export makes it."""
    return isinstance(module, fx.GraphModule) and any(
        isinstance(node.target, torch._ops.OpOverload) for node in module.graph.nodes
    )


def is_fixed(module: nn.Module) -> bool:
    """Whether a network keeps its number of slices: exported, or run outside of torch."""
    return is_exported(module) or callable(getattr(module, "image_shape", None))


def image_shape(module: nn.Module) -> tuple[int | None, ...]:
    """Return the shape (B, S, y, x) that a network states, None for what may be any number."""
    own = getattr(module, "image_shape", None)
    if callable(own):
        stated: tuple[int | None, ...] = own()
        return stated
    for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
        value = node.meta.get("val")
        if node.op == "placeholder" and _is_image(value):
            return tuple(size if isinstance(size, int) else None for size in value.shape)
    return (None,) * 4


def _shapes(module: nn.Module, slices: int) -> list[tuple[int, int, int, int]]:
    """Return shapes of images to try: those a network states, and where it is silent the usual."""
    batch, channels, height, width = stated = image_shape(module)
    if channels not in (None, slices):
        raise BadInputError(
            f"the exported network takes {channels} channels, expected {slices}; its number of "
            f"slices is fixed, so give {channels} slices or change the network before the export"
        )
    batches = [batch] if batch is not None else [1] if stated == (None,) * 4 else [1, 2]
    sizes = [(b, slices, height or y, width or x) for b in batches for y, x in _sizes(module)]
    return list(dict.fromkeys(sizes))


def _sizes(module: nn.Module) -> list[tuple[int, int]]:
    """Return sizes to try: the one given, or a small one, those its parts state, and usual ones.

    Parts state a size by name, or have a parameter or a buffer of it, such as positions.
    """
    if given := getattr(module, "evenslice_size", None):
        return [given]
    found = [(getattr(module, "pretrained_cfg", None) or {}).get("input_size", ())[-2:]]
    for part in module.modules():
        found += [getattr(part, name, None) for name in ("img_size", "image_size")]
    states = [*module.parameters(), *module.buffers()]
    found += [tuple(t.shape[-2:]) for t in states if t.ndim > 2 and min(t.shape[-2:]) >= SMALLEST]
    sizes = [(SIDES[0], SIDES[0])]
    for size in found:
        pair = (size, size) if isinstance(size, int) else size
        if isinstance(pair, tuple | list) and [type(side) for side in pair] == [int, int]:
            sizes.append((pair[0], pair[1]))
    return list(dict.fromkeys([*sizes, *((side, side) for side in SIDES)]))


def named_tensors(found: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the floating-point tensors in what a network returned, by name: ``out``, ``heads.0``.

    A tensor that is all of it has the name ``""``.
    """
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(found, Tensor):
        if found.is_floating_point() or found.is_complex():
            yield name, found
    elif isinstance(found, Mapping):
        parts = found.items()
    elif is_dataclass(found):
        parts = [(field.name, getattr(found, field.name)) for field in fields(found)]
    elif isinstance(found, list | tuple):
        parts = zip(getattr(found, "_fields", range(len(found))), found, strict=True)
    for key, part in parts:
        yield from named_tensors(part, f"{name}.{key}" if name else str(key))


def tensors_in(found: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in what a network returned: a tensor, or a nest of them."""
    return (tensor for _, tensor in named_tensors(found))


def order_response(module: nn.Module, call: Call, order: Sequence[int]) -> float:
    """Return how much the output changes when the slots of noise change places.

    Relative to its largest value; what is handed through unchanged (the first feature map of many
    encoders is the input) does not count.
    """
    noise = torch.rand(call.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = noise[:, list(order)]
    worst = 0.0
    before, after = (tensors_in(call.run(module, image)) for image in (noise, moved))
    for one, other in zip(before, after, strict=True):
        if one.shape == noise.shape and torch.equal(other, moved.to(other.device, other.dtype)):
            continue
        smallest = torch.finfo(torch.float32).tiny
        worst = max(worst, _largest(one - other) / max(_largest(one), smallest))
    return worst


def _largest(values: Tensor) -> float:
    finite = values.abs().double().nan_to_num(0.0, 0.0, 0.0)
    return float(finite.max()) if values.numel() else 0.0


@dataclass(frozen=True)
class LayerInput:
    """One tensor that met parameters."""

    name: str  # of the layer, or of the parameter met outside of any layer
    layer: nn.Module  # or the module that owns the parameter
    operation: str  # the function that met a parameter outside of any layer, or ""
    values: tuple[Tensor, ...]  # per axis the medians along it, (runs, entries)


def shows_slots(x: object) -> bool:
    """Whether something can show slots: a floating-point tensor with more than one axis."""
    return isinstance(x, Tensor) and x.is_floating_point() and x.ndim > 1 and x.numel() > 0


def medians(x: Tensor) -> tuple[Tensor, ...]:
    """Return for each axis the median of every entry along it, of a sample where it is large."""
    values = x.detach().double().cpu()
    found = []
    for axis in range(x.ndim):
        entries = values.movedim(axis, 0).reshape(x.shape[axis], -1)
        if entries.shape[1] > LARGE:  # drawn places: regular ones could all lie on an edge
            draw = torch.Generator().manual_seed(0)
            entries = entries[:, torch.randint(entries.shape[1], (SAMPLE,), generator=draw)]
        found.append(entries.median(dim=1).values)
    return tuple(found)


class WatchedInputs:
    """What met parameters in one run, and the noise that stands in for the answers."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, int], LayerInput] = {}
        self.draw = torch.Generator().manual_seed(0)

    def add(self, name: str, layer: nn.Module, operation: str, tensors: Iterable[Any]) -> None:
        """Keep what a layer, or an operation with a parameter, receives."""
        for x in filter(shows_slots, tensors):
            turn = sum(key[0] == name for key in self.seen)
            self.seen[name, turn] = LayerInput(name, layer, operation, medians(x))

    def noise(self, x: Any) -> Any:
        """Return noise like a tensor, anything else as it is."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        return torch.rand(x.shape, generator=self.draw).to(x.device, x.dtype)
