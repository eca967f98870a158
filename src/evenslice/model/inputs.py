"""What a verb accepts: models in each of their forms, volumes, parts of them, and devices."""

import copy
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from evenslice.errors import BadInputError
from evenslice.model.checkpoint import (
    has_metadata,
    load_model,
    load_state,
    model_metadata,
    read_metadata,
    save_model,
    with_metadata,
)
from evenslice.model.exported import image_shape, is_exported, read_exported, write_exported
from evenslice.model.external import ENDINGS, form_of, load_callable, wrap_external
from evenslice.model.logits import LogitsAdapter
from evenslice.model.metadata import corrupt_metadata
from evenslice.model.onnx_file import OnnxNetwork, read_onnx, write_onnx
from evenslice.model.spec import ExternalSpec, Model
from evenslice.model.stem.find import check_kind
from evenslice.options import JsonObject
from evenslice.volume.array import Roi, Volume, Voxels, as_volume
from evenslice.volume.files import open_volume, split_container
from evenslice.volume.normalisation import Normalisation, estimate
from evenslice.volume.windows import check_slices
from evenslice.volume.zarr_reader import in_store

ModelLike = Model | str | Path
VolumeLike = Volume | Voxels | str | Path
Numbers = Sequence[float] | None
HASHED_SIDE = 4096
SPAN = re.compile(r"\s*(\d{0,18})\s*:\s*(\d{0,18})\s*")


def volume_of(source: VolumeLike) -> Volume:
    """Open a path, or take a volume or array as it is."""
    return open_volume(source) if isinstance(source, (str, Path)) else as_volume(source)


def model_of(
    source: ModelLike,
    slices: int | None = None,
    mean: Numbers = None,
    std: Numbers = None,
    trust: bool = False,
) -> Model:
    """Load a model of any form, or take one as it is.

    Parameters
    ----------
    source
        A model; a file of ours (``.safetensors``); ``package.module:callable``, whose code is run,
        with ``@FILE`` for the weights to load into it; a ``.pt2`` of torch.export; an ``.onnx``.
    slices
        S, where an external network does not say it; checked otherwise.
    mean, std
        Normalisation in raw intensity units, one number or S, in place of the file's; both or
        neither.
    trust
        Whether a file that can run code when it is opened, a ``.pt2``, may be opened.

    Raises
    ------
    BadInputError
        If it is none of these or cannot be used.
    """
    if slices is not None:
        check_slices(slices)
    model = source if isinstance(source, Model) else _load(str(source), slices, trust)
    if slices is not None and slices != model.slices:
        raise BadInputError(
            f"--slices is {slices}, expected {model.slices} as {source} says; leave it out"
        )
    given = given_normalisation(mean, std, model.slices)
    return model if given is None else replace(model, normalisation=given).with_tta(model.tta)


def _load(source: str, slices: int | None, trust: bool) -> Model:
    form, path = form_of(source), Path(source)
    if form == "evenslice":
        return load_model(path)
    if form == "callable":
        return _load_callable(source, slices)
    if form is None or not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        raise BadInputError(
            f"{source} {'is not a model file' if form is None else found}, expected a .safetensors "
            "of evenslice, package.module:callable, .pt2 or .onnx; check the path"
        )
    network, metadata = read_exported(path, trust) if form == "torch-export" else read_onnx(path)
    model = wrap_external(network, form, source, slices, image_shape(network))
    return replace(_with_exported_metadata(model, metadata, source), file=path)


def _load_callable(source: str, slices: int | None) -> Model:
    model, weights = load_callable(source, None if "@" in source else slices)
    if weights is None:
        return model
    assert isinstance(model.spec, ExternalSpec)
    if weights.is_file() and not has_metadata(weights):  # plain weights of the user's own
        load_state(model.network, weights)
        return wrap_external(model.network, "callable", model.spec.source, model.slices)
    spec = read_metadata(weights).get("spec")
    if isinstance(spec, dict) and spec.get("built") not in (None, model.slices):
        raise BadInputError(
            f"{weights} holds weights for a network of {spec['built']} slices "
            f"({spec.get('source')}), expected {model.slices} as {model.spec.source} makes; "
            "name the function it was made with"
        )
    return load_model(weights, model.network)


