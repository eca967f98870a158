"""Running a network on an example: which sizes it takes, and its answer, with the network left as it was."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from evenslice.errors import BadInputError
from evenslice.model.exported import image_shape

Probe = Tensor | Sequence[Any] | Mapping[str, Any]
SIDES = (64, 224, 256, 384, 518, 96)


@dataclass(frozen=True)
class Call:
    """How a network is called: positional and named inputs, and which of them is the image.

    Attributes
    ----------
    inputs
        Positional inputs under 0, 1, ..., named ones under their names.
    image
        The key of the image (B, S, y, x) among them.
    """

    inputs: Mapping[int | str, Any]
    image: int | str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the image."""
        return tuple(self.inputs[self.image].shape)

    def widened(self, slices: int) -> "Call":
        """Return the same call with an image of S channels."""
        batch, _, height, width = self.shape
        return replace(
            self, inputs={**self.inputs, self.image: torch.zeros(batch, slices, height, width)}
        )

    def run(self, module: nn.Module, image: Tensor) -> Any:
        """Run the network on an image (B, S, y, x) or (S,), in its own type, in eval mode, without gradients or luck."""
        example = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
        full = image[None, :, None, None].expand(self.shape) if image.ndim == 1 else image
        inputs = {**self.inputs, self.image: full.to(example.device, example.dtype).contiguous()}
        positional = [inputs[key] for key in sorted(k for k in inputs if isinstance(k, int))]
        named = {key: value for key, value in inputs.items() if isinstance(key, str)}
        with evaluating(module), torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
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
    """Find a way to call a network: the probe, or one square image of a size that the network accepts.

    Raises
    ------
    BadInputError
        If the probe holds no image of S channels, or the network does not run.
    """
    image = 0.25 + 0.5 * torch.rand(slices, generator=torch.Generator().manual_seed(0))
    if probe is not None:
        call = _call_on(probe, slices)
        try:
            call.run(module, image)
        except Exception as error:  # networks refuse inputs in ways of their own
            raise BadInputError(
                f"{type(module).__name__} does not run on a probe with an image of shape {call.shape} ({_reason(error)}); "
                "expected a probe like the network's input"
            ) from error
        return call
    reason = ""
    shapes = _shapes(module, slices)
    for shape in shapes:
        call = Call({0: torch.zeros(shape)}, 0)
        try:
            call.run(module, image)
        except Exception as error:  # networks refuse sizes in ways of their own
            reason = reason or _reason(error)
        else:
            return call
    sides = [side for shape in shapes for side in shape[2:]]
    raise BadInputError(
        f"{type(module).__name__} does not run on {slices} channels of {min(sides)} to {max(sides)} pixels ({reason}); "
        "expected a network called with one tensor (B, S, y, x); give an example input as probe"
    )


def check_runs(module: nn.Module, call: Call) -> None:
    """Raise ``BadInputError`` unless a network runs on the channels it was just given."""
    slices, height, width = call.shape[1:]
    try:
        call.run(module, torch.linspace(0.25, 0.75, slices))
    except Exception as error:  # networks refuse inputs in ways of their own
        raise BadInputError(
            f"{type(module).__name__} does not run on {slices} channels of {height} x {width} pixels ({_reason(error)}); expected "
            "a network in which only the stem knows the number of channels; keep 3 slices, or give the part that starts with the stem"
        ) from error


def _call_on(probe: Probe, slices: int) -> Call:
    many = (
        {0: probe}
        if isinstance(probe, Tensor)
        else probe
        if isinstance(probe, Mapping)
        else dict(enumerate(probe))
    )
    inputs: dict[int | str, Any] = dict(many.items())
    tensors = {key: value for key, value in inputs.items() if isinstance(value, Tensor)}
    for key, value in tensors.items():
        if value.ndim == 4 and value.is_floating_point() and value.shape[1] == slices:
            return Call(inputs, key)
    shapes = ", ".join(str(tuple(value.shape)) for value in tensors.values()) or "no tensor"
    raise BadInputError(
        f"the probe has shape {shapes}, expected (B, {slices}, y, x) of floating point; make one like the network's input"
    )


def _shapes(module: nn.Module, slices: int) -> list[tuple[int, int, int, int]]:
    """Return shapes of images to try: those a network states, and for what it leaves open the usual ones."""
    batch, channels, height, width = image_shape(module)
    if channels not in (None, slices):
        raise BadInputError(
            f"the exported network takes {channels} channels, expected {slices}; its number of slices is fixed, so give "
            f"{channels} slices or change the network before the export"
        )
    batches = (
        [batch] if batch is not None else [1] if image_shape(module) == (None,) * 4 else [1, 2]
    )
    sizes = [(b, slices, height or y, width or x) for b in batches for y, x in _sizes(module)]
    return list(dict.fromkeys(sizes))


def _sizes(module: nn.Module) -> list[tuple[int, int]]:
    """Return sizes to try: a small one, those the network's parts state, and the usual ones."""
    stated = [(getattr(module, "pretrained_cfg", None) or {}).get("input_size", ())[-2:]]
    for part in module.modules():
        stated += [getattr(part, name, None) for name in ("img_size", "image_size")]
    sizes = [(SIDES[0], SIDES[0])]
    for size in stated:
        pair = (size, size) if isinstance(size, int) else size
        if (
            isinstance(pair, tuple | list)
            and len(pair) == 2
            and all(isinstance(side, int) for side in pair)
        ):
            sizes.append((pair[0], pair[1]))
    return list(dict.fromkeys([*sizes, *((side, side) for side in SIDES)]))


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def tensors_in(found: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in what a network returned: a tensor, or any nest of them."""
    if isinstance(found, Tensor):
        if found.is_floating_point() or found.is_complex():
            yield found
    elif isinstance(found, Mapping):
        for value in found.values():
            yield from tensors_in(value)
    elif isinstance(found, list | tuple):
        for value in found:
            yield from tensors_in(value)
    elif is_dataclass(found):
        for field in fields(found):
            yield from tensors_in(getattr(found, field.name))


def order_response(module: nn.Module, call: Call, order: Sequence[int]) -> float:
    """Return how much the output changes, relative to its largest value, when the slots of noise change places.

    What is handed through unchanged (the first feature map of many encoders is the input) does not count.
    """
    noise = torch.rand(call.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = noise[:, list(order)]
    worst = 0.0
    pairs = zip(
        tensors_in(call.run(module, noise)), tensors_in(call.run(module, moved)), strict=True
    )
    for one, other in pairs:
        if one.shape == noise.shape and torch.equal(other, moved.to(other.device, other.dtype)):
            continue
        change = (
            (one - other).abs().double().nan_to_num(0.0, 0.0, 0.0).max()
            if one.numel()
            else torch.zeros(())
        )
        size = (
            one.abs().double().nan_to_num(0.0, 0.0, 0.0).max() if one.numel() else torch.zeros(())
        )
        worst = max(worst, float(change / size.clamp_min(torch.finfo(torch.float32).tiny)))
    return worst
