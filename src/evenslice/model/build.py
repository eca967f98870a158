"""Building networks: always at three channels, as pretrained; then the stem is widened to the slices."""

import difflib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evenslice.errors import BadInputError
from evenslice.model.spec import Model, Spec
from evenslice.model.stem import Init, Tie, mirror_stem, uniform_stem
from evenslice.model.weights import BUNDLED, BUNDLED_DEPTH, load_encoder, read_weights

ARCHS = ("unet", "unetplusplus", "fpn", "deeplabv3plus", "segformer", "upernet", "dpt")
UNET_CHANNELS = (256, 128, 64, 32, 16)
FACTS = {"pad_type": str, "img_size": int}
FORMAT_BYTES = 120


def build_model(
    arch: str = "unet",
    encoder: str = "resnet18",
    *,
    slices: int = 3,
    classes: int = 1,
    weights: str | Path = "imagenet",
    init: Init = "green",
    tie: Tie = "none",
    encoder_depth: int | None = None,
    seed: int = 0,
) -> Model:
    """Build a segmentation network over S slices from an RGB-pretrained encoder.

    Parameters
    ----------
    arch
        ``unet``, ``unetplusplus``, ``fpn``, ``deeplabv3plus``, ``segformer``, ``upernet`` or ``dpt``.
    encoder
        A timm name such as ``resnet18``, or ``smp:NAME``.
    slices
        S, odd, 1 to 9.
    classes
        Output channels: 1 for foreground, else the number of classes with background.
    weights
        ``imagenet`` (from the hub), ``bundled`` (our small ResNet-18, three stages), ``none``, or a file.
    init, tie
        See ``uniform_stem`` and ``mirror_stem``.
    encoder_depth
        Stages of the encoder; None for the architecture's default (three for ``bundled``).
    seed
        Seed of everything that is not pretrained.

    Returns
    -------
    Model
        In float32 on the CPU, with the network in training mode and its normalisation still None.

    Raises
    ------
    BadInputError
        If a name is unknown, the weights do not fit, or the hub cannot be reached.
    """
    weights = str(weights)
    state: dict[str, torch.Tensor] | None = None
    facts: dict[str, str] = {}
    if weights == "bundled":
        if encoder != "resnet18":
            raise BadInputError(
                f"the bundled weights are for the encoder resnet18, found {encoder!r}; use --encoder resnet18 or other weights"
            )
        encoder_depth = encoder_depth or BUNDLED_DEPTH
        state, facts = read_weights(BUNDLED)
    elif weights not in ("imagenet", "none"):
        state, facts = read_weights(Path(weights))
    options = {name: kind(facts[name]) for name, kind in FACTS.items() if name in facts}
    spec = Spec(arch, encoder, encoder_depth, slices, classes, init, tie, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(spec, pretrained=weights == "imagenet")
        if state is not None:
            load_encoder(_encoder_body(network), state, weights)
        uniform_stem(network, slices, init)
    if tie != "none":
        mirror_stem(network, slices, tie)
    network = network.to(memory_format=best_layout(network))
    return Model(network, spec, stride=stride_of(network))


def rebuild(spec: Spec) -> nn.Module:
    """Build the network of a spec with S channels and untrained weights, for a state dict to fill."""
    network = build_network(spec, pretrained=False)
    network = uniform_stem(network, spec.slices, "random")
    return network.to(memory_format=best_layout(network))


def build_network(spec: Spec, pretrained: bool) -> nn.Module:
    """Build the three-channel network of a spec with segmentation-models-pytorch."""
    import segmentation_models_pytorch as smp

    if spec.arch not in ARCHS:
        raise BadInputError(
            f"the architecture {spec.arch!r} is unknown, expected one of {', '.join(ARCHS)}; choose one"
        )
    name = _encoder_name(spec.encoder)
    options = dict(spec.options) | _arch_options(spec)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network: nn.Module = smp.create_model(
                spec.arch,
                encoder_name=name,
                encoder_weights="imagenet" if pretrained else None,
                in_channels=3,
                classes=spec.classes,
                **options,
            )
    except Exception as error:  # the libraries below raise kinds of their own
        reason = (str(error).splitlines() or [type(error).__name__])[0][:FORMAT_BYTES]
        if pretrained and _is_network_error(error):
            raise BadInputError(
                f"the weights of {spec.encoder} cannot be fetched from the hub ({reason}), expected a connection; "
                "use --weights bundled, or --weights FILE with weights you have"
            ) from error
        raise BadInputError(
            f"{spec.arch} cannot be built on the encoder {spec.encoder!r} ({reason}), expected a pair that "
            "segmentation-models-pytorch supports; choose another encoder or --encoder-depth"
        ) from error
    return network


def best_layout(network: nn.Module) -> torch.memory_format:
    """Return channels-last for purely convolutional networks, where it is faster on CPU and GPU, else contiguous."""
    mixed = any(isinstance(layer, nn.LayerNorm) for layer in network.modules())
    return torch.contiguous_format if mixed else torch.channels_last


def stride_of(network: nn.Module) -> int:
    """Return what height and width must be multiples of."""
    stride = getattr(getattr(network, "encoder", None), "output_stride", 32)
    stride = int(stride) if isinstance(stride, int) else 32
    return (
        2 * stride if type(network).__name__ == "DPT" else stride
    )  # DPT halves its grid of patches and doubles it again


def _encoder_name(encoder: str) -> str:
    import timm
    from segmentation_models_pytorch.encoders import get_encoder_names

    if encoder.startswith("smp:"):
        native, known = encoder.removeprefix("smp:"), get_encoder_names()
        if native in known:
            return native
    else:
        native, known = encoder.removeprefix("tu-"), timm.list_models()
        if timm.is_model(native.split(".")[0]) or native.startswith("hf-hub:"):
            return f"tu-{native}"
    close = difflib.get_close_matches(native, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "see timm.list_models()"
    raise BadInputError(
        f"the encoder {encoder!r} is unknown, expected a timm name such as resnet18 or smp:NAME; {hint}"
    )


def _arch_options(spec: Spec) -> dict[str, Any]:
    depth = spec.encoder_depth
    options: dict[str, Any] = {} if depth is None else {"encoder_depth": depth}
    if spec.arch in ("unet", "unetplusplus") and depth is not None:
        options["decoder_channels"] = UNET_CHANNELS[-depth:]
    if spec.arch == "fpn" and depth == 4:
        options["upsampling"] = 2
    if spec.arch == "dpt":
        options["dynamic_img_size"] = True
    return options


def _encoder_body(network: nn.Module) -> nn.Module:
    encoder = network.encoder
    body = getattr(encoder, "model", encoder)
    assert isinstance(body, nn.Module)
    return body


def _is_network_error(error: BaseException | None) -> bool:
    while error is not None:
        name = f"{type(error).__module__}.{type(error).__name__}"
        if isinstance(error, (OSError, ConnectionError, TimeoutError)) or any(
            k in name for k in ("huggingface_hub", "httpx", "requests")
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
