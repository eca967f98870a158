"""External networks: how one is called and what it answers, found out by running it."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from evenslice.errors import BadInputError
from evenslice.model.logits import (
    AllOutputs,
    LogitsAdapter,
    Picture,
    duplicate,
    find_picture,
    window_tensors,
)
from evenslice.model.source import Form
from evenslice.model.spec import ExternalSpec, Model
from evenslice.model.stem.probe import Call, call_of, image_shape, tensors_in
from evenslice.volume.windows import check_slices

SLICES = (3, 5, 7, 9, 1)  # numbers that are tried, in this order
STRIDES = (1, 2, 4, 8, 16, 32, 64)
BASE = (128, 192)
SAME = 1e-2  # how far probabilities may be from a sum of 1, in half precision too
Rows = list[Tensor]


def wrap_external(
    network: nn.Module,
    form: Form,
    source: str,
    slices: int | None = None,
    answer: str | None = None,
    probe: tuple[int, int] | None = None,
) -> Model:
    """Find out by running a network how it is called and what it answers.

    ``network`` is in eval mode, ``form`` and ``source`` say where it came from, ``answer`` which of
    its outputs is the prediction (see ``find_picture``), ``probe`` a size (y, x) that it takes;
    None: it is found. A network without one prediction that lies on its input (a classifier, an
    encoder, several heads) has no classes: its stem can be inspected and fixed, but it can neither
    segment nor be audited. One whose answer for a window depends on the others in a batch gets one
    at a time, with a warning.

    ``BadInputError`` if it does not run, answers no numbers for each image, or the same input
    differently.
    """
    if form == "torch-export":
        network.float()  # weights in half precision; written back in their own type
    if probe is not None:
        network.evenslice_size = probe  # type: ignore[assignment]
    stated = image_shape(network)
    count = slices or stated[1]
    call = _find_call(network, None if count is None else check_slices(count), source)
    _check_two_dimensional(network, call, source)
    batch = stated[0] or _only_batch(network, call)
    if form == "torch-export" and not _runs(duplicate(network).double(), call):
        network.precisions = ("float32",)  # type: ignore[assignment]
    image = _noise(call)
    found = call.run(network, image)
    changes_input = not torch.equal(image, _noise(call))
    tensors = window_tensors(found, call.shape[0])
    if not tensors or any(bool(t.isnan().any()) for t in tensors):
        raise BadInputError(
            f"{source} answers {'NaN' if tensors else 'no floating-point numbers for each image'} "
            "for noise of mean 0 and std 1, expected logits or probabilities (B, classes, y, x); "
            "return these, and check its weights"
        )
    slots, size = call.shape[1], (call.shape[2], call.shape[3])
    picture, reason, answers, stride = None, "", "no prediction", 1
    try:
        picture = find_picture(found, _noise(call), answer)
        answers = _kind_of(network, call, picture)
        fixed = stated[2] is not None or stated[3] is not None
        only = fixed or not (stride := _stride_of(network, call, picture))
    except BadInputError as error:
        if answer is not None:
            raise BadInputError(f"{source}: {error}") from error
        picture, reason, only = None, str(error), True
    _check_repeats(network, call, source, picture)
    if batch is None and (where := _depends_on_batch(network, call, picture)):
        batch = 1
        warnings.warn(
            f"{source} answers differently for a window alone and in a batch (from {where} on), as "
            "BatchNorm with the statistics of the batch does; windows are run one at a time, and "
            "results depend on the tile: use running statistics",
            stacklevel=2,
        )
    if picture is None:
        spec = ExternalSpec(form, source, slots, 0, slots, "no prediction", probe=probe)
        return Model(AllOutputs(network, batch, reason).eval(), spec, stride=1, size=size)
    out = picture.of(found)
    plain = out is found and picture.factor == 1
    graph = form == "torch-export"  # torch refuses to switch the mode of a bare graph
    module = network
    probabilities = answers == "probabilities"
    if graph or probabilities or changes_input or batch is not None or not plain:
        module = LogitsAdapter(network, picture, probabilities, batch, changes_input).eval()
    chosen = None if isinstance(found, Tensor) and picture.channel is None else picture.answer
    spec = ExternalSpec(
        form, source, slots, out.shape[1], slots, answers, answer=chosen, probe=probe
    )
    return Model(module, spec, stride=stride or 1, size=size if only else None)


def _find_call(network: nn.Module, slices: int | None, source: str) -> Call:
    reasons = []
    for count in SLICES if slices is None else (slices, *SLICES):
        try:
            call = call_of(network, count)
        except BadInputError as error:
            reasons.append(str(error))
            continue
        if slices not in (None, count):
            raise BadInputError(
                f"{source} does not run on {slices} slices, expected {count} as it takes; leave "
                "--slices out (fix --init makes a stem for another number)"
            )
        return call
    tried = "" if slices else f"; tried {', '.join(map(str, SLICES))} slices; give --slices"
    if any(isinstance(part, nn.Conv3d) for part in network.modules()):
        tried += "; it has 3-D layers: a network of volumes (B, 1, z, y, x) is no 2D+ network"
    raise BadInputError(f"{source}: {reasons[0]}{tried}")


def _check_two_dimensional(network: nn.Module, call: Call, source: str) -> None:
    """Refuse a 3-D network that takes windows (B, S, y, x) for volumes without a batch."""
    unbatched = [
        name
        for name, inputs, _ in _record(network, call, _noise(call))
        if type(network.get_submodule(name)).__name__.endswith("3d")
        and any(t.ndim == 4 for t in inputs)
    ]
    if unbatched:
        raise BadInputError(
            f"{source} is a 3-D network ({unbatched[0]} takes the slices for z), expected one that "
            "takes the slices as channels, (B, S, y, x); give a 2D+ network, or wrap it in one"
        )


def _only_batch(network: nn.Module, call: Call) -> int | None:
    """Return the one batch size that a network takes of 1 and 2, or None if it takes both."""
    sizes = call.shape[1:]
    taken = [b for b in (1, 2) if _runs(network, Call({0: torch.zeros(b, *sizes)}, 0))]
    return taken[0] if len(taken) == 1 else None


def _runs(network: nn.Module, call: Call) -> bool:
    try:
        call.run(network, _noise(call))
    except Exception:  # networks refuse inputs in ways of their own
        return False
    return True


def _noise(call: Call, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(call.shape, generator=torch.Generator().manual_seed(seed))


def _kind_of(network: nn.Module, call: Call, picture: Picture) -> str:
    """Say whether a prediction holds logits or probabilities, by answers to weak and strong noise.

    Probabilities lie in 0..1, and those of several classes sum to 1; ``BadInputError`` if they do
    not, as those of independent labels.
    """
    apart, classes = 0.0, 1
    for seed, scale in enumerate((0.1, 1.0, 10.0)):
        out = picture.of(call.run(network, _noise(call, seed, scale)))
        if bool(((out < 0) | (out > 1)).any()) or float(out.max() - out.min()) == 0:
            return "logits"
        apart, classes = max(apart, float((out.sum(1) - 1).abs().max())), out.shape[1]
    if classes > 1 and apart > SAME:
        raise BadInputError(
            f"the network returns {classes} probabilities per pixel that do not sum to 1, one for "
            "each of several independent labels, expected those of classes (softmax) or of one "
            f"label; choose a label by --answer {picture.name or 0}:0, to :{classes - 1}"
        )
    return "probabilities"


def _stride_of(network: nn.Module, call: Call, picture: Picture) -> int:
    """Return what height and width must be multiples of; 0 if a network takes one size only.

    ``BadInputError`` if what it answers is not the same fraction of its input at every size.
    """
    other = ""
    for stride in STRIDES:
        height, width = (side + stride for side in BASE)
        larger = Call({0: torch.zeros(call.shape[0], call.shape[1], height, width)}, 0)
        try:
            out = picture.of(larger.run(network, _noise(larger)))
        except Exception:  # networks refuse sizes in ways of their own
            continue
        rows, columns = out.shape[-2:]
        if (rows * picture.factor, columns * picture.factor) == (height, width):
            return stride
        other = other or f"{rows} x {columns} for {height} x {width} pixels"
    if other:
        rows, columns = (side // picture.factor for side in call.shape[2:])
        raise BadInputError(
            f"the network answers {other} and {rows} x {columns} for {call.shape[2]} x "
            f"{call.shape[3]}, expected the same fraction of every size; pad it, so that it cuts "
            "nothing off"
        )
    return 0


def _check_repeats(network: nn.Module, call: Call, source: str, picture: Picture | None) -> None:
    """Refuse a network that answers the same input differently: dropout, noise, or a memory."""

    def first() -> Any:
        return call.run(network, _noise(call))

    def again() -> Any:
        call.run(network, _noise(call, 1))
        return call.run(network, _noise(call), seed=1)

    if _differ(network, _taken(picture, first()), _taken(picture, again())):
        one = _record(network, call, _noise(call))
        call.run(network, _noise(call, 1))
        where = _first_difference(network, one, _record(network, call, _noise(call), 1))
        raise BadInputError(
            f"{source} answers the same input differently each time (from {where} on), expected a "
            "function of its input in eval mode; give dropout training=self.training, and leave "
            "random noise out"
        )


def _depends_on_batch(network: nn.Module, call: Call, picture: Picture | None) -> str:
    """Name where a window's answer depends on the others in a batch; ``""`` if it does not."""
    one = _noise(call)[:1]
    pair = Call({0: torch.zeros(2, *call.shape[1:])}, 0)
    both = torch.cat([one, _noise(call, 1, 10.0)[:1]])  # with other extremes too
    alone, beside = call.run(network, one), pair.run(network, both)
    if not _differ(network, _taken(picture, alone), _taken(picture, beside)):
        return ""
    return _first_difference(network, _record(network, call, one), _record(network, pair, both))


