"""The sizes of windows that a network takes: multiples of a stride, or one only."""

import difflib
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from evenslice.errors import BadInputError
from evenslice.model.spec import Spec

DEPTHS = {
    "unet": (1, 5),
    "unetplusplus": (2, 5),
    "fpn": (3, 5),
    "deeplabv3plus": (3, 5),
    "segformer": (3, 5),
    "upernet": (3, 5),
    "dpt": (1, 4),
}
ARCHS = tuple(DEPTHS)
UNET_CHANNELS = (256, 128, 64, 32, 16)
DPT_CHANNELS = (256, 512, 1024, 1024)
ARCHITECTURE = "architecture"  # the option that says which encoder a repository of the hub holds
OPTIONS_BY_MODULE: dict[
    str, dict[str, Any]
] = {  # timm's modules of one input size that can take any
    **{
        m: {"dynamic_img_size": True}
        for m in ("vision_transformer", "deit", "eva", "vision_transformer_hybrid", "vitamin")
    },
    **{
        m: {"strict_img_size": False}
        for m in ("swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr")
    },
    "vision_transformer_sam": {},
}
OTHER_TRANSFORMERS = ("beit", "hiera", "hieradet_sam2", "vision_transformer_relpos", "naflexvit")


def architecture_of(spec: Spec) -> str:
    """Return the encoder to build, which for one from the hub is noted among the options."""
    return str(spec.options.get(ARCHITECTURE, spec.encoder))


def library_name(encoder: str) -> str:
    """Return what segmentation-models-pytorch calls an encoder: ``tu-NAME`` for timm's.

    Raises
    ------
    BadInputError
        If the name or its tag is unknown.
    """
    import timm
    from segmentation_models_pytorch.encoders import get_encoder_names

    if encoder.startswith("smp:"):
        native, known = encoder.removeprefix("smp:"), get_encoder_names()
        if native in known:
            return native
    else:
        native, known = encoder.removeprefix("tu-"), timm.list_models()
        bare, _, tag = native.partition(".")
        if timm.is_model(bare):
            _check_tag(bare, tag)
            return f"tu-{native}"
    close = difflib.get_close_matches(native, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "see timm.list_models()"
    raise BadInputError(
        f"the encoder {encoder!r} is unknown, expected a timm name such as resnet18, smp:NAME or hf-hub:OWNER/NAME; {hint}"
    )


def _check_tag(bare: str, tag: str) -> None:
    import timm

    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{bare}.*")]
    if tag and tags and tag not in tags:
        raise BadInputError(
            f"timm has no weights {tag!r} of {bare}, expected {' or '.join(tags[:6])}; use {bare}.{tags[0]}, or {bare} alone"
        )


def with_tag(encoder: str) -> str:
    """Return a timm name with the tag of the weights that timm fetches for it; other names as they are.

    Raises
    ------
    BadInputError
        If the encoder is unknown, or timm has no weights for it.
    """
    import timm

    name = library_name(encoder)
    if not name.startswith("tu-"):
        return encoder
    native = name.removeprefix("tu-")
    if not timm.models.is_model_pretrained(native):
        raise BadInputError(
            f"timm has no pretrained weights for the encoder {encoder!r}, expected one that has; use --weights none, --weights "
            "FILE, or an encoder of timm.list_pretrained()"
        )
    tag = getattr(timm.get_pretrained_cfg(native), "tag", "")
    return native if "." in native or not tag else f"{native}.{tag}"


def module_of(encoder: str) -> str:
    """Return the module of timm that makes an encoder, ``""`` for one of segmentation-models-pytorch or of the hub."""
    import timm

    bare = encoder.removeprefix("tu-").partition(".")[0]
    return (
        timm.models.model_entrypoint(bare).__module__.rpartition(".")[2]
        if timm.is_model(bare)
        else ""
    )


def arch_options(spec: Spec) -> dict[str, Any]:
    """Return what an architecture is built with for a spec, beside the spec's own options.

    Raises
    ------
    BadInputError
        If the architecture is unknown, or cannot stand on such an encoder.
    """
    if spec.arch not in ARCHS:
        raise BadInputError(
            f"the architecture {spec.arch!r} is unknown, expected one of {', '.join(ARCHS)}; choose one"
        )
    encoder, depth = architecture_of(spec), spec.encoder_depth
    module = module_of(encoder)
    if spec.arch == "dpt" and module not in (*OPTIONS_BY_MODULE, *OTHER_TRANSFORMERS):
        raise BadInputError(
            f"dpt cannot be built on the encoder {encoder!r}, expected a vision transformer such as vit_tiny_patch16_224; choose "
            "one, or another architecture"
        )
    least, most = DEPTHS[spec.arch]
    if depth is not None and not least <= depth <= most:
        raise BadInputError(
            f"the encoder depth {depth} cannot be built, expected {least} to {most} for {spec.arch}; choose one of these"
        )
    options: dict[str, Any] = {} if depth is None else {"encoder_depth": depth}
    if spec.arch in ("unet", "unetplusplus") and depth is not None:
        options["decoder_channels"] = UNET_CHANNELS[-depth:]
    if spec.arch == "fpn" and depth is not None:
        options["upsampling"] = 2 ** (depth - 3)
    if spec.arch == "dpt" and depth is not None:
        options["decoder_intermediate_channels"] = DPT_CHANNELS[:depth]
    return options | OPTIONS_BY_MODULE.get(module, {})


def advice(arch: str, encoder: str) -> str:
    """Return what would work in place of a pair that segmentation-models-pytorch does not build."""
    if arch == "unetplusplus" and encoder.startswith("smp:mit"):
        return "use unet, fpn, segformer or upernet with it"
    if arch == "deeplabv3plus":
        return "use unet, fpn, segformer or upernet with it, or an encoder that can be dilated, such as resnet18 or convnext_tiny"
    if module_of(encoder) in (*OPTIONS_BY_MODULE, *OTHER_TRANSFORMERS) and "swin" not in encoder:
        return f"use dpt with it, or an encoder of several scales with {arch}, such as resnet18, convnext_tiny or swin_tiny_patch4_window7_224"
    return "choose another encoder, such as resnet18, convnext_tiny or swin_tiny_patch4_window7_224, or another --encoder-depth"


def check_stages(network: nn.Module, arch: str, encoder: str) -> None:
    """Refuse a network whose decoder would need a stage that the encoder does not have (those that start at a quarter)."""
    channels = getattr(network.encoder, "out_channels", None)
    needed = list(channels or [1])[-4:] if arch == "fpn" else list(channels or [1])[-1:]
    if 0 in needed:
        raise BadInputError(
            f"{arch} cannot be built on so few stages of the encoder {encoder!r}, whose first is at a quarter of the size, "
            "expected more; use a larger --encoder-depth, or unet"
        )


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
    network.repeats = module_of(encoder) == "maxxvit" and encoder.removeprefix("tu-").startswith(
        "max"
    )
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
