"""Encoders: their names, what each architecture can stand on, and the options that let them take windows of any size."""

import difflib
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
OPTIONS_BY_MODULE: dict[str, dict[str, Any]] = {  # timm's modules of one input size that can take any
    **{
        m: {"dynamic_img_size": True}
        for m in ("vision_transformer", "deit", "eva", "vision_transformer_hybrid", "vitamin")
    },
    **{m: {"strict_img_size": False} for m in ("swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr")},
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
    return timm.models.model_entrypoint(bare).__module__.rpartition(".")[2] if timm.is_model(bare) else ""


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
