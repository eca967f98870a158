"""Building networks: at three channels, as pretrained; then the stem is widened to the slices."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from evenslice.errors import BadInputError
from evenslice.model.encoders import (
    ARCHITECTURE,
    OPTIONS_BY_MODULE,
    advice,
    arch_options,
    architecture_of,
    check_stages,
    fit_odd_patches,
    library_name,
    module_of,
    restrict_size,
    size_of,
    stride_of,
    with_tag,
)
from evenslice.model.spec import Metadata, Model, Spec
from evenslice.model.stem.adapt import mirror_stem, widen_stem
from evenslice.model.weights import (
    load_encoder,
    load_state_dict,
    pretrained_channels,
    weights_metadata,
)
from evenslice.model.weights_source import (
    HUB,
    HUB_FILES,
    in_timm_order,
    installed_weights,
    weights_record,
)
from evenslice.options import Init, Tie

SET_BY_US = (  # of a repository's model_args: what a segmentation encoder needs otherwise
    "in_chans",
    "num_classes",
    "global_pool",
    "features_only",
    "out_indices",
    "output_stride",
    "pretrained",
)


def build_model(
    arch: str = "unet",
    encoder: str = "tf_efficientnet_lite0",
    *,
    slices: int = 3,
    classes: int = 1,
    weights: str | Path = "imagenet",
    init: Init = "green",
    tie: Tie = "none",
    encoder_depth: int | None = None,
    seed: int = 0,
) -> Model:
    """Build a segmentation network over S slices from a pretrained encoder.

    Parameters
    ----------
    arch
        ``unet``, ``unetplusplus``, ``fpn``, ``deeplabv3plus``, ``segformer``, ``upernet``,
        ``dpt``.
    encoder
        A timm name such as ``tf_efficientnet_lite0`` or ``resnet18.tv_in1k``, ``smp:NAME``, or
        ``hf-hub:OWNER/NAME``.
    slices
        S, odd, 1 to 9.
    classes
        Output channels: 1 for foreground, else the number of classes with background.
    weights
        ``imagenet`` (of an installed package, else of the hub), ``hf-hub:OWNER/NAME``, ``none``, or
        a file, also of an encoder that was pretrained on grey images.
    init, tie
        See ``initialise_stem`` and ``mirror_stem``.
    encoder_depth
        Stages of the encoder; None for the architecture's default.
    seed
        Random seed of everything that is not pretrained.

    Returns
    -------
    Model
        In float32 on the CPU, in training mode, its normalisation still None.

    Raises
    ------
    BadInputError
        If a name is unknown, the weights do not fit, or the hub cannot be reached.

    Examples
    --------
    >>> model = build_model("unet", "resnet18", slices=5, weights="none", encoder_depth=3)
    >>> model.slices
    5
    """
    weights = str(weights)
    with torch.random.fork_rng(devices=[]):
        start = find_pretrained(encoder, weights)
        spec = Spec(arch, start.encoder, encoder_depth, slices, classes, init, tie, start.options)
        torch.manual_seed(seed)
        network = build_network(spec, pretrained=start.by_library)
        if start.state is not None:
            body = getattr(network.encoder, "model", network.encoder)
            assert isinstance(body, nn.Module)
            channels = pretrained_channels(body, start.state)
            if channels != 3:
                widen_stem(network, 3, channels, "random")
                spec = replace(spec, channels=channels)
            whole = None if encoder.startswith("smp:") else partial(_whole_encoder, spec)
            load_encoder(body, start.state, weights, whole, start.metadata)
        widen_stem(network, spec.channels, slices, init)
    if tie != "none":
        mirror_stem(network, slices, tie)
    network = _lay_out(network)
    made = {"inputs": {"weights": weights_record(encoder, weights)}}
    return Model(network, spec, stride=stride_of(network), size=size_of(network), provenance=made)


def rebuild(spec: Spec) -> nn.Module:
    """Build the network of a spec with S channels and untrained weights, to be filled."""
    network = build_network(spec, pretrained=False)
    if spec.slices != 3:
        widen_stem(network, 3, spec.slices, "random")
    return _lay_out(network)


def _lay_out(network: nn.Module) -> nn.Module:
    """Lay a network out channels last, which is faster, if all of it is convolutional."""
    mixed = any(isinstance(layer, nn.LayerNorm) for layer in network.modules())
    layout = torch.contiguous_format if mixed else torch.channels_last
    return network.to(memory_format=layout)


def build_network(spec: Spec, pretrained: bool) -> nn.Module:
    """Build the three-channel network of a spec with segmentation-models-pytorch."""
    import segmentation_models_pytorch as smp

    encoder = architecture_of(spec)
    options = _encoder_options(spec) | arch_options(spec)
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
        if pretrained and isinstance(error, OSError):  # as all errors of the hub's client are
            raise hub_failure(error, spec.encoder) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise BadInputError(
            f"{spec.arch} cannot be built on the encoder {encoder!r} ({reason}), expected a pair "
            f"that segmentation-models-pytorch supports; {advice(spec.arch, encoder)}"
        ) from error
    check_stages(network, spec.arch, encoder)
    if spec.arch == "dpt":
        fit_odd_patches(network)
    restrict_size(network, encoder, options)
    return network


def _encoder_options(spec: Spec) -> Metadata:
    return {name: value for name, value in spec.options.items() if name != ARCHITECTURE}


def _whole_encoder(spec: Spec) -> nn.Module:
    """Return the whole network of timm that the encoder of a spec is a part of."""
    import timm

    encoder = architecture_of(spec)
    options = _encoder_options(spec) | OPTIONS_BY_MODULE.get(module_of(encoder), {})
    whole: nn.Module = timm.create_model(library_name(encoder).removeprefix("tu-"), **options)
    return whole


@dataclass(frozen=True)
class PretrainedStart:
    """What a network starts from."""

    encoder: str  # to record: it names the weights as far as a name can
    options: Metadata = field(default_factory=dict)  # that the encoder is built with
    state: dict[str, Tensor] | None = None  # weights to load
    metadata: dict[str, str] = field(default_factory=dict)  # of the file of the weights
    by_library: bool = False  # whether timm or smp fetch the weights themselves


def find_pretrained(encoder: str, weights: str) -> PretrainedStart:
    """Find what to start from; read or fetch weights that the libraries do not fetch themselves.

    ``BadInputError`` if the weights cannot be had, or say that they are of another encoder.
    """
    options: Metadata = {}
    if encoder.startswith(HUB):
        repository = encoder
        encoder, options = _hub_architecture(repository)
        if not encoder:
            raise BadInputError(
                f"{repository} does not say which architecture of timm it holds, expected a "
                "config.json that does; give the encoder by its timm name, "
                f"and --weights {repository}"
            )
        weights = repository if weights == "imagenet" else weights
    if weights.startswith(HUB):
        return _start_from_hub(encoder, weights)
    if weights == "imagenet":
        installed = installed_weights(encoder)
        if installed is None:
            return PretrainedStart(with_tag(encoder), options, by_library=True)
        state = load_state_dict(installed)
        state = state if encoder.startswith("smp:") else in_timm_order(state, encoder)
        return PretrainedStart(encoder, options, state)
    if weights == "none":
        return PretrainedStart(encoder, options)
    path = Path(weights)
    state, metadata = load_state_dict(path), weights_metadata(path)
    options |= options_in_metadata(metadata, encoder, weights)
    return PretrainedStart(encoder, options, state, metadata)


def _start_from_hub(encoder: str, repository: str) -> PretrainedStart:
    stated, options = _hub_architecture(repository)
    bare = encoder.partition(".")[0].removeprefix("tu-")
    if stated and not encoder.startswith("smp:") and stated.partition(".")[0] != bare:
        raise BadInputError(
            f"{repository} holds weights of {stated}, expected those of {encoder}; "
            f"use --encoder {stated}, or --encoder {repository}"
        )
    library_name(encoder)
    path = next(filter(None, (hub_file(repository, name) for name in HUB_FILES)), None)
    if path is None:
        raise BadInputError(
            f"{repository} holds no weights, expected {' or '.join(HUB_FILES)} in it; "
            "choose another repository, or --weights FILE"
        )
    state, metadata = load_state_dict(path), weights_metadata(path)
    options |= options_in_metadata(metadata, encoder, repository)
    metadata = {"timm": stated} if stated else metadata
    return PretrainedStart(repository, {ARCHITECTURE: encoder} | options, state, metadata)


def _hub_architecture(repository: str) -> tuple[str, Metadata]:
    """Return the timm architecture that a repository holds, ``""`` if unknown, and its options."""
    path = hub_file(repository, "config.json")
    try:
        config = {} if path is None else json.loads(path.read_text())
        options = dict(config.get("model_args") or {})
        architecture = str(config.get("architecture") or "")
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInputError(
            f"{repository} has a damaged config.json ({error}), expected one as timm writes it; "
            "choose another repository"
        ) from error
    return architecture, {key: v for key, v in options.items() if key not in SET_BY_US}


def hub_file(name: str, file: str) -> Path | None:
    """Return a file of ``hf-hub:OWNER/NAME[@REVISION]``, from the hub's cache or fetched into it.

    None if the repository has no such file; ``BadInputError`` if it cannot be reached or read.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, revision = name.removeprefix(HUB).partition("@")
    try:
        return Path(hf_hub_download(repository, file, revision=revision or None))
    except Exception as error:  # of the hub's client and of the libraries below it
        missing = isinstance(error, EntryNotFoundError)
        if missing and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise hub_failure(error, name) from error


