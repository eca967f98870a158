"""Opening a model of any form, and saving it in the form it came in."""

import importlib
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from evenslice.errors import BadInputError, corrupt_metadata
from evenslice.model.checkpoint import (
    has_metadata,
    load_model,
    load_state,
    model_metadata,
    save_model,
    with_metadata,
)
from evenslice.model.export import read_exported, write_exported
from evenslice.model.external import wrap_external
from evenslice.model.logits import AllOutputs, LogitsAdapter, duplicate
from evenslice.model.source import CALLABLE, ENDINGS, checked_form, form_of
from evenslice.model.spec import ExternalSpec, Model
from evenslice.model.stem.find import check_kind
from evenslice.options import JsonObject, ModelOptions
from evenslice.volume.array import Volume
from evenslice.volume.inputs import fingerprint
from evenslice.volume.normalisation import Normalisation, estimate, measure_intensities
from evenslice.volume.windows import check_slices

ModelLike = Model | str | Path
COMPARED_BLOCKS = 16  # of a volume, with those that a model was trained on


def model_of(
    source: ModelLike | nn.Module, options: ModelOptions | None = None, **changes: Any
) -> Model:
    """Load a model of any form, or take one as it is.

    ``source`` is a model; a network, of which a float32 copy on the CPU is taken; a file of ours
    (``.safetensors``); ``package.module:callable``, whose code is run, with ``@FILE`` for the
    weights to load into it; a ``.pt2`` of torch.export; an ``.onnx``. ``options`` and ``changes``
    say how an external model is to be taken; what a file says itself is checked against them.

    ``BadInputError`` if it is none of these or cannot be used.
    """
    options = type(options or ModelOptions()).of(options, changes)
    slices = options.slices
    if slices is not None:
        check_slices(slices)
    if isinstance(source, nn.Module):
        check_kind(source)
        network, name = duplicate(source).float().cpu().eval(), type(source).__name__
        model = wrap_external(network, "callable", name, slices, options.answer, options.probe)
    else:
        model = source if isinstance(source, Model) else _load(str(source), options)
    if slices is not None and slices != model.slices:
        raise BadInputError(
            f"--slices is {slices}, expected {model.slices} as {source} says; leave it out"
        )
    given = given_normalisation(options.mean, options.std, model.slices)
    return model if given is None else replace(model, normalisation=given).with_tta(model.tta)


def _load(source: str, options: ModelOptions) -> Model:
    form, path = checked_form(source), Path(source)
    if form == "evenslice":
        return load_model(path)
    if form == "callable":
        return _load_callable(source, options)
    network, metadata = _read_onnx(path) if form == "onnx" else read_exported(path, options.trust)
    spec = metadata.get("spec") or {}
    try:
        answer, probe = options.answer or spec.get("answer"), options.probe or spec.get("probe")
        if metadata.get("export"):
            answer = options.answer  # that of the network before the export
        model = wrap_external(network, form, source, options.slices, answer, probe)
        if not metadata:
            return replace(model, file=path)
        assert isinstance(model.spec, ExternalSpec)
        stem = metadata.get("stem") or {}
        own = replace(model.spec, init=stem.get("init", "unknown"), tie=stem.get("tie", "none"))
    except (AttributeError, TypeError) as error:
        raise corrupt_metadata(source, repr(error)) from error
    if metadata.get("export") and isinstance(model.module, LogitsAdapter):
        # export writes logits, also where they all happen to lie in 0..1
        model.module.probabilities = False
        own = replace(own, answers="logits")
    return with_metadata(replace(model, spec=own, file=path), metadata, source)


def _read_onnx(path: Path) -> tuple[nn.Module, JsonObject]:
    try:
        from evenslice.model.onnx_file import read_onnx
    except ImportError as error:
        raise BadInputError(
            f"{path} is an ONNX model and {error.name or 'onnx'} is not installed, expected onnx "
            "and onnxruntime; install evenslice[onnx]"
        ) from error
    return read_onnx(path)


def _load_callable(source: str, options: ModelOptions) -> Model:
    """Make the network that ``package.module:callable`` returns, which runs that code; fill it."""
    found = CALLABLE.match(source)
    assert found is not None
    name, weights = f"{found['module']}:{found['name']}", found["file"] and Path(found["file"])
    with redirect_stdout(sys.stderr):  # what their code prints would spoil JSON on standard output
        network = _call(_import(found["module"], found["name"]), name).float().cpu().eval()
        if weights and (has_metadata(weights) or not weights.is_file()):
            return load_model(weights, network, options.answer, options.probe)
        if weights:
            load_state(network, weights)
        return wrap_external(
            network, "callable", name, options.slices, options.answer, options.probe
        )


