"""External models: networks that a function of the user's makes, and how any network is called."""

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
from evenslice.model.logits import (
    AllOutputs,
    LogitsAdapter,
    find_prediction,
    resize_prediction,
    window_tensors,
)
from evenslice.model.spec import ExternalSpec, Form, Model, Spec
from evenslice.model.stem.find import check_kind
from evenslice.model.stem.probe import Call, call_of
from evenslice.volume.windows import check_slices

ModelForm = Literal["evenslice"] | Form
ENDINGS: dict[str, ModelForm] = {
    ".safetensors": "evenslice",
    ".pt2": "torch-export",
    ".onnx": "onnx",
}
STATE_DICTS = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
CALLABLE = re.compile(r"^(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.]*)(?:@(?P<file>.+))?\Z")
SLICES = (3, 5, 7, 9, 1)  # numbers that are tried, in this order
STRIDES = (1, 2, 4, 8, 16, 32, 64)
BASE = (128, 192)
SAME = 1e-3  # how far probabilities may be from a sum of 1


def guess_library_call(model: Model) -> str | None:
    """Return the library call that makes a network like this one, or None if nothing says it."""
    spec = model.spec
    if isinstance(spec, Spec):
        depth = "" if spec.encoder_depth is None else f", encoder_depth={spec.encoder_depth}"
        own = spec.encoder.startswith("smp:")
        name = spec.encoder.removeprefix("smp:") if own else f"tu-{spec.encoder}"
        return (
            f"segmentation_models_pytorch.create_model({spec.arch!r}, {name!r}{depth}, "
            f"classes={spec.classes})"
        )
    calls = (_library_call(module) for module in model.network.modules())
    return next((call for call in calls if call is not None), None)


def _library_call(module: nn.Module) -> str | None:
    library, kind = type(module).__module__.partition(".")[0], type(module).__name__
    cfg = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if isinstance(cfg, dict) and cfg.get("architecture"):
        tag = f".{cfg['tag']}" if cfg.get("tag") else ""
        return f"timm.create_model('{cfg['architecture']}{tag}')"
    if library == "segmentation_models_pytorch":
        name = getattr(module, "name", None)
        return f"{library}.{kind}()" + (f" named {name!r}" if isinstance(name, str) else "")
    if library == "transformers":
        path = getattr(getattr(module, "config", None), "_name_or_path", "")
        return f"{library}.{kind}" + (f".from_pretrained({path!r})" if path else "(config)")
    return f"{type(module).__module__}.{kind}" if library in ("torchvision", "monai") else None


def form_of(source: str | Path) -> ModelForm | None:
    """Say which form a MODEL has by its name, or None if it is none of them; nothing is opened.

    Raises
    ------
    BadInputError
        For files of weights without a network.
    """
    text = str(source)
    named, ending = CALLABLE.match(text), Path(text).suffix.lower()
    if ending in ENDINGS and not named:
        return ENDINGS[ending]
    if named and not Path(text).exists() and not Path(text.partition(":")[0]).is_file():
        return "callable"
    if ending in STATE_DICTS:
        raise BadInputError(
            f"{text} holds weights without a network, expected .safetensors of evenslice, .pt2, "
            f".onnx or package.module:callable; give package.module:callable@{text}"
        )
    return None


def load_callable(source: str, slices: int | None = None) -> tuple[Model, Path | None]:
    """Make the network that ``package.module:callable`` returns. This runs that code.

    Parameters
    ----------
    source
        ``package.module:callable``, with ``@FILE`` if weights are to be loaded into it; the current
        folder is searched too.
    slices
        S if known; else the first of 3, 5, 7, 9, 1 that the network takes.

    Returns
    -------
    tuple
        The model, without a normalisation, and the file of weights named behind ``@``, or None; it
        is not read here.

    Raises
    ------
    BadInputError
        If it cannot be imported, fails, or returns something else than a network.
    """
    found = CALLABLE.match(source)
    if found is None:
        raise BadInputError(
            f"{source!r} was given as a model, expected package.module:callable; write it so"
        )
    name, file = f"{found['module']}:{found['name']}", found["file"]
    with redirect_stdout(sys.stderr):  # what their code prints would spoil JSON on standard output
        network = _call(_import(found["module"], found["name"]), name)
        model = wrap_external(network.float().cpu().eval(), "callable", name, slices)
    return model, Path(file) if file else None


def _import(module: str, name: str) -> Any:
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        thing: Any = importlib.import_module(module)
        for part in name.split("."):
            thing = getattr(thing, part)
    except (Exception, SystemExit) as error:  # importing runs code, which may raise anything
        raise BadInputError(
            f"{module}:{name} cannot be imported ({type(error).__name__}: {error}), expected a "
            f"function in a module that python finds from {here}; check the name, or install the "
            "package"
        ) from error
    finally:
        if added:  # what is imported later must not come from this folder
            sys.path.remove(here)
            sys.path.append(here)
    if isinstance(thing, nn.Module) or not callable(thing):
        raise BadInputError(
            f"{module}:{name} is a {type(thing).__name__}, expected a function that returns a "
            "torch.nn.Module; name one"
        )
    return thing


