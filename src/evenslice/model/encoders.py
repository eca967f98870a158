"""Encoders and architectures: names, what goes together, and the window sizes they take."""

import difflib
from functools import partial

from torch import Tensor, nn

from evenslice.errors import BadInputError
from evenslice.model.spec import Metadata, Spec

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
OPTIONS_BY_MODULE: dict[str, Metadata] = {  # timm's modules of one input size that can take any
    "vision_transformer": {"dynamic_img_size": True},
    "deit": {"dynamic_img_size": True},
    "eva": {"dynamic_img_size": True},
    "vision_transformer_hybrid": {"dynamic_img_size": True},
    "vitamin": {"dynamic_img_size": True},
    "swin_transformer": {"strict_img_size": False},
    "swin_transformer_v2": {"strict_img_size": False},
    "swin_transformer_v2_cr": {"strict_img_size": False},
    "vision_transformer_sam": {},
}
OTHER_TRANSFORMERS = ("beit", "hiera", "hieradet_sam2", "vision_transformer_relpos", "naflexvit")


def architecture_of(spec: Spec) -> str:
    """Return the encoder to build, which for one from the hub is noted among the options."""
    return str(spec.options.get(ARCHITECTURE, spec.encoder))


def library_name(encoder: str) -> str:
    """Return what segmentation-models-pytorch calls an encoder: ``tu-NAME`` for timm's.

    ``BadInputError`` if the name or its tag is unknown.
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
            tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{bare}.*")]
            if tag and tags and tag not in tags:
                raise BadInputError(
                    f"timm has no weights {tag!r} of {bare}, expected {' or '.join(tags[:6])}; "
                    f"use {bare}.{tags[0]}, or {bare} alone"
                )
            return f"tu-{native}"
    close = difflib.get_close_matches(native, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "see timm.list_models()"
    raise BadInputError(
        f"the encoder {encoder!r} is unknown, expected a timm name such as resnet18, smp:NAME or "
        f"hf-hub:OWNER/NAME; {hint}"
    )


def with_tag(encoder: str) -> str:
    """Return a timm name with the tag of the weights that timm fetches for it; others unchanged.

    ``BadInputError`` if the encoder is unknown, or timm has no weights for it.
    """
    import timm

    name = library_name(encoder)
    if not name.startswith("tu-"):
        return encoder
    native = name.removeprefix("tu-")
    if not timm.models.is_model_pretrained(native):
        raise BadInputError(
            f"timm has no pretrained weights for the encoder {encoder!r}, expected one that has; "
            "use --weights none, --weights FILE, or an encoder of timm.list_pretrained()"
        )
    tag = getattr(timm.get_pretrained_cfg(native), "tag", "")
    return native if "." in native or not tag else f"{native}.{tag}"


def module_of(encoder: str) -> str:
    """Return the module of timm that makes an encoder, ``""`` for one that is not timm's."""
    import timm

    bare = encoder.removeprefix("tu-").partition(".")[0]
    if not timm.is_model(bare):
        return ""
    return str(timm.models.model_entrypoint(bare).__module__.rpartition(".")[2])


def _is_transformer(encoder: str) -> bool:
    return module_of(encoder) in (*OPTIONS_BY_MODULE, *OTHER_TRANSFORMERS)


def arch_options(spec: Spec) -> Metadata:
    """Return what an architecture is built with for a spec, beside the spec's own options.

    ``BadInputError`` if the architecture is unknown, or cannot stand on such an encoder.
    """
    if spec.arch not in DEPTHS:
        raise BadInputError(
            f"the architecture {spec.arch!r} is unknown, expected one of {', '.join(ARCHS)}; "
            "choose one"
        )
    encoder, depth = architecture_of(spec), spec.encoder_depth
    if spec.arch == "dpt" and not _is_transformer(encoder):
        raise BadInputError(
            f"dpt cannot be built on the encoder {encoder!r}, expected a vision transformer such "
            "as vit_tiny_patch16_224; choose one, or another architecture"
        )
    options = dict(OPTIONS_BY_MODULE.get(module_of(encoder), {}))
    if depth is None:
        return options
    least, most = DEPTHS[spec.arch]
    if not least <= depth <= most:
        raise BadInputError(
            f"the encoder depth {depth} cannot be built, expected {least} to {most} for "
            f"{spec.arch}; choose one of these"
        )
    options["encoder_depth"] = depth
    if spec.arch in ("unet", "unetplusplus"):
        options["decoder_channels"] = UNET_CHANNELS[-depth:]
    if spec.arch == "fpn":
        options["upsampling"] = 2 ** (depth - 3)
    if spec.arch == "dpt":
        options["decoder_intermediate_channels"] = DPT_CHANNELS[:depth]
    return options


