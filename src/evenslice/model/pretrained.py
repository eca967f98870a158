"""Where a network starts from: the encoder to build, how, and the weights to put into it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evenslice.errors import BadInputError
from evenslice.model.encoders import ARCHITECTURE, library_name, with_tag
from evenslice.model.weights import BUNDLED, BUNDLED_DEPTH, read_weights

HUB = "hf-hub:"
CONFIG = "config.json"
FILES = ("model.safetensors", "pytorch_model.bin")
OURS = (
    "in_chans",
    "num_classes",
    "global_pool",
    "features_only",
    "out_indices",
    "output_stride",
    "pretrained",
)


def download(name: str, file: str) -> Path | None:
    """Fetch a file of a repository ``hf-hub:OWNER/NAME`` or ``hf-hub:OWNER/NAME@REVISION``, None if it has no such file.

    Raises
    ------
    BadInputError
        If the hub cannot be reached, or the repository cannot be read.
    """
    import huggingface_hub.utils

    kinds: Any = huggingface_hub.utils
    repository, _, revision = name.removeprefix(HUB).partition("@")
    try:
        return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision or None))
    except Exception as error:  # the hub's client raises kinds of its own
        if isinstance(error, kinds.EntryNotFoundError) and not isinstance(
            error, kinds.LocalEntryNotFoundError
        ):
            return None
        raise refusal(error, name) from error


def described(name: str) -> tuple[str, dict[str, Any]]:
    """Return the timm architecture that a repository holds, ``""`` if it does not say, and what that is built with.

    Raises
    ------
    BadInputError
        If it cannot be read.
    """
    path = download(name, CONFIG)
    try:
        config = {} if path is None else json.loads(path.read_text())
        architecture, args = config.get("architecture", ""), config.get("model_args", {})
        plain = {key: value for key, value in args.items() if key not in OURS and _is_plain(value)}
    except (ValueError, AttributeError) as error:
        raise BadInputError(
            f"{name} has a damaged {CONFIG} ({error}), expected one as timm writes it; choose another repository"
        ) from error
    return (architecture if isinstance(architecture, str) else ""), plain


def _is_plain(value: object) -> bool:
    return all(
        isinstance(v, bool | int | float | str)
        for v in (value if isinstance(value, list) else [value])
    )


def weights_file(name: str) -> Path:
    """Fetch the weights of a repository.

    Raises
    ------
    BadInputError
        If it cannot be read, or holds none under the usual names.
    """
    for file in FILES:
        path = download(name, file)
        if path is not None:
            return path
    raise BadInputError(
        f"{name} holds no weights, expected {' or '.join(FILES)} in it; choose another repository, or --weights FILE"
    )


def refusal(error: Exception, what: str) -> BadInputError:
    """Return the error of a user whose weights cannot be fetched."""
    import huggingface_hub.utils

    kinds: Any = huggingface_hub.utils
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
    for cause in _chain(error):
        if isinstance(cause, kinds.GatedRepoError | kinds.RepositoryNotFoundError):
            kind = (
                "asks for a login"
                if isinstance(cause, kinds.GatedRepoError)
                else "does not exist, or is private"
            )
            return BadInputError(
                f"the hub's repository of {what} {kind} (answer {_status(cause)}), expected one that may be read; check the name, "
                "log in by `hf auth login`, or use --weights FILE"
            )
        if isinstance(cause, kinds.RevisionNotFoundError | kinds.HFValidationError):
            return BadInputError(
                f"{what} names no repository and revision of the hub ({reason}), expected {HUB}OWNER/NAME or "
                f"{HUB}OWNER/NAME@REVISION; check the name"
            )
    return BadInputError(
        f"the weights of {what} cannot be fetched from the hub ({reason}), expected a connection; "
        "use --weights bundled, or --weights FILE with weights you have"
    )


def is_of_the_hub(error: Exception) -> bool:
    """Whether an error came from the network or the hub's client."""
    kinds = ("huggingface_hub", "httpx", "requests")
    return any(
        isinstance(cause, OSError) or any(kind in type(cause).__module__ for kind in kinds)
        for cause in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> str:
    return str(getattr(getattr(error, "response", None), "status_code", "404"))


__all__ = ["BUNDLED_DEPTH", "Start", "facts_as_options", "pretrained"]
PADDINGS = ("", "same", "valid")
LARGEST, LONGEST = 8192, 40


@dataclass(frozen=True)
class Start:
    """What a network starts from.

    Attributes
    ----------
    encoder
        What to record as its encoder: it names the weights as far as a name can.
    options
        What it is built with.
    state
        Weights to load, or None.
    facts
        What the file of the weights says about itself.
    by_library
        Whether timm or segmentation-models-pytorch fetch the weights themselves.
    """

    encoder: str
    options: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Tensor] | None = None
    facts: dict[str, str] = field(default_factory=dict)
    by_library: bool = False


