"""Building networks: always at three channels, as pretrained; then the stem is widened to the slices."""

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evenslice.errors import BadInputError
from evenslice.model.encoders import (
    ARCHITECTURE,
    ARCHS,
    OPTIONS_BY_MODULE,
    advice,
    arch_options,
    architecture_of,
    check_stages,
    even_scales,
    library_name,
    module_of,
    note_size,
    size_of,
    stride_of,
)
from evenslice.model.pretrained import BUNDLED_DEPTH, is_of_the_hub, pretrained, refusal
from evenslice.model.spec import Model, Spec
from evenslice.model.stem.adapt import mirror_stem, uniform_stem
from evenslice.model.weights import load_encoder
from evenslice.options import Init, Tie

__all__ = [
    "ARCHS",
    "best_layout",
    "build_model",
    "build_network",
    "rebuild",
    "size_of",
    "stride_of",
]


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
        A timm name such as ``resnet18`` or ``resnet18.tv_in1k``, ``smp:NAME``, or ``hf-hub:OWNER/NAME``.
    slices
        S, odd, 1 to 9.
    classes
        Output channels: 1 for foreground, else the number of classes with background.
    weights
        ``imagenet`` (from the hub), ``hf-hub:OWNER/NAME``, ``bundled`` (our small ResNet-18, three stages), ``none``, or a file.
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
    if weights == "bundled":
        encoder_depth = encoder_depth or BUNDLED_DEPTH
    with torch.random.fork_rng(devices=[]):
        start = pretrained(encoder, weights)
        spec = Spec(arch, start.encoder, encoder_depth, slices, classes, init, tie, start.options)
        torch.manual_seed(seed)
        network = build_network(spec, pretrained=start.by_library)
        if start.state is not None:
            whole = None if encoder.startswith("smp:") else partial(_whole, spec)
            load_encoder(_encoder_body(network), start.state, weights, whole, start.facts)
        uniform_stem(network, slices, init)
    if tie != "none":
        mirror_stem(network, slices, tie)
    network = network.to(memory_format=best_layout(network))
    return Model(network, spec, stride=stride_of(network), size=size_of(network))


def rebuild(spec: Spec) -> nn.Module:
    """Build the network of a spec with S channels and untrained weights, for a state dict to fill."""
    network = build_network(spec, pretrained=False)
    network = uniform_stem(network, spec.slices, "random")
    return network.to(memory_format=best_layout(network))


def build_network(spec: Spec, pretrained: bool) -> nn.Module:
    """Build the three-channel network of a spec with segmentation-models-pytorch."""
    import segmentation_models_pytorch as smp

    encoder = architecture_of(spec)
    options = _own_options(spec) | arch_options(spec)
    name = library_name(encoder)
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
        if pretrained and is_of_the_hub(error):
            raise refusal(error, spec.encoder) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise BadInputError(
            f"{spec.arch} cannot be built on the encoder {encoder!r} ({reason}), expected a pair that "
            f"segmentation-models-pytorch supports; {advice(spec.arch, encoder)}"
        ) from error
    check_stages(network, spec.arch, encoder)
    if spec.arch == "dpt":
        even_scales(network)
    note_size(network, encoder, options)
    return network


def _own_options(spec: Spec) -> dict[str, Any]:
    return {name: value for name, value in spec.options.items() if name != ARCHITECTURE}


def _whole(spec: Spec) -> nn.Module:
    """Return the whole network of timm that the encoder of a spec is a part of."""
    import timm

    encoder = architecture_of(spec)
    sizes = _own_options(spec) | OPTIONS_BY_MODULE.get(module_of(encoder), {})
    whole: nn.Module = timm.create_model(library_name(encoder).removeprefix("tu-"), **sizes)
    return whole


def best_layout(network: nn.Module) -> torch.memory_format:
    """Return channels-last for purely convolutional networks, where it is faster on CPU and GPU, else contiguous."""
    mixed = any(isinstance(layer, nn.LayerNorm) for layer in network.modules())
    return torch.contiguous_format if mixed else torch.channels_last


def _encoder_body(network: nn.Module) -> nn.Module:
    encoder = network.encoder
    body = getattr(encoder, "model", encoder)
    assert isinstance(body, nn.Module)
    return body
