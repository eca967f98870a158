"""Models of other people: a function of theirs that makes a network, or an exported file."""

import copy
import importlib
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evenslice.errors import BadInputError
from evenslice.model.limits import check_image
from evenslice.model.logits import LogitsAdapter, Tensors, picture_in, resized, tensors_of
from evenslice.model.pickles import check_no_pickle
from evenslice.model.spec import ExternalSpec, Model, Spec
from evenslice.model.stem.find import Stem, check_kind
from evenslice.model.stem.probe import Call, call_of
from evenslice.volume.windows import check_slices

ALIKE = 1e-5


def guess_library_call(model: Model) -> str | None:
    """Return the library call that makes a network like this one, or None if nothing in it tells."""
    spec = model.spec
    if isinstance(spec, Spec):
        depth = "" if spec.encoder_depth is None else f", encoder_depth={spec.encoder_depth}"
        name = (
            spec.encoder.removeprefix("smp:")
            if spec.encoder.startswith("smp:")
            else f"tu-{spec.encoder}"
        )
        return f"segmentation_models_pytorch.create_model({spec.arch!r}, {name!r}{depth}, classes={spec.classes})"
    for module in model.network.modules():
        found = _recorded(module)
        if found is not None:
            return found
    return None


def _recorded(module: nn.Module) -> str | None:
    library, kind = type(module).__module__.partition(".")[0], type(module).__name__
    cfg = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if isinstance(cfg, dict) and cfg.get("architecture"):
        tag = f".{cfg['tag']}" if cfg.get("tag") else ""
        return f"timm.create_model('{cfg['architecture']}{tag}')"
    if library == "segmentation_models_pytorch":
        name = getattr(module, "name", None)
        return f"segmentation_models_pytorch.{kind}()" + (
            f" named {name!r}" if isinstance(name, str) else ""
        )
    if library == "transformers":
        path = getattr(getattr(module, "config", None), "_name_or_path", "")
        return (
            f"transformers.{kind}.from_pretrained({path!r})"
            if path
            else f"transformers.{kind}(config)"
        )
    if library in ("torchvision", "monai"):
        return f"{type(module).__module__}.{kind}"
    return None


def slot_pattern(stem: Stem) -> str:
    """Say what the weights of the slots of a stem look like.

    Returns
    -------
    str
        ``uniform``: all equal; ``cyclic``: slot s equals slot s - 3, which timm and segmentation-models-pytorch make of RGB
        weights for more than three channels; ``mirror``: slot s equals slot S - 1 - s; ``none`` otherwise; ``one`` for S = 1.
    """
    if stem.slots == 1:
        return "one"
    weight = stem.layer.weight.detach()
    parts = [weight[:, stem.channels_of(slot)] for slot in range(stem.slots)]
    if len({part.shape for part in parts}) > 1:
        return "none"
    slots = torch.stack(parts)
    if _alike(slots[1:], slots[:-1]):
        return "uniform"
    if stem.slots > 3 and _alike(slots[3:], slots[:-3]):
        return "cyclic"
    return "mirror" if _alike(slots, slots.flip(0)) else "none"


def _alike(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) <= ALIKE * float(one.abs().max())


Form = Literal["evenslice", "callable", "torch-export", "onnx"]
_ENDINGS: dict[str, Form] = {".safetensors": "evenslice", ".pt2": "torch-export", ".onnx": "onnx"}
_CALLABLE = re.compile(
    r"^(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.]*)(?:@(?P<file>.+))?\Z"
)
_SLICES = (3, 5, 7, 9, 1)
_STRIDES = (1, 2, 4, 8, 16, 32, 64)
_BASE = (128, 192)
_SAME = 1e-3


def form_of(source: str | Path) -> Form | None:
    """Say which form a MODEL has by its name, or None if it is none of them; nothing is opened.

    Raises
    ------
    BadInputError
        For files that can only be read by running code that they hold.
    """
    text = str(source)
    ending = Path(text).suffix.lower()
    if ending in _ENDINGS and not _CALLABLE.match(text):
        return _ENDINGS[ending]
    if _CALLABLE.match(text) and not _is_file(text) and not _is_file(text.partition(":")[0]):
        return "callable"
    check_no_pickle(text)
    return None


def _is_file(name: str) -> bool:
    try:
        return Path(name).exists() and (":" in name or Path(name).is_file())
    except OSError:  # a name that no file can have
        return False