def pretrained(encoder: str, weights: str) -> Start:
    """Find what to start from, fetching or reading weights where these are not fetched by the libraries.

    Parameters
    ----------
    encoder, weights
        See ``build_model``.

    Raises
    ------
    BadInputError
        If the weights cannot be had, or are not for this encoder as far as they say.
    """
    options: dict[str, Any] = {}
    if encoder.startswith(HUB):
        repository = encoder
        encoder, options = described(repository)
        if not encoder:
            raise BadInputError(
                f"{repository} does not say which architecture of timm it holds, expected a config.json that does; give the encoder "
                f"by its timm name, and --weights {repository}"
            )
        weights = repository if weights == "imagenet" else weights
    if weights.startswith(HUB):
        return _from_hub(encoder, weights)
    if weights == "imagenet":
        return Start(with_tag(encoder), options, by_library=True)
    if weights == "none":
        return Start(encoder, options)
    if weights == "bundled" and encoder != "resnet18":
        raise BadInputError(
            f"the bundled weights are for the encoder resnet18, found {encoder!r}; use --encoder resnet18 or other weights"
        )
    state, facts = read_weights(BUNDLED if weights == "bundled" else Path(weights))
    return Start(encoder, options | facts_as_options(facts, encoder, weights), state, facts)


def _from_hub(encoder: str, repository: str) -> Start:
    said, options = described(repository)
    bare = encoder.partition(".")[0]
    if (
        said
        and not encoder.startswith("smp:")
        and said.partition(".")[0] != bare.removeprefix("tu-")
    ):
        raise BadInputError(
            f"{repository} holds weights of {said}, expected those of {encoder}; use --encoder {said}, or --encoder {repository}"
        )
    library_name(encoder)
    state, facts = read_weights(weights_file(repository))
    options |= facts_as_options(facts, encoder, repository)
    return Start(
        repository, {ARCHITECTURE: encoder} | options, state, {"timm": said} if said else facts
    )


def facts_as_options(facts: Mapping[str, str], encoder: str, source: str) -> dict[str, Any]:
    """Return how an encoder is built for what a file says about itself: ``pad_type`` and ``img_size`` (``224`` or ``96,160``).

    An image size is left out where the encoder takes any size anyway; a padding that the encoder does not have is refused, since
    the weights would compute something else without it.

    Raises
    ------
    BadInputError
        If a fact is not as expected.
    """
    options: dict[str, Any] = {}
    padding, size = facts.get("pad_type"), facts.get("img_size")
    if padding is not None:
        if padding not in PADDINGS:
            raise _bad_fact(source, "pad_type", padding, "'', 'same' or 'valid'")
        if _takes(encoder, "pad_type", padding):
            options["pad_type"] = padding
        elif padding:
            raise BadInputError(
                f"the weights {source} state pad_type = {padding[:60]!r}, expected an encoder that has it, found {encoder}; name the "
                "encoder they were made for"
            )
    if size is not None:
        sides = (
            [int(side) for side in size.split(",") if side.strip().isdecimal()]
            if len(size) < LONGEST
            else []
        )
        if (
            len(sides) != len(size.split(","))
            or len(sides) > 2
            or not all(0 < side <= LARGEST for side in sides)
        ):
            raise _bad_fact(source, "img_size", size, "one number of pixels, or two as 96,160")
        value = sides[0] if len(sides) == 1 else sides
        if _takes(encoder, "img_size", value):
            options["img_size"] = value
    return options


def _bad_fact(source: str, name: str, found: str, expected: str) -> BadInputError:
    return BadInputError(
        f"the weights {source} state {name} = {found[:60]!r} in their metadata, expected {expected}; write them again with the right one"
    )


def _takes(encoder: str, option: str, value: object) -> bool:
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
    except Exception:  # some networks cannot be built without memory; then building it will tell
        return True
    return True
