"""Where a network and its slots came from, as far as the libraries' own records and the weights themselves tell."""

import torch
from torch import Tensor, nn

from evenslice.model.discovery import Stem
from evenslice.model.spec import Model, Spec

ALIKE = 1e-5


def library_call(model: Model) -> str | None:
    """Return the library call that makes a network like this one, or None if nothing in it tells."""
    spec = model.spec
    if isinstance(spec, Spec):
        depth = "" if spec.encoder_depth is None else f", encoder_depth={spec.encoder_depth}"
        name = spec.encoder.removeprefix("smp:") if spec.encoder.startswith("smp:") else f"tu-{spec.encoder}"
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
        return f"segmentation_models_pytorch.{kind}()" + (f" named {name!r}" if isinstance(name, str) else "")
    if library == "transformers":
        path = getattr(getattr(module, "config", None), "_name_or_path", "")
        return f"transformers.{kind}.from_pretrained({path!r})" if path else f"transformers.{kind}(config)"
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
