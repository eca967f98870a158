"""What a verb accepts as a model, in each of its forms, made ready to run."""

import copy
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evenslice.errors import BadInputError
from evenslice.model.checkpoint import (
    has_metadata,
    load_model,
    load_state,
    model_fields,
    model_metadata,
    read_metadata,
    save_model,
)
from evenslice.model.external import form_of, load_callable, wrap_external
from evenslice.model.logits import LogitsAdapter
from evenslice.model.metadata import corrupt_metadata
from evenslice.model.spec import ExternalSpec, Model, Spec
from evenslice.model.stem.find import check_kind
from evenslice.volume.array import Roi, Volume, as_volume
from evenslice.volume.files import open_volume, split_container
from evenslice.volume.normalisation import Normalisation, estimate
from evenslice.volume.windows import check_slices
from evenslice.volume.zarr_reader import in_store

VolumeLike = Volume | NDArray[Any] | str | Path
HASHED_SIDE = 4096
_SPAN = re.compile(r"\s*(\d{0,18})\s*:\s*(\d{0,18})\s*")


def volume_of(source: VolumeLike) -> Volume:
    """Open a path, or take a volume or array as it is."""
    return open_volume(source) if isinstance(source, (str, Path)) else as_volume(source)


def check_same_shape(volume: Volume, labels: Volume) -> None:
    """Raise ``BadInputError`` unless labels lie voxel for voxel on the volume."""
    if volume.shape != labels.shape:
        raise BadInputError(
            f"{labels.source} has shape {labels.shape}, expected {volume.shape} like {volume.source}; give labels of the same volume"
        )


def voxel_warning(volume: Volume, other: Volume) -> tuple[str, ...]:
    """Say so when two volumes that lie on each other both state a voxel size and these differ by more than 1 %."""
    ours, theirs = volume.voxel_nm, other.voxel_nm
    if (
        ours is None
        or theirs is None
        or all(abs(a - b) <= 0.01 * b for a, b in zip(ours, theirs, strict=True))
    ):
        return ()
    sizes = [" x ".join(f"{side:g}" for side in size) for size in (ours, theirs)]
    return (
        f"{volume.source} has voxels of {sizes[0]} nm, {other.source} of {sizes[1]} nm (z, y, x), expected the same; "
        "check that both show the same volume",
    )


def check_apart(out: Path, *inputs: Any) -> None:
    """Raise ``BadInputError`` if the result would lie in, on or around something that is read."""
    for source in inputs:
        if not isinstance(source, (str, Path)):
            continue
        for part in (str(source), str(source).partition("@")[2], str(split_container(source)[0])):
            place, target = Path(part).resolve(), out.resolve()
            if part and (
                place == target
                or target in place.parents
                or (place in target.parents and in_store(place))
            ):
                raise BadInputError(
                    f"{out} is read by this command ({source}), expected a place of its own; choose another name"
                )


def check_threshold(threshold: float) -> None:
    """Raise ``BadInputError`` unless the threshold is a probability."""
    if not 0 <= threshold <= 1:
        raise BadInputError(
            f"the threshold is {threshold}, expected a probability from 0 to 1; use for example 0.5"
        )


def device_of(name: str) -> torch.device:
    """Return the device called ``auto``, ``cpu`` or ``cuda``; ``auto`` is a GPU where there is one."""
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
    """Read ``A:B`` as a slice of an axis of ``size`` voxels; a missing end means the end of the axis."""
    found = _SPAN.fullmatch(text)
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
    z, y, x = (
        parse_span(p, n, f"--roi along {a}") for p, n, a in zip(parts, shape, "zyx", strict=True)
    )
    return z, y, x


