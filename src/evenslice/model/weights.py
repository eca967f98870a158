"""Pretrained encoder weights: read from a file, matched to an encoder strictly."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from evenslice.errors import BadInputError

BUNDLED = Path(__file__).parent / "bundled" / "resnet18_conv1-layer2.safetensors"
BUNDLED_DEPTH = 3
_FLATTENED = re.compile(r"^([A-Za-z]+)_(\d+)\.")


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a state dict from a safetensors or torch file, without running anything in it.

    Returns
    -------
    tuple
        Tensors by name in float32, and the facts the file states about itself (safetensors metadata).

    Raises
    ------
    BadInputError
        If the file is missing, damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise BadInputError(
            f"the weights {path} do not exist, expected a file, 'imagenet', 'bundled' or 'none'; check the path"
        )
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                state: Any = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                facts = dict(file.metadata() or {})
        else:
            state, facts = torch.load(path, map_location="cpu", weights_only=True), {}
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _unreadable(path, error) from error
    except Exception as error:  # torch raises pickle errors of its own kinds
        raise _unreadable(path, error) from error
    for wrapper in ("state_dict", "model", "state_dict_ema"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInputError(
            f"the weights {path} hold more than tensors, expected a state dict; save model.state_dict()"
        )
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}, facts


def _unreadable(path: Path, error: Exception) -> BadInputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return BadInputError(
        f"the weights {path} cannot be read ({reason}), expected safetensors or a torch state dict; copy them again"
    )


def load_encoder(encoder: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load weights into an encoder in place: every tensor of the encoder must be found, with its shape.

    timm's feature networks wrap or flatten the names of the full network (``model.``, ``stages_0.``); both spellings
    are looked up. Position embeddings of another image size are resampled. What the encoder does not have, such as a
    classifier, is left out.

    Raises
    ------
    BadInputError
        If a tensor is missing or has another shape; the encoder is then unchanged.
    """
    wanted = encoder.state_dict()
    loaded, missing = {}, []
    for name, tensor in wanted.items():
        key = next((k for k in _spellings(name) if k in state), None)
        if key is not None:
            loaded[name] = _fitted(name, state[key], tensor, encoder, source)
        elif name.endswith("num_batches_tracked"):
            loaded[name] = tensor
        else:
            missing.append(name)
    if missing:
        parts = sorted({".".join(name.removeprefix("model.").split(".")[:2]) for name in missing})
        raise BadInputError(
            f"the weights {source} lack {len(missing)} of the {len(wanted)} tensors of the encoder ({', '.join(parts[:4])}"
            f"{', ...' if len(parts) > 4 else ''}), expected all; name the encoder they were made for, or fewer stages with --encoder-depth"
        )
    encoder.load_state_dict(loaded)


def _spellings(name: str) -> list[str]:
    bare = name.removeprefix("model.")
    return [
        name,
        bare,
        *(_FLATTENED.sub(r"\1.\2.", n) for n in (name, bare)),
        f"encoder.{name}",
        f"backbone.{bare}",
        f"module.{bare}",
    ]


def _fitted(name: str, found: Tensor, wanted: Tensor, encoder: nn.Module, source: str) -> Tensor:
    if found.shape == wanted.shape:
        return found
    if name.endswith("pos_embed") and found.ndim == 3 and found.shape[-1] == wanted.shape[-1]:
        from timm.layers import resample_abs_pos_embed

        prefix = int(getattr(getattr(encoder, "model", encoder), "num_prefix_tokens", 1))
        side = round((wanted.shape[1] - prefix) ** 0.5)
        resampled: Tensor = resample_abs_pos_embed(found, [side, side], num_prefix_tokens=prefix)
        return resampled
    raise BadInputError(
        f"the weights {source} hold {name} of shape {tuple(found.shape)}, expected {tuple(wanted.shape)}; name the encoder they were made for"
    )
