"""Weights: read from a file without running code, and matched strictly to an encoder."""

import argparse
import inspect
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, pairwise
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from evenslice.errors import BadInputError

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema", "teacher")
COPIES = ("student", "encoder_k", "momentum")  # the lesser of two encoders in one file
HALF = (torch.float16, torch.bfloat16)


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a file of safetensors or ``torch.save``; no code in it is run.

    Half precision is widened to float32. What wraps a state dict in a training checkpoint
    (``state_dict``, ``model``, ``teacher``) is opened; the prefixes of ``DataParallel``
    (``module.``) and ``torch.compile`` (``_orig_mod.``) are removed.

    ``BadInputError`` if the file is missing, damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise BadInputError(
            f"the weights {path} do not exist, expected a file, 'imagenet' or 'none'; "
            "check the path"
        )
    try:
        if path.suffix == ".safetensors":
            found: object = load_file(path)
        else:
            # DINO, MAE and MoCo keep their settings, a namespace, beside the tensors
            with torch.serialization.safe_globals([argparse.Namespace]):
                found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, torch and pickle each raise kinds of their own
        raise _unreadable(path, error) from error
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise BadInputError(
            f"the weights {path} hold more than tensors, expected a state dict; "
            "save model.state_dict()"
        )
    names = without_wrapper_prefixes(found)
    return {
        names[name]: tensor.float() if tensor.dtype in HALF else tensor
        for name, tensor in found.items()
    }


def without_wrapper_prefixes(names: Iterable[str]) -> dict[str, str]:
    """Map names to those without the prefixes of ``DataParallel`` and ``torch.compile``."""
    plain = {name: name.replace("_orig_mod.", "") for name in names}
    if all(name.startswith("module.") for name in plain.values()):
        plain = {name: short.removeprefix("module.") for name, short in plain.items()}
    return plain


def weights_metadata(path: Path) -> dict[str, str]:
    """Return what a safetensors file says about itself; nothing for other files."""
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def _unreadable(path: Path, error: Exception) -> BadInputError:
    objects = re.search(r"GLOBAL ([\w.]+)", str(error))
    reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
    if "TorchScript" in str(error):
        return BadInputError(
            f"the weights {path} are a TorchScript program, which is not run, expected a state "
            "dict; if you trust it, torch.save(torch.jit.load(FILE).state_dict(), OUT)"
        )
    if objects:
        return BadInputError(
            f"the weights {path} cannot be read (they hold {objects[1]}, which is not run), "
            "expected tensors only; save model.state_dict() in their place"
        )
    return BadInputError(
        f"the weights {path} cannot be read ({reason}), expected safetensors or a torch state "
        "dict; copy them again"
    )