def advice(arch: str, encoder: str) -> str:
    """Return what works in place of a pair that segmentation-models-pytorch does not build."""
    if arch == "unetplusplus" and encoder.startswith("smp:mit"):
        return "use unet, fpn, segformer or upernet with it"
    if arch == "deeplabv3plus":
        return (
            "use unet, fpn, segformer or upernet with it, or an encoder that can be dilated, such "
            "as resnet18 or convnext_tiny"
        )
    several = "resnet18, convnext_tiny or swin_tiny_patch4_window7_224"
    if _is_transformer(encoder) and "swin" not in encoder:
        return f"use dpt with it, or an encoder of several scales with {arch}, such as {several}"
    return f"choose another encoder, such as {several}, or another --encoder-depth"


def check_stages(network: nn.Module, arch: str, encoder: str) -> None:
    """Refuse a decoder that needs a stage which the encoder lacks, as some start at a quarter."""
    channels = list(getattr(network.encoder, "out_channels", None) or [1])
    if 0 in channels[-4 if arch == "fpn" else -1 :]:
        raise BadInputError(
            f"{arch} cannot be built on so few stages of the encoder {encoder!r}, whose first is "
            "at a quarter of the size, expected more; use a larger --encoder-depth, or unet"
        )


def stride_of(network: nn.Module) -> int:
    """Return what height and width must be multiples of."""
    side: tuple[int, int] | None = getattr(network, "side", None)
    if side is not None:
        return max(side)
    stride = getattr(getattr(network, "encoder", None), "output_stride", 32)
    stride = int(stride) if isinstance(stride, int) else 32
    # DPT halves its grid of patches and doubles it again
    return 2 * stride if type(network).__name__ == "DPT" else stride


def size_of(network: nn.Module) -> tuple[int, int] | None:
    """Return the only (y, x) that a network takes, or None for any multiples of its stride."""
    side: tuple[int, int] | None = getattr(network, "side", None)
    return None if side is None or network.repeats else side


def restrict_size(network: nn.Module, encoder: str, options: Metadata) -> None:
    """Make a network whose encoder is made for one image size refuse others with a reason."""
    import timm

    module, name = module_of(encoder), encoder.removeprefix("tu-")
    cfg = timm.get_pretrained_cfg(name) if module else None
    if cfg is None or not cfg.fixed_input_size or module in OPTIONS_BY_MODULE:
        return
    size = options.get("img_size", cfg.input_size[-2:])
    height, width = (size, size) if isinstance(size, int) else size
    repeats = module == "maxxvit" and name.startswith("max")
    vars(network).update(side=(height, width), repeats=repeats)
    network.register_forward_pre_hook(
        partial(_check_side, side=(height, width), repeats=repeats, encoder=encoder)
    )


def _check_side(
    _: nn.Module, inputs: tuple[Tensor], side: tuple[int, int], repeats: bool, encoder: str
) -> None:
    (height, width), (y, x) = inputs[0].shape[-2:], side
    fits = (height % y, width % x) == (0, 0) if repeats else (height, width) == side
    if not fits:
        multiples = "multiples of " if repeats else ""
        raise BadInputError(
            f"the encoder {encoder} got windows of {height} x {width}, expected {multiples}"
            f"{y} x {x}; use --crop {min(y, x)}, or an encoder that takes any size"
        )


def fit_odd_patches(network: nn.Module) -> None:
    """Let DPT take patches whose side is no power of two, such as 14 pixels.

    segmentation-models-pytorch scales the grids of patches to 1/4, 1/8, ... of the window by
    rounded factors, which then do not fit. They are scaled as those of 16 pixels instead, and the
    last upsampling brings the answer to the window's size, as in DINOv2 and Depth Anything.
    """
    from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder
    from segmentation_models_pytorch.decoders.dpt.model import DPT

    assert isinstance(network, DPT)
    encoder = network.encoder
    patch, count = encoder.output_stride, len(encoder.output_strides)
    if len(set(encoder.output_strides)) > 1 or patch & (patch - 1) == 0:
        return
    network.decoder = DPTDecoder(
        encoder.out_channels, [16] * count, encoder.has_prefix_tokens, "cat", DPT_CHANNELS[:count]
    )
    network.segmentation_head.upsampling_factor = patch / 8
    network.initialize()