def load_callable(source: str, slices: int | None = None) -> tuple[Model, Path | None]:
    """Make the network that ``package.module:callable`` returns. This runs that code.

    Parameters
    ----------
    source
        ``package.module:callable``, with ``@FILE`` if weights are to be loaded into it; the current folder is searched too.
    slices
        S if known; else the first of 3, 5, 7, 9, 1 that the network takes.

    Returns
    -------
    tuple
        The model, without a normalisation, and the file of weights named behind ``@``, or None; it is not read here.

    Raises
    ------
    BadInputError
        If it cannot be imported, fails, or returns something else than a network that segments.
    """
    found = _CALLABLE.match(source)
    if found is None:
        raise BadInputError(
            f"{source!r} was given as a model, expected package.module:callable; write it so"
        )
    name, file = f"{found['module']}:{found['name']}", found["file"]
    if file:
        check_no_pickle(file)
    with redirect_stdout(sys.stderr):  # what their code prints would spoil JSON on standard output
        network = _network(_imported(found["module"], found["name"]), name)
        return wrap_external(network.float().cpu().eval(), "callable", name, slices), Path(
            file
        ) if file else None


def _network(make: Any, source: str) -> nn.Module:
    """Call a function of the user's; check that it returns a network that can be worked with."""
    try:
        network = make()
    except (Exception, SystemExit) as error:  # code of the user's may raise anything, and exit
        raise BadInputError(
            f"{source} failed ({type(error).__name__}: {error}), expected a function without arguments that returns a "
            "torch.nn.Module; mend it, or wrap it in one"
        ) from error
    if not isinstance(network, nn.Module):
        raise BadInputError(
            f"{source} returned a {type(network).__name__}, expected a torch.nn.Module; return the network itself"
        )
    check_kind(network)
    empty = next((name for name, p in network.named_parameters() if p.is_meta), None)
    if empty is not None:
        raise BadInputError(
            f"the parameter {empty!r} of {source} lies on the meta device, expected a network with weights; make it on the CPU"
        )
    try:
        copy.deepcopy(network)
    except Exception as error:  # whatever an attribute of theirs raises
        raise BadInputError(
            f"the network of {source} cannot be copied ({_first_line(error)}), expected a plain torch.nn.Module; keep open files and "
            "generators out of it, and use torch.nn.utils.remove_weight_norm or remove_spectral_norm where it has these"
        ) from error
    return network


def _imported(module: str, name: str) -> Any:
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        thing: Any = importlib.import_module(module)
        for part in name.split("."):
            thing = getattr(thing, part)
    except (
        Exception,
        SystemExit,
    ) as error:  # importing runs code of the user's, which may raise anything
        raise BadInputError(
            f"{module}:{name} cannot be imported ({type(error).__name__}: {error}), expected a function in a module that "
            f"python finds from {here}; check the name, or install the package"
        ) from error
    finally:
        if added:  # what is imported from now on is not to be taken from this folder, whatever its files are called
            sys.path.remove(here)
            sys.path.append(here)
    if isinstance(thing, nn.Module) or not callable(thing):
        raise BadInputError(
            f"{module}:{name} is a {type(thing).__name__}, expected a function that returns a torch.nn.Module; name one"
        )
    return thing


def wrap_external(
    network: nn.Module,
    form: Literal["callable", "torch-export", "onnx"],
    source: str,
    slices: int | None = None,
    shape: Sequence[int | None] = (None, None, None, None),
) -> Model:
    """Find out by running a network how it is called and what it answers.

    Parameters
    ----------
    network
        In eval mode.
    form, source
        Where it came from.
    slices
        S if known.
    shape
        What an exported file says of its input (B, S, y, x), None where any number will do.

    Raises
    ------
    BadInputError
        If it does not run, or answers nothing that could be compared: no floating-point numbers, or NaN.

    Notes
    -----
    A network whose output cannot be laid over its input (a classifier, an encoder) has no classes: its stem can be seen and
    made even, but nothing be segmented or audited with it.
    """
    check_image(tuple(shape), source)
    if form == "torch-export":
        network.float()  # weights in half precision; written back in their own type
    count = slices or shape[1]
    call = _call(network, None if count is None else check_slices(count), source)
    seen = call.shape[1]
    batch = shape[0] or _only_batch(network, call)
    if form == "torch-export" and not _runs_in_double(network, call):
        network.precisions = ("float32",)  # type: ignore[assignment]
    noise = _noise(call.shape, 0)
    answer = call.run(network, noise)
    _check_numbers(answer, call.shape[0], source)
    spoilt = not torch.equal(noise, _noise(call.shape, 0))
    try:
        out = resized(picture_in(answer), call.shape[-2:])
    except BadInputError:
        spec = ExternalSpec(form, source, seen, 0, seen, "no prediction")
        return Model(
            Tensors(network, batch).eval(), spec, stride=1, size=(call.shape[-2], call.shape[-1])
        )
    probabilities = _gives_probabilities(network, call)
    whole = shape[2] is None and shape[3] is None
    stride = next((s for s in _STRIDES if whole and _takes(network, seen, s)), None)
    size = None if stride else (call.shape[-2], call.shape[-1])
    module = network
    graph = form == "torch-export"  # torch refuses to switch the mode of a bare graph
    if graph or probabilities or spoilt or batch is not None or not _is_plain(network, call):
        module = LogitsAdapter(network, probabilities, batch, spoilt).eval()
    spec = ExternalSpec(
        form, source, seen, out.shape[1], seen, "probabilities" if probabilities else "logits"
    )
    return Model(module, spec, stride=stride or 1, size=size)