def load_encoder(
    encoder: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    whole: Callable[[], nn.Module] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Load weights into an encoder in place: each of its tensors must be found, with its shape.

    Prefixes (``encoder.``, ``module.encoder_q.``, ``teacher.backbone.``) are found out, and the
    names of timm's feature networks, which wrap or flatten those of the full network (``model.``,
    ``stages_0.``), are matched. What does not fit then is given to timm's own conversion, which
    resamples position embeddings and knows the names that the authors of a network used. What the
    encoder does not have, such as a classifier, is left out.

    ``source`` is the weights' name in messages, ``metadata`` what their file says of itself;
    ``whole`` makes the timm network that the encoder is a part of, None if it is not timm's.

    ``BadInputError`` if a tensor is missing or has another shape; the encoder is then
    unchanged.
    """
    wanted, heads = encoder.state_dict(), _classifiers(encoder)
    state = under_prefix(state, wanted)
    loaded, problem = _match(wanted, state, heads)
    if problem and (converted := _converted(state, encoder, whole)):
        converted_match, remaining = _match(wanted, under_prefix(converted, wanted), heads)
        if not remaining:
            loaded, problem, state = converted_match, "", converted
    problem = problem or _surplus(state, wanted, whole)
    if problem:
        stated = (metadata or {}).get("timm", "")
        seem = f"their file names {stated}; " if stated else ""
        advice = "name the encoder they were made for"
        if problem.startswith("lack"):
            advice += ", or fewer stages with --encoder-depth"
        raise BadInputError(f"the weights {source} {problem}; {seem}{advice}")
    encoder.load_state_dict(loaded)


def pretrained_channels(encoder: nn.Module, state: Mapping[str, Tensor]) -> int:
    """Return the number of channels that the stem in a file of weights takes.

    ``encoder`` takes three, as it does where the weights do not say.
    """
    wanted = encoder.state_dict()
    state = {_plain(key): tensor for key, tensor in under_prefix(state, wanted).items()}
    for name, tensor in wanted.items():
        found = state.get(_plain(name), tensor)
        alike = tensor.ndim == found.ndim == 4 and found[:, :1].shape == tensor[:, :1].shape
        if alike and tensor.shape[1] == 3:
            return int(found.shape[1])
    return 3


def _plain(name: str) -> str:
    return name.removeprefix("model.").replace("_", ".")


def _prefixes(key: str) -> Iterator[str]:
    yield ""
    yield from (key[: place + 1] for place, letter in enumerate(key) if letter == ".")


def under_prefix(state: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """Return the tensors under the prefix that fits most of the names wanted, without it."""
    known = set(wanted)
    plain = {_plain(name) for name in known}
    ends = [(prefix, key[len(prefix) :]) for key in state for prefix in _prefixes(key)]
    fits = Counter(prefix for prefix, end in ends if _plain(end) in plain)
    exact = Counter(prefix for prefix, end in ends if end in known)
    if not fits:
        return dict(state)

    def rank(prefix: str) -> tuple[int, int, bool, int]:
        copy = any(word in prefix for word in COPIES)
        return fits[prefix], exact[prefix], not copy, -len(prefix)

    best = max(fits, key=rank)
    return {key[len(best) :]: tensor for key, tensor in state.items() if key.startswith(best)}


def _classifiers(encoder: nn.Module) -> tuple[str, ...]:
    """Return the layers that only classify, which a vision transformer brings along."""
    cfg = getattr(encoder, "pretrained_cfg", None) or {}
    named = cfg.get("classifier") or ()
    return tuple(f"{name}." for name in ((named,) if isinstance(named, str) else named))


def _match(
    wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], heads: tuple[str, ...]
) -> tuple[dict[str, Tensor], str]:
    """Return the tensors found for an encoder, and what is wrong with them, ``""`` if nothing is.

    Those of ``heads``, and counters, stay as they are where none is found that fits.
    """
    plain = {_plain(key): key for key in state}
    loaded, missing, misfit = {}, [], ""
    for name, tensor in wanted.items():
        found = state.get(name if name in state else plain.get(_plain(name), ""))
        if found is not None and found.shape == tensor.shape:
            loaded[name] = found
        elif name.startswith(heads) or name.endswith("num_batches_tracked"):
            loaded[name] = tensor
        elif found is None:
            missing.append(name)
        else:
            shapes = f"{tuple(found.shape)}, expected {tuple(tensor.shape)}"
            misfit = misfit or f"hold {name} of shape {shapes}"
    if not missing:
        return loaded, misfit
    names = {_plain(name) for name in wanted}
    others = [key for key in state if _plain(key) not in names] or loaded
    return loaded, (
        f"lack {len(missing)} of the {len(wanted)} tensors of the encoder, found "
        f"{_three(others)}, expected {_three(missing)}"
    )


def _three(names: Iterable[str]) -> str:
    first = list(islice(names, 4))
    return ", ".join([*first[:3], *(["..."] if first[3:] else [])]) or "nothing"


def _surplus(
    state: Mapping[str, Tensor], wanted: Iterable[str], whole: Callable[[], nn.Module] | None
) -> str:
    """Say that weights are of a deeper network: ResNet-34's hold all that a ResNet-18 wants."""
    extra = _further_parts(state, wanted)
    if extra and whole is not None:  # stages that this encoder leaves out are no fault
        with torch.random.fork_rng(devices=[]):
            extra = _further_parts(state, whole().state_dict())
    return f"hold more than the encoder has ({_three(extra)}), expected the same" if extra else ""


def _further_parts(state: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the numbered parts beyond those known, such as ``layer1.2`` after ``layer1.1``."""
    modules = {_plain(prefix).rstrip(".") for name in known for prefix in _prefixes(name)}
    found = set()
    for key in state:
        parents = [prefix.rstrip(".") for prefix in _prefixes(key)]
        for above, here in pairwise(parents):
            if _plain(here) not in modules:
                if above and here.rpartition(".")[2].isdecimal():
                    found.add(here)
                break
    return sorted(found)


def _converted(
    state: Mapping[str, Tensor], encoder: nn.Module, whole: Callable[[], nn.Module] | None
) -> Mapping[str, Tensor] | None:
    """Return the weights as timm's own loading converts them, None if it cannot."""
    model, convert = encoder, _conversion(encoder)
    if convert is None and whole is not None:
        with torch.random.fork_rng(devices=[]):
            model = whole()
        convert = _conversion(model)
    if convert is None:
        return None
    scaled = "adapt_layer_scale" in inspect.signature(convert).parameters
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options = {"adapt_layer_scale": True} if scaled else {}
            found = convert(dict(state), model, **options)
    except Exception:  # written for weights that it knows; the misfit is then the reason to show
        return None
    return found if isinstance(found, Mapping) else None


def _conversion(model: nn.Module) -> Callable[..., object] | None:
    found = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    return found if callable(found) else None