def hub_failure(error: Exception, name: str) -> BadInputError:
    """Return the error of a user whose weights cannot be fetched."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return BadInputError(
        f"the weights of {name} cannot be fetched from the hub ({reason[:200]}), expected a "
        f"connection and a repository {HUB}OWNER/NAME[@REVISION] that you may read; check the "
        "name, log in by `hf auth login`, or use --encoder tf_efficientnet_lite0 or --weights FILE"
    )


def options_in_metadata(metadata: Mapping[str, str], encoder: str, source: str) -> Metadata:
    """Return the encoder options that a weight file states: ``pad_type`` and ``img_size``.

    An image size (``224`` or ``96,160``) is left out where the encoder takes any size; a padding
    that the encoder does not have is refused: the weights would compute something else.
    """
    options: Metadata = {}
    if padding := metadata.get("pad_type"):
        if padding not in ("same", "valid"):
            raise _bad_metadata(source, "pad_type", padding, "'same' or 'valid'")
        if not _takes_option(encoder, "pad_type", padding):
            raise BadInputError(
                f"the weights {source} state pad_type = {padding!r}, expected an encoder that has "
                f"it, found {encoder}; name the encoder they were made for"
            )
        options["pad_type"] = padding
    if size := metadata.get("img_size"):
        sides = [int(side) for side in size.split(",") if side.strip().isdecimal()]
        if len(sides) != size.count(",") + 1 or len(sides) > 2 or 0 in sides:
            raise _bad_metadata(source, "img_size", size, "one number of pixels, or two as 96,160")
        value = sides[0] if len(sides) == 1 else sides
        if _takes_option(encoder, "img_size", value):
            options["img_size"] = value
    return options


def _bad_metadata(source: str, name: str, found: str, expected: str) -> BadInputError:
    return BadInputError(
        f"the weights {source} state {name} = {found[:60]!r} in their metadata, expected "
        f"{expected}; write them again with the right one"
    )


def _takes_option(encoder: str, option: str, value: object) -> bool:
    """Whether timm builds an encoder with an option."""
    import timm

    name = library_name(encoder)
    if not name.startswith("tu-"):
        return False
    try:
        with torch.device("meta"):
            timm.create_model(name.removeprefix("tu-"), **{option: value})
    except TypeError as error:
        return option not in str(error)
    except Exception:  # some cannot be built without memory; building the network will show it
        return True
    return True