def _with_exported_metadata(model: Model, metadata: JsonObject, source: str) -> Model:
    """Add what evenslice wrote in an exported file."""
    if not metadata:
        return model
    assert isinstance(model.spec, ExternalSpec)
    spec = model.spec
    try:
        stem = metadata.get("stem") or {}
        spec = replace(spec, init=stem.get("init", "unknown"), tie=stem.get("tie", "none"))
    except (AttributeError, TypeError) as error:
        raise corrupt_metadata(source, repr(error)) from error
    if metadata.get("export") and isinstance(model.module, LogitsAdapter):
        # export writes logits, also where they all happen to lie in 0..1
        model.module.probabilities = False
        spec = replace(spec, answers="logits")
    return with_metadata(replace(model, spec=spec), metadata, source)


def wrapped_module(module: nn.Module, slices: int | None = None) -> Model:
    """Take a network that the user holds: a float32 copy of it on the CPU, in eval mode.

    Raises
    ------
    BadInputError
        If it is no network that can be run and watched.
    """
    check_kind(module)
    network = copy.deepcopy(module).float().cpu().eval()
    return wrap_external(network, "callable", type(module).__name__, slices)


def save(out: Path, model: Model, force: bool) -> None:
    """Write a model in the form it came in; ``force``: replace a file of that name."""
    if isinstance(model.network, OnnxNetwork):
        write_onnx(out, model.network, model_metadata(model), force)
    elif isinstance(model.spec, ExternalSpec) and is_exported(model.network):
        write_exported(out, model.network, Path(model.spec.source), model_metadata(model), force)
    else:
        save_model(out, model, force)


def check_name(model: Model, out: Path) -> None:
    """Raise ``BadInputError`` unless a model of this form can be saved under this name."""
    form = model.spec.form if isinstance(model.spec, ExternalSpec) else "evenslice"
    endings = {form: ending for ending, form in ENDINGS.items()}
    ending = endings.get(form, ".safetensors")
    if out.suffix != ending:
        raise BadInputError(
            f"{out} has the ending {out.suffix or '(none)'!r}, expected {ending} for this model; "
            "rename it"
        )


def name_of(source: ModelLike) -> str:
    """Return a short name for what is shown."""
    if isinstance(source, Model):
        return "model"
    return str(source) if form_of(source) == "callable" else Path(source).stem


def check_segments(model: Model) -> None:
    """Raise ``BadInputError`` unless a model predicts something for every pixel."""
    if model.spec.classes == 0:
        raise BadInputError(
            f"{model.spec.to_dict()['source']} returns no prediction (B, classes, y, x) that lies "
            "on its input, expected a network that segments; name one that does (inspect and fix "
            "without a volume take any network)"
        )


def given_normalisation(mean: Numbers, std: Numbers, slices: int) -> Normalisation | None:
    """Make a normalisation of the options ``mean`` and ``std``; None if neither is given."""
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise BadInputError(
            "only one of mean and std was given, expected both or neither; give both"
        )
    if len(mean) not in (1, slices):
        raise BadInputError(
            f"{len(mean)} means were given, expected 1 or {slices} (one per slot); give one number"
        )
    return Normalisation(tuple(float(m) for m in mean), tuple(float(s) for s in std), "option")


def normalised_by(model: Model, volume: Volume, seed: int) -> Model:
    """Return a model with a normalisation: its own, else the volume's (source ``volume``)."""
    if model.normalisation is not None:
        return model
    return replace(model, normalisation=estimate(volume, seed)).with_tta(model.tta)


def check_same_shape(volume: Volume, labels: Volume) -> None:
    """Raise ``BadInputError`` unless labels lie voxel for voxel on the volume."""
    if volume.shape != labels.shape:
        raise BadInputError(
            f"{labels.source} has shape {labels.shape}, expected {volume.shape} like "
            f"{volume.source}; give labels of the same volume"
        )