def _call(network: nn.Module, slices: int | None, source: str) -> Call:
    reasons = []
    for count in _SLICES if slices is None else (slices,):
        try:
            return call_of(network, count)
        except BadInputError as error:
            reasons.append(str(error))
    if slices is None:
        raise BadInputError(
            f"{source}: {reasons[0]}; tried {', '.join(map(str, _SLICES))} slices; give --slices"
        )
    takes = next((count for count in _SLICES if count != slices and _runs(network, count)), None)
    if takes is None:
        raise BadInputError(f"{source}: {reasons[0]}")
    raise BadInputError(
        f"{source} does not run on {slices} slices, expected {takes} as it takes; leave --slices out (fix --init makes a stem "
        f"for another number)"
    )


def _runs(network: nn.Module, slices: int) -> bool:
    try:
        call_of(network, slices)
    except BadInputError:
        return False
    return True


def _only_batch(network: nn.Module, call: Call) -> int | None:
    """Return the one batch size that a network takes of 1 and 2, or None if it takes both."""
    _, slots, height, width = call.shape
    fine = []
    for batch in (1, 2):
        try:
            Call({0: torch.zeros(batch, slots, height, width)}, 0).run(network, torch.zeros(slots))
        except Exception:  # networks refuse batches in ways of their own
            continue
        fine.append(batch)
    return fine[0] if len(fine) == 1 else None


def _check_numbers(answer: Any, batch: int, source: str) -> None:
    tensors = tensors_of(answer, batch)
    if not tensors:
        raise BadInputError(
            f"{source} returns no floating-point numbers for each image, expected logits or probabilities (B, classes, y, x); "
            "return these, not labels"
        )
    if any(bool(t.isnan().any()) for t in tensors):
        raise BadInputError(
            f"{source} answers NaN for noise of mean 0 and std 1, expected numbers; check its weights, and what it does to negative "
            "input"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _runs_in_double(network: nn.Module, call: Call) -> bool:
    """Whether a copy of a network runs in float64; a graph may hold its type fixed."""
    try:
        call.run(copy.deepcopy(network).double(), _noise(call.shape, 0))
    except Exception:  # graphs refuse in ways of their own
        return False
    return True


def _noise(shape: Sequence[int], seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def _gives_probabilities(network: nn.Module, call: Call) -> bool:
    """Whether all answers to noise, weak and strong, lie in 0..1, and sum to 1 if there are several classes."""
    for seed, scale in enumerate((0.1, 1.0, 10.0)):
        out = picture_in(call.run(network, _noise(call.shape, seed, scale)))
        if bool(((out < 0) | (out > 1)).any()) or float(out.max() - out.min()) == 0:
            return False
        if out.shape[1] > 1 and float((out.sum(1) - 1).abs().max()) > _SAME:
            return False
    return True


def _takes(network: nn.Module, slices: int, stride: int) -> bool:
    """Whether a network takes sizes that are multiples of ``stride`` and of nothing larger, and answers on the same grid."""
    height, width = (side + stride for side in _BASE)
    call = Call({0: torch.zeros(1, slices, height, width)}, 0)
    try:
        resized(picture_in(call.run(network, _noise(call.shape, 0))), (height, width))
    except Exception:  # networks refuse sizes in ways of their own
        return False
    return True


def _is_plain(network: nn.Module, call: Call) -> bool:
    """Whether a network answers with one tensor (B, C, y, x) of the input's size already."""
    out = call.run(network, _noise(call.shape, 0))
    return isinstance(out, Tensor) and out.ndim == 4 and out.shape[-2:] == call.shape[-2:]