def _call(make: Any, source: str) -> nn.Module:
    """Call a function of the user's; check that it returns a network that can be worked with."""
    try:
        network = make()
    except (Exception, SystemExit) as error:  # code of the user's may raise anything, and exit
        raise BadInputError(
            f"{source} failed ({type(error).__name__}: {error}), expected a function without "
            "arguments that returns a torch.nn.Module; fix it, or wrap it in one"
        ) from error
    if not isinstance(network, nn.Module):
        raise BadInputError(
            f"{source} returned a {type(network).__name__}, expected a torch.nn.Module; "
            "return the network itself"
        )
    check_kind(network)
    try:
        copy.deepcopy(network)
    except Exception as error:  # whatever an attribute of theirs raises
        raise BadInputError(
            f"the network of {source} cannot be copied ({str(error)[:200]}), expected a plain "
            "torch.nn.Module; keep open files and generators out of it, and use "
            "torch.nn.utils.remove_weight_norm or remove_spectral_norm where it has these"
        ) from error
    return network


def wrap_external(
    network: nn.Module,
    form: Form,
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
        If it does not run, or answers no numbers for each image.

    Notes
    -----
    A network whose output cannot be laid over its input (a classifier, an encoder) has no classes:
    its stem can be inspected and fixed, but it can neither segment nor be audited.
    """
    if form == "torch-export":
        network.float()  # weights in half precision; written back in their own type
    count = slices or shape[1]
    call = _find_call(network, None if count is None else check_slices(count), source)
    batch = shape[0] or _only_batch(network, call)
    if form == "torch-export" and not _runs(copy.deepcopy(network).double(), call):
        network.precisions = ("float32",)  # type: ignore[assignment]
    noise = _noise(call)
    answer = call.run(network, noise)
    changes_input = not torch.equal(noise, _noise(call))
    tensors = window_tensors(answer, call.shape[0])
    if not tensors or any(bool(t.isnan().any()) for t in tensors):
        raise BadInputError(
            f"{source} answers {'NaN' if tensors else 'no floating-point numbers for each image'} "
            "for noise of mean 0 and std 1, expected logits or probabilities (B, classes, y, x); "
            "return these, and check its weights"
        )
    slots, (height, width) = call.shape[1], call.shape[2:]
    try:
        out = resize_prediction(find_prediction(answer), (height, width))
    except BadInputError:
        spec = ExternalSpec(form, source, slots, 0, slots, "no prediction")
        module: nn.Module = AllOutputs(network, batch).eval()
        return Model(module, spec, stride=1, size=(height, width))
    probabilities = _gives_probabilities(network, call)
    strides = STRIDES if shape[2] is None and shape[3] is None else ()
    stride = next((stride for stride in strides if _takes(network, slots, stride)), None)
    plain = isinstance(answer, Tensor) and answer.ndim == 4 and answer.shape == out.shape
    graph = form == "torch-export"  # torch refuses to switch the mode of a bare graph
    module = network
    if graph or probabilities or changes_input or batch is not None or not plain:
        module = LogitsAdapter(network, probabilities, batch, changes_input).eval()
    answers = "probabilities" if probabilities else "logits"
    spec = ExternalSpec(form, source, slots, out.shape[1], slots, answers)
    return Model(module, spec, stride=stride or 1, size=None if stride else (height, width))


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
    tried = f"; tried {', '.join(map(str, SLICES))} slices; give --slices"
    raise BadInputError(f"{source}: {reasons[0]}{'' if slices else tried}")


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


def _gives_probabilities(network: nn.Module, call: Call) -> bool:
    """Whether the answers to noise, weak and strong, lie in 0..1, and several classes sum to 1."""
    for seed, scale in enumerate((0.1, 1.0, 10.0)):
        out = find_prediction(call.run(network, _noise(call, seed, scale)))
        if bool(((out < 0) | (out > 1)).any()) or float(out.max() - out.min()) == 0:
            return False
        if out.shape[1] > 1 and float((out.sum(1) - 1).abs().max()) > SAME:
            return False
    return True


def _takes(network: nn.Module, slices: int, stride: int) -> bool:
    """Whether a network takes multiples of ``stride``, not of more, and answers on their grid."""
    height, width = (side + stride for side in BASE)
    call = Call({0: torch.zeros(1, slices, height, width)}, 0)
    try:
        resize_prediction(find_prediction(call.run(network, _noise(call))), (height, width))
    except Exception:  # networks refuse sizes in ways of their own
        return False
    return True
