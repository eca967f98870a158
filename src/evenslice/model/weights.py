"""Pretrained encoder weights: read from a file, matched to an encoder strictly."""

import argparse
import inspect
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from evenslice.errors import BadInputError

RESNETS = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
FAMILIES = {
    r"relative_position_bias_table|cpb_mlp": "a Swin transformer or another with windows",
    r"(^|\.)(encoder|vit|dinov2)\.(encoder\.)?layers?\.(encoder_layer_)?0\.": "a transformer in the names of torchvision or transformers",
    r"(^|\.)block1\.0\.attn\.": "a mix transformer (mit_*)",
    r"denseblock1\.": "a DenseNet",
    r"conv_stem\.weight": "an EfficientNet or MobileNet of timm",
    r"_conv_stem\.weight": "an EfficientNet of segmentation-models-pytorch",
    r"(^|\.)features\.0\.0\.weight": "a network in the names of torchvision",
    r"conv_dw\.weight|dwconv\.weight": "a ConvNeXt or a relative",
}


def guess_architecture(state: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    """Return what weights seem to be for, ``""`` if nothing tells.

    Parameters
    ----------
    state
        Tensors by name, under any prefix.
    facts
        What the file says about itself.
    """
    said = facts.get("timm") or facts.get("architecture")
    return said or _resnet(state) or _vit(state) or _family(state)


def _resnet(state: Mapping[str, Tensor]) -> str:
    found = [re.search(r"(?:^|\.)layer([1-4])\.(\d+)\.conv1\.weight$", name) for name in state]
    blocks = [0, 0, 0, 0]
    for match in filter(None, found):
        stage = int(match[1]) - 1
        blocks[stage] = max(blocks[stage], int(match[2]) + 1)
    deep = any(re.search(r"(^|\.)layer1\.0\.conv3\.weight$", name) for name in state)
    counts = tuple(n for n in blocks if n)
    names = [
        name
        for (stages, deeper), name in RESNETS.items()
        if stages[: len(counts)] == counts and deeper == deep
    ]
    return " or ".join(names) if counts else ""


def _vit(state: Mapping[str, Tensor]) -> str:
    blocks = {
        int(m[1])
        for name in state
        if (m := re.search(r"(?:^|\.)blocks\.(\d+)\.attn\.qkv\.weight$", name))
    }
    patch = next(
        (
            t
            for name, t in state.items()
            if name.endswith("patch_embed.proj.weight") and t.ndim == 4
        ),
        None,
    )
    if not blocks or patch is None or any("relative_position_bias_table" in name for name in state):
        return ""
    return f"a vision transformer of {max(blocks) + 1} blocks, width {patch.shape[0]}, patch {patch.shape[-1]}"


def _family(state: Mapping[str, Tensor]) -> str:
    return next(
        (
            words
            for shape, words in FAMILIES.items()
            if any(re.search(shape, name) for name in state)
        ),
        "",
    )


BUNDLED = Path(__file__).parent / "bundled" / "resnet18_conv1-layer2.safetensors"
BUNDLED_DEPTH = 3
WRAPPERS = ("state_dict", "model", "state_dict_ema", "teacher")
HALF = (torch.float16, torch.bfloat16)
COPIES = ("student", "encoder_k", "momentum")  # the lesser of two encoders in one file


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors file, or from one of ``torch.save``; no code in it is run.

    Returns
    -------
    dict
        Tensors by name, half precision widened to float32. What wraps a state dict in a training checkpoint
        (``state_dict``, ``model``, ``teacher``) is opened; the prefixes of ``DataParallel`` (``module.``) and
        ``torch.compile`` (``_orig_mod.``) are removed.

    Raises
    ------
    BadInputError
        If the file is missing, damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise BadInputError(
            f"the weights {path} do not exist, expected a file, 'imagenet', 'bundled' or 'none'; "
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
    """Map names of tensors to those without the prefixes of ``DataParallel`` and ``torch.compile``."""
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


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a state dict and what its file says about itself; see ``load_state_dict``."""
    return load_state_dict(path), weights_metadata(path)


def _unreadable(path: Path, error: Exception) -> BadInputError:
    objects = re.search(r"GLOBAL ([\w.]+)", str(error))
    reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
    if objects:
        return BadInputError(
            f"the weights {path} cannot be read (they hold {objects[1]}, which is not run), "
            "expected tensors only; save model.state_dict() in their place"
        )
    return BadInputError(
        f"the weights {path} cannot be read ({reason}), expected safetensors or a torch state dict; "
        "copy them again"
    )


def load_encoder(
    encoder: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    whole: Callable[[], nn.Module] | None = None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Load weights into an encoder in place: every tensor of the encoder must be found, with its shape.

    Prefixes (``encoder.``, ``module.encoder_q.``, ``teacher.backbone.``, ...) are found out, and timm's feature networks, which
    wrap or flatten the names of the full network (``model.``, ``stages_0.``), are looked through. What does not fit then is given
    to timm's own conversion, which resamples position embeddings and tables of another image size and knows the names that the
    authors of a network used. What the encoder does not have, such as a classifier, is left out.

    Parameters
    ----------
    encoder
        timm's network, or an encoder of segmentation-models-pytorch.
    state
        Tensors by name.
    source
        What to call the weights.
    whole
        Makes the network of timm that the encoder is a part of; None for an encoder that is not timm's.
    facts
        What the file says about itself.

    Raises
    ------
    BadInputError
        If a tensor is missing or has another shape; the encoder is then unchanged.
    """
    wanted, spare = encoder.state_dict(), _classifiers(encoder)
    state = _under_prefix(state, wanted)
    loaded, problem = _matched(wanted, state, spare)
    if problem:
        converted = _converted(state, encoder, whole)
        again, remaining = (
            _matched(wanted, _under_prefix(converted, wanted), spare)
            if converted
            else (loaded, problem)
        )
        if converted and not remaining:
            loaded, problem, state = again, "", dict(converted)
    problem = problem or _too_much(state, wanted, whole)
    if problem:
        like = guess_architecture(state, facts or {})
        seem = f"they seem to be for {like}; " if like else ""
        raise BadInputError(f"the weights {source} {problem}; {seem}{_advice(problem)}")
    encoder.load_state_dict(loaded)


def _advice(problem: str) -> str:
    if problem.startswith("have a stem"):
        return "use weights that were trained on colour photographs"
    return "name the encoder they were made for" + (
        ", or fewer stages with --encoder-depth" if problem.startswith("lack") else ""
    )


def _plain(name: str) -> str:
    return name.removeprefix("model.").replace("_", ".")


def _under_prefix(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the prefix that fits most names of the encoder, without it."""
    names = {_plain(name) for name in wanted}
    fits = Counter(
        prefix for key in state for prefix in _prefixes(key) if _plain(key[len(prefix) :]) in names
    )
    if not fits:
        return dict(state)
    best = max(
        fits,
        key=lambda prefix: (fits[prefix], not any(word in prefix for word in COPIES), -len(prefix)),
    )
    return {key[len(best) :]: tensor for key, tensor in state.items() if key.startswith(best)}


def _prefixes(key: str) -> Iterator[str]:
    yield ""
    yield from (key[: place + 1] for place, letter in enumerate(key) if letter == ".")


def _classifiers(encoder: nn.Module) -> tuple[str, ...]:
    """Return the layers of an encoder that only classify, which a vision transformer brings along and nobody asks."""
    cfg = getattr(encoder, "pretrained_cfg", None) or {}
    named = cfg.get("classifier") or ()
    return tuple(f"{name}." for name in ((named,) if isinstance(named, str) else named))


def _matched(
    wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], spare: tuple[str, ...]
) -> tuple[dict[str, Tensor], str]:
    """Return the tensors found for an encoder, and what is wrong with them in words, ``""`` if nothing is.

    Those under a name of ``spare``, and counters, stay as they are where none is found that fits.
    """
    plain = {_plain(key): key for key in state}
    loaded, missing, misfit = {}, [], ""
    for name, tensor in wanted.items():
        key = name if name in state else plain.get(_plain(name))
        found = None if key is None else state[key]
        if found is not None and found.shape == tensor.shape:
            loaded[name] = found
        elif name.startswith(spare) or name.endswith("num_batches_tracked"):
            loaded[name] = tensor
        elif found is None:
            missing.append(name)
        else:
            misfit = misfit or _misfit(name, found, tensor)
    if missing:
        parts = sorted({".".join(name.removeprefix("model.").split(".")[:2]) for name in missing})
        return loaded, (
            f"lack {len(missing)} of the {len(wanted)} tensors of the encoder ({', '.join(parts[:4])}"
            f"{', ...' if len(parts) > 4 else ''}), expected all"
        )
    return loaded, misfit


def _misfit(name: str, found: Tensor, wanted: Tensor) -> str:
    if (
        found.ndim == wanted.ndim == 4
        and wanted.shape[1] == 3
        and found.shape[2:] == wanted.shape[2:]
        and len(found) == len(wanted)
    ):
        return f"have a stem of {found.shape[1]} channels ({name}), expected the three of RGB"
    return f"hold {name} of shape {tuple(found.shape)}, expected {tuple(wanted.shape)}"


def _too_much(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], whole: Callable[[], nn.Module] | None
) -> str:
    """Say in words that weights are of a deeper network: ResNet-34's hold all that a ResNet-18 wants."""
    extra = _further(state, wanted)
    if extra and whole is not None:  # stages that this encoder leaves out are no fault
        with torch.random.fork_rng(devices=[]):
            extra = _further(state, whole().state_dict())
    return (
        f"hold more than the encoder has ({', '.join(extra[:3])}{', ...' if len(extra) > 3 else ''}), expected the same"
        if extra
        else ""
    )


def _further(state: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> list[str]:
    """Return the parts of weights that go on counting where a known network stops, such as ``layer1.2`` after ``layer1.1``."""
    modules = {
        _plain(name[:place]) for name in known for place, letter in enumerate(name) if letter == "."
    }
    found = set()
    for key in state:
        above = ""
        for prefix in _prefixes(key):
            here = prefix.rstrip(".")
            if here and _plain(here) not in modules:
                if here.rpartition(".")[2].isdecimal() and _plain(above) in modules:
                    found.add(here)
                break
            above = here
    return sorted(found)


def _converted(
    state: Mapping[str, Tensor], encoder: nn.Module, whole: Callable[[], nn.Module] | None
) -> Mapping[str, Tensor] | None:
    """Return the weights as timm's own loading would make them for a network, or None if it has no way or fails."""
    model, convert = encoder, _conversion(encoder)
    if convert is None and whole is not None:
        with torch.random.fork_rng(devices=[]):
            model = whole()
        convert = _conversion(model)
    if convert is None:
        return None
    more = (
        {"adapt_layer_scale": True}
        if "adapt_layer_scale" in inspect.signature(convert).parameters
        else {}
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = convert(dict(state), model, **more)
    except (
        Exception
    ):  # it is written for weights that it knows; the reason is then given by what does not fit
        return None
    return found if isinstance(found, Mapping) else None


def _conversion(model: nn.Module) -> Callable[..., Any] | None:
    found = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    return found if callable(found) else None