def voxel_warning(volume: Volume, other: Volume) -> tuple[str, ...]:
    """Warn if two volumes that lie on each other state voxel sizes that differ by more than 1 %."""
    one, two = volume.voxel_nm, other.voxel_nm
    if one is None or two is None or np.allclose(one, two, rtol=0.01, atol=0):
        return ()
    sizes = [" x ".join(f"{side:g}" for side in size) for size in (one, two)]
    return (
        f"{volume.source} has voxels of {sizes[0]} nm, {other.source} of {sizes[1]} nm (z, y, x), "
        "expected the same; check that both show the same volume",
    )


def check_apart(out: Path, *inputs: Any) -> None:
    """Raise ``BadInputError`` if the result would lie in, on or around something that is read."""
    target = out.resolve()
    for source in inputs:
        if not isinstance(source, (str, Path)):
            continue
        for part in (str(source), str(source).partition("@")[2], str(split_container(source)[0])):
            place = Path(part).resolve()
            inside = place in target.parents and in_store(place)
            if part and (place == target or target in place.parents or inside):
                raise BadInputError(
                    f"{out} is read by this command ({source}), expected a place of its own; "
                    "choose another name"
                )


def device_of(name: str) -> torch.device:
    """Return the device ``auto``, ``cpu`` or ``cuda``; ``auto`` is a GPU where there is one."""
    if name not in ("auto", "cpu", "cuda"):
        raise BadInputError(
            f"the device {name!r} is unknown, expected auto, cpu or cuda; choose one"
        )
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInputError(
            "no CUDA device was found, expected one for --device cuda; use --device cpu or auto"
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def parse_span(text: str, size: int, name: str) -> slice:
    """Read ``A:B`` as a slice of an axis of ``size`` voxels; a missing end is that of the axis."""
    found = SPAN.fullmatch(text)
    if found is None:
        raise BadInputError(
            f"{name} is {text[:60]!r}, expected START:STOP in voxels such as 0:10; write it so"
        )
    start, stop = int(found[1] or 0), int(found[2] or size)
    if not 0 <= start < stop <= size:
        raise BadInputError(f"{name} is {text!r}, expected a part of 0:{size}; choose one inside")
    return slice(start, stop)


def parse_roi(text: str | None, shape: tuple[int, int, int]) -> Roi:
    """Read ``Z0:Z1,Y0:Y1,X0:X1`` as a box of a volume; None is all of it."""
    parts = [":", ":", ":"] if text is None else text.split(",")
    if len(parts) != 3:
        raise BadInputError(
            f"--roi is {str(text)[:60]!r}, expected Z0:Z1,Y0:Y1,X0:X1 in voxels; write it so"
        )
    spans = zip(parts, shape, "zyx", strict=True)
    z, y, x = (parse_span(part, size, f"--roi along {axis}") for part, size, axis in spans)
    return z, y, x


def fingerprint(volume: Volume, side: int = HASHED_SIDE) -> str:
    """Return a short hash of a volume's shape, type and three slices, to recognise it again.

    At most ``side`` squared of each slice.
    """
    depth, corner = volume.shape[0], slice(0, side)
    digest = hashlib.sha256(f"{volume.shape} {volume.dtype}".encode())
    for z in sorted({0, depth // 2, depth - 1}):
        values = volume.read((slice(z, z + 1), corner, corner))
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


def trained_slices(model: Model, volume: Volume) -> set[int]:
    """Return which slices of this volume a model was trained on; empty for another volume."""
    training = model.training
    if not training:
        return set()
    own = fingerprint(volume)
    known = [v for v in training.get("volumes", [training]) if v.get("fingerprint") == own]
    return {z for each in known for start, stop in each["slices"] for z in range(start, stop)}


def spans_of(zs: list[int]) -> list[list[int]]:
    """Return rising slice numbers as spans [start, stop]."""
    spans: list[list[int]] = []
    for z in zs:
        if spans and spans[-1][1] == z:
            spans[-1][1] = z + 1
        else:
            spans.append([z, z + 1])
    return spans