def fingerprint(volume: Volume, side: int = HASHED_SIDE) -> str:
    """Return a short hash of a volume's shape, type and three of its slices (at most ``side`` squared of each), to recognise it again."""
    depth = volume.shape[0]
    digest = hashlib.sha256(f"{volume.shape} {volume.dtype}".encode())
    corner = slice(0, side)
    for z in sorted({0, depth // 2, depth - 1}):
        digest.update(
            np.ascontiguousarray(volume.read((slice(z, z + 1), corner, corner))).tobytes()
        )
    return digest.hexdigest()[:16]


def trained_slices(model: Model, volume: Volume) -> set[int]:
    """Return which slices of this volume the model was trained on, alone or with others; empty for another volume."""
    training = model.training
    if not training:
        return set()
    own = fingerprint(volume)
    known = [
        record for record in training.get("volumes", [training]) if record.get("fingerprint") == own
    ]
    return {z for record in known for start, stop in record["slices"] for z in range(start, stop)}


def spans_of(zs: list[int]) -> list[list[int]]:
    """Return rising slice numbers as spans [start, stop]."""
    spans: list[list[int]] = []
    for z in zs:
        if spans and spans[-1][1] == z:
            spans[-1][1] = z + 1
        else:
            spans.append([z, z + 1])
    return spans


ModelLike = Model | str | Path
Numbers = Sequence[float] | None


def model_of(
    source: ModelLike, slices: int | None = None, mean: Numbers = None, std: Numbers = None
) -> Model:
    """Load a model of any form, or take one as it is.

    Parameters
    ----------
    source
        A model; a file of ours (``.safetensors``); ``package.module:callable``, whose code is run, with ``@FILE`` for the
        weights to load into it; a ``.pt2`` of torch.export; an ``.onnx``.
    slices
        S, where a foreign network does not say it; checked otherwise.
    mean, std
        Normalisation in raw intensity units, one number or S, in place of the file's; both or neither.

    Raises
    ------
    BadInputError
        If it is none of these or cannot be used.
    """
    if slices is not None:
        check_slices(slices)
    model = source if isinstance(source, Model) else _loaded(str(source), slices)
    if slices is not None and slices != model.slices:
        raise BadInputError(
            f"--slices is {slices}, expected {model.slices} as {source} says; leave it out"
        )
    given = given_normalisation(mean, std, model.slices)
    return model if given is None else model.with_facts(normalisation=given).with_tta(model.tta)


def wrapped_module(module: nn.Module, slices: int | None = None) -> Model:
    """Take a network that the user holds: a float32 copy of it on the CPU, in eval mode, and how it is called.

    Raises
    ------
    BadInputError
        If it is no network that can be run and watched.
    """
    check_kind(module)
    return wrap_external(
        copy.deepcopy(module).float().cpu().eval(), "callable", type(module).__name__, slices
    )


def name_of(source: ModelLike) -> str:
    """Return a short name for what is shown."""
    if isinstance(source, Model):
        return "model"
    return str(source) if form_of(source) == "callable" else Path(source).stem


def given_normalisation(mean: Numbers, std: Numbers, slices: int) -> Normalisation | None:
    """Make a normalisation of the options ``mean`` and ``std``; None if neither is given."""
    if (mean is None) != (std is None):
        raise BadInputError(
            "only one of mean and std was given, expected both or neither; give both"
        )
    if mean is None or std is None:
        return None
    if len(mean) not in (1, slices):
        raise BadInputError(
            f"{len(mean)} means were given, expected 1 or {slices} (one a slot); give one number"
        )
    return Normalisation(tuple(float(m) for m in mean), tuple(float(s) for s in std), "option")


def normalised_by(model: Model, volume: Volume, seed: int) -> Model:
    """Return a model that has a normalisation: its own, else the volume's mean and std (source ``volume``)."""
    if model.normalisation is not None:
        return model
    return model.with_facts(normalisation=estimate(volume, seed)).with_tta(model.tta)


def check_segments(model: Model) -> None:
    """Raise ``BadInputError`` unless a model predicts something for every pixel."""
    if model.spec.classes == 0:
        assert isinstance(model.spec, ExternalSpec)
        raise BadInputError(
            f"{model.spec.source} returns no prediction (B, classes, y, x) that lies on its input, expected a network that "
            "segments; name one that does (inspect and fix without a volume take any network)"
        )


def check_name(model: Model, out: Path) -> None:
    """Raise ``BadInputError`` unless a model of this form can be saved under this name."""
    endings = {"torch-export": ".pt2", "onnx": ".onnx"}
    ending = (
        endings.get(model.spec.form, ".safetensors")
        if isinstance(model.spec, ExternalSpec)
        else ".safetensors"
    )
    if out.suffix != ending:
        raise BadInputError(
            f"{out} has the ending {out.suffix or '(none)'!r}, expected {ending} for this model; rename it"
        )


def save(out: Path, model: Model, force: bool) -> None:
    """Write a model in the form it came in: an exported file stays one, with what we note added to it; ``force``: replace one."""
    form = model.spec.form if isinstance(model.spec, ExternalSpec) else "evenslice"
    if isinstance(model.spec, ExternalSpec) and form == "torch-export":
        from evenslice.model.exported import write_exported

        write_exported(out, model.network, Path(model.spec.source), model_metadata(model), force)
    elif form == "onnx":
        from evenslice.model.onnx_file import OnnxNetwork, write_onnx

        assert isinstance(model.network, OnnxNetwork)
        write_onnx(out, model.network, model_metadata(model), force)
    else:
        save_model(out, model, force)


def _loaded(source: str, slices: int | None) -> Model:
    form = form_of(source)
    if form == "evenslice":
        return load_model(source)
    if form == "callable":
        return _made(source, slices)
    if form is None:
        raise BadInputError(
            f"{source} is not a model file, expected a .safetensors of evenslice, package.module:callable, .pt2 or .onnx; check it"
        )
    from evenslice.model.exported import image_shape

    path = Path(source)
    if not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        raise BadInputError(f"{path} {found}, expected a {path.suffix} file; check the path")
    if form == "torch-export":
        from evenslice.model.exported import read_exported

        module, about = read_exported(path)
    else:
        from evenslice.model.onnx_file import read_onnx

        module, about = read_onnx(path)
    return _noted(
        wrap_external(module, form, source, slices, image_shape(module)), about
    ).with_facts(file=path)


def _made(source: str, slices: int | None) -> Model:
    model, weights = load_callable(source, None if "@" in source else slices)
    if weights is None:
        return model
    if weights.is_file() and not has_metadata(weights):  # plain weights of the user's own
        load_state(model.network, weights)
        return wrap_external(
            model.network, "callable", model.spec.to_dict()["source"], model.slices
        )
    about = read_metadata(weights)
    spec = about.get("spec")
    if isinstance(spec, dict) and spec.get("built") not in (None, model.slices):
        raise BadInputError(
            f"{weights} holds weights for a network of {spec['built']} slices ({spec.get('source')}), expected {model.slices} as "
            f"{model.spec.to_dict()['source']} makes; name the function it was made with"
        )
    return load_model(weights, model.network)


def _noted(model: Model, about: dict[str, Any]) -> Model:
    """Add what evenslice noted in an exported file when it wrote it."""
    if not about:
        return model
    source = model.spec.to_dict()["source"]
    facts = model_fields(about, source)
    if "tta" not in about:
        raise corrupt_metadata(source, "it has no tta")
    spec = _with_stem(model.spec, about.get("stem"), source)
    if (
        about.get("export")
        and isinstance(model.module, LogitsAdapter)
        and isinstance(spec, ExternalSpec)
    ):
        model.module.probabilities = (
            False  # export writes logits, also where they all happen to lie in 0..1
        )
        spec = replace(spec, answers="logits")
    return model.with_facts(spec=spec, **facts).with_tta(about["tta"])


def _with_stem(spec: Spec | ExternalSpec, noted: Any, source: str) -> Spec | ExternalSpec:
    """Add to a foreign spec how its stem was made and tied, where the file says so."""
    if not isinstance(noted, dict):
        return spec
    try:
        return replace(spec, init=noted.get("init", "unknown"), tie=noted.get("tie", "none"))
    except (TypeError, BadInputError) as error:
        raise corrupt_metadata(source, error) from error