def _taken(picture: Picture | None, found: Any) -> Rows:
    """Return the first window's part of a prediction, or of all that a network returned."""
    return _rows(found if picture is None else picture.of(found))


def _rows(found: Any) -> Rows:
    return [t[:1].clone() for t in tensors_in(found) if t.ndim]


def _differ(network: nn.Module, one: Rows, other: Rows) -> bool:
    """Whether tensors differ by more than half the digits that a network computes with."""
    limit = torch.finfo(getattr(network, "computes_in", torch.float32)).eps ** 0.5
    return len(one) != len(other) or any(
        a.shape != b.shape or bool(((a - b).abs() > limit * a.abs().max()).any())
        for a, b in zip(one, other, strict=True)
        if a.numel()
    )


def _record(
    network: nn.Module, call: Call, image: Tensor, seed: int = 0
) -> list[tuple[str, Rows, Rows]]:
    """Run a network; return for every call of a part, inner ones first: name, inputs, outputs."""
    seen: list[tuple[str, Rows, Rows]] = []

    def hook(name: str) -> Callable[..., None]:
        return lambda _part, inputs, out: seen.append((name, _rows(inputs), _rows(out)))

    parts = [p for p in network.named_modules() if not isinstance(p[1], torch.jit.ScriptModule)]
    hooks = [part.register_forward_hook(hook(name)) for name, part in parts]
    try:
        call.run(network, image, seed)
    finally:
        for one in hooks:
            one.remove()
    return seen


def _first_difference(
    network: nn.Module, one: list[tuple[str, Rows, Rows]], other: list[tuple[str, Rows, Rows]]
) -> str:
    """Name the part that first answers like inputs differently."""
    for (name, given, out), (_, given_too, out_too) in zip(one, other, strict=False):
        if not _differ(network, given, given_too) and _differ(network, out, out_too):
            kind = type(network.get_submodule(name)).__name__
            return f"{name} ({kind})" if name else kind
    return type(network).__name__
