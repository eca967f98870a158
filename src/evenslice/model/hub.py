"""The hub: what a repository of weights says it holds, its weights, and what is said when they cannot be had."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError

HUB = "hf-hub:"
CONFIG = "config.json"
FILES = ("model.safetensors", "pytorch_model.bin")
OURS = ("in_chans", "num_classes", "global_pool", "features_only", "out_indices", "output_stride", "pretrained")


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
        if isinstance(error, kinds.EntryNotFoundError) and not isinstance(error, kinds.LocalEntryNotFoundError):
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
    return all(isinstance(v, bool | int | float | str) for v in (value if isinstance(value, list) else [value]))


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
            kind = "asks for a login" if isinstance(cause, kinds.GatedRepoError) else "does not exist, or is private"
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
        isinstance(cause, OSError) or any(kind in type(cause).__module__ for kind in kinds) for cause in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> str:
    return str(getattr(getattr(error, "response", None), "status_code", "404"))