def _import(module: str, name: str) -> Any:
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        thing: Any = importlib.import_module(module)
        for part in name.split("."):
            thing = getattr(thing, part)
    except (Exception, SystemExit) as error:  # importing runs code, which may raise anything
        raise BadInputError(
            f"{module}:{name} cannot be imported ({type(error).__name__}: {error}), expected a "
            f"function in a module that python finds from {here}; check the name, or install the "
            "package"
        ) from error
    finally:
        if added:  # what is imported later must not come from this folder
            sys.path.remove(here)
            sys.path.append(here)
    if isinstance(thing, nn.Module) or not callable(thing):
        raise BadInputError(
            f"{module}:{name} is a {type(thing).__name__}, expected a function that returns a "
            "torch.nn.Module; name one"
        )
    return thing


def _call(make: Any, source: str) -> nn.Module:
    """Call a function of the user's; check that it returns a network that can be worked with."""
    try:
        network = make()
    except (Exception, SystemExit) as error:  # code of the user's may raise anything, and exit
        raise BadInputError(
            f"{source} failed ({type(error).__name__}: {error}), expected a function without "
            "arguments that returns a torch.nn.Module; fix it, or wrap it in one"
        ) from error
    if not isinstance(network, nn.Module):
        raise BadInputError(
            f"{source} returned a {type(network).__name__}, expected a torch.nn.Module; "
            "return the network itself"
        )
    check_kind(network)
    try:
        duplicate(network)
    except Exception as error:  # whatever an attribute of theirs raises
        raise BadInputError(
            f"the network of {source} cannot be copied ({str(error)[:200]}), expected a plain "
            "torch.nn.Module; keep open files and generators out of it, and use "
            "torch.nn.utils.remove_weight_norm or remove_spectral_norm where it has these"
        ) from error
    return network


def save(out: Path, model: Model, force: bool) -> None:
    """Write a model in the form it came in; ``force``: replace a file of that name."""
    ending = ending_of(model)
    if ending == ".onnx":
        from evenslice.model.onnx_file import write_onnx

        write_onnx(out, model.network, model_metadata(model), force)
    elif ending == ".pt2":
        assert isinstance(model.spec, ExternalSpec)
        write_exported(out, model.network, Path(model.spec.source), model_metadata(model), force)
    else:
        save_model(out, model, force)


def ending_of(model: Model) -> str:
    """Return the ending of a file that a model can be saved as."""
    form = model.spec.form if isinstance(model.spec, ExternalSpec) else "evenslice"
    return next((end for end, known in ENDINGS.items() if known == form), ".safetensors")


def name_of(source: ModelLike) -> str:
    """Return a short name for what is shown."""
    if isinstance(source, Model):
        return "model"
    return str(source) if form_of(source) == "callable" else Path(source).stem


def check_segments(model: Model) -> None:
    """Raise ``BadInputError`` unless a model predicts something for every pixel."""
    if isinstance(model.module, AllOutputs):
        raise BadInputError(
            f"{model.spec.to_dict()['source']} cannot segment: {model.module.reason} (inspect and "
            "fix without a volume take any network)"
        )


def given_normalisation(
    mean: Sequence[float] | None, std: Sequence[float] | None, slices: int
) -> Normalisation | None:
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


def trained_slices(model: Model, volume: Volume) -> set[int]:
    """Return which slices of this volume a model was trained on; empty for another volume."""
    training = model.training
    if not training:
        return set()
    own = fingerprint(volume)
    known = [v for v in training.get("volumes", [training]) if v.get("fingerprint") == own]
    return {z for each in known for start, stop in each["slices"] for z in range(start, stop)}


def intensity_warning(model: Model, volume: Volume, seed: int = 0) -> tuple[str, ...]:
    """Warn if a volume's intensities are far from those that a model was trained on or expects."""
    norm, training = model.normalisation, model.training
    found = measure_intensities(volume, seed, blocks=COMPARED_BLOCKS)
    if norm is None or np.isnan(found.mean):
        return ()
    if found.std == 0:
        return (f"{volume.source} is constant (every voxel read is {found.mean:g}); check it",)
    trained = bool(training) and norm.source == "file"
    known = (training.get("intensities") or {}) if trained else {}
    expected = replace(
        found,
        dtype=known.get("dtype", ""),
        mean=float(np.mean(norm.mean)),
        std=float(np.mean(norm.std)),
        skew=known.get("skew", 0.0),
    )
    if not found.differs(expected):
        return ()
    how = "was trained on" if trained else "is normalised by"
    return (
        f"{volume.source} has intensities of {found.text}, the model {how} {expected.text}, "
        "expected about the same and not inverted; scale the volume, or normalise it by its own "
        "numbers (segment --normalisation volume, or --mean and --std)",
    )
