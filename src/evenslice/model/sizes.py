"""The sizes of windows that a network takes: multiples of a stride, or one only."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from evenslice.errors import BadInputError
from evenslice.model.encoders import DPT_CHANNELS, OPTIONS_BY_MODULE, module_of


def stride_of(network: nn.Module) -> int:
    """Return what height and width must be multiples of."""
    side: tuple[int, int] | None = getattr(network, "side", None)
    if side is not None:
        return max(side)
    stride = getattr(getattr(network, "encoder", None), "output_stride", 32)
    stride = int(stride) if isinstance(stride, int) else 32
    return (
        2 * stride if type(network).__name__ == "DPT" else stride
    )  # DPT halves its grid of patches and doubles it again


def size_of(network: nn.Module) -> tuple[int, int] | None:
    """Return the only (y, x) that a network takes, or None for any multiples of its stride."""
    side: tuple[int, int] | None = getattr(network, "side", None)
    return None if side is None or network.repeats else side


def note_size(network: Any, encoder: str, options: Mapping[str, Any]) -> None:
    """Note in a network that its encoder is made for one size of the image, if it is, and refuse others with a reason."""
    side = _only_side(encoder, options)
    if side is None:
        return
    network.side = side
    network.repeats = module_of(encoder) == "maxxvit" and encoder.removeprefix("tu-").startswith("max")
    network.register_forward_pre_hook(partial(_check_side, encoder=encoder))


def _only_side(encoder: str, options: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the (y, x) of an encoder that is made for one size of the image, or None for one that takes any size."""
    import timm

    module = module_of(encoder)
    if not module or module in OPTIONS_BY_MODULE:
        return None
    cfg = timm.get_pretrained_cfg(encoder.removeprefix("tu-"))
    if cfg is None or not cfg.fixed_input_size:
        return None
    size = options.get("img_size", cfg.input_size[-2:])
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _check_side(network: Any, inputs: tuple[Any, ...], encoder: str) -> None:
    height, width = inputs[0].shape[-2:]
    y, x = network.side
    fits = (height % y, width % x) == (0, 0) if network.repeats else (height, width) == (y, x)
    if not fits:
        raise BadInputError(
            f"the encoder {encoder} got windows of {height} x {width}, expected {'multiples of ' * network.repeats}{y} x {x}; use "
            f"--crop {min(y, x)}, or an encoder that takes any size"
        )


def even_scales(network: Any) -> None:
    """Let DPT take patches whose side is no power of two, such as 14 pixels; leave others alone.

    segmentation-models-pytorch scales the grids of patches to 1/4, 1/8, ... of the window, rounding the factors, which then do not
    fit. They are scaled as those of 16 pixels instead, and the last enlargement brings the answer to the size of the window, as
    the authors of DINOv2 and Depth Anything do.
    """
    from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder

    encoder = network.encoder
    patch, count = encoder.output_stride, len(encoder.output_strides)
    if len(set(encoder.output_strides)) > 1 or patch & (patch - 1) == 0:
        return
    network.decoder = DPTDecoder(
        encoder.out_channels, [16] * count, encoder.has_prefix_tokens, "cat", DPT_CHANNELS[:count]
    )
    network.segmentation_head.upsampling_factor = patch / 8
    network.initialize()
