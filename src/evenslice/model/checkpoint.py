"""The model file: safetensors with plain weights and, as JSON metadata, all that using it needs."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from evenslice.errors import BadInputError, corrupt_metadata
from evenslice.model.build import rebuild
from evenslice.model.encoders import size_of, stride_of
from evenslice.model.external import wrap_external
from evenslice.model.spec import ExternalSpec, Metadata, Model, Spec
from evenslice.model.stem.adapt import widen_stem
from evenslice.model.stem.find import find_stems
from evenslice.model.stem.slots import distances, norms_per_slot, slot_pattern, stem_asymmetry
from evenslice.model.weights import (
    load_state_dict,
    under_prefix,
    weights_metadata,
    without_wrapper_prefixes,
)
from evenslice.options import JsonObject
from evenslice.volume.atomic import written_beside
from evenslice.volume.inputs import spans_in
from evenslice.volume.normalisation import Normalisation

KEY = "evenslice"
SCHEMA = "evenslice.model/1"
LARGEST = 4 * 2**20  # bytes of JSON


def baked_state(module: nn.Module) -> dict[str, Tensor]:
    """Return plain weights: ties applied, names as without them, no shared memory."""
    state: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        owner, _, rest = name.partition("parametrizations.")
        weight, _, part = rest.partition(".")
        if not rest:
            state[name] = tensor
        elif part == "original":
            state[owner + weight] = getattr(module.get_submodule(owner.rstrip(".")), weight)
    seen: set[int] = set()
    for name, tensor in state.items():
        plain = tensor.detach().cpu().contiguous()
        address = plain.untyped_storage().data_ptr()
        state[name] = plain.clone() if address in seen else plain
        seen.add(address)
    return state


def stem_record(model: Model) -> list[Metadata]:
    """Describe a model's stems: module, kind, norm per slot, distance from symmetry."""
    records = []
    for stem in find_stems(model.network, model.slices):
        uniform, mirror = distances(stem)
        records.append(
            {
                "module": stem.name,
                "kind": stem.kind,
                "layer": stem.description,
                "norms": norms_per_slot(stem),
                "from_uniform": uniform,
                "from_mirror": mirror,
                "pattern": slot_pattern(stem),
                "asymmetry": stem_asymmetry(stem),
            }
        )
    return records


def normalisation_record(norm: Normalisation | None) -> Metadata | None:
    """Describe a normalisation as JSON: one number each where all slots are treated alike."""
    if norm is None:
        return None
    mean, std = (norm.mean[0], norm.std[0]) if norm.uniform else (list(norm.mean), list(norm.std))
    return {"uniform": norm.uniform, "mean": mean, "std": std, "source": norm.source}


def model_metadata(model: Model) -> Metadata:
    """Return all that is written beside the weights."""
    norm = model.normalisation
    return {
        "schema": SCHEMA,
        "spec": model.spec.to_dict(),
        "normalisation": None if norm is None else {"mean": norm.mean, "std": norm.std},
        "stem": {"init": model.spec.init, "tie": model.spec.tie, "modules": stem_record(model)},
        "training": model.training,
        "scores": model.scores,
        "certificate": model.certificate,
        "tta": model.tta,
        "provenance": model.provenance,
    }


def save_model(path: str | Path, model: Model, force: bool = True) -> None:
    """Write a model file; it appears under its name only when it is complete.

    Raises
    ------
    BadInputError
        If the name does not end in ``.safetensors``, or such a file exists and ``force`` is False.

    Examples
    --------
    >>> from evenslice import build_model
    >>> save_model("model.safetensors", build_model(weights="none", encoder_depth=3, tie="mirror"))
    >>> load_model("model.safetensors").spec.tie
    'mirror'
    """
    path = Path(path)
    check_model_name(path)
    content = save(baked_state(model.network), {KEY: dump_metadata(model_metadata(model))})
    with written_beside(path, force) as part:
        part.write_bytes(content)


def check_model_name(path: Path, ending: str = ".safetensors") -> None:
    """Raise ``BadInputError`` unless a model can be saved under this name."""
    if path.suffix != ending:
        raise BadInputError(
            f"{path} has the ending {path.suffix or '(none)'!r}, expected {ending} for this model; "
            "rename it"
        )


def has_metadata(path: Path) -> bool:
    """Whether a file of weights holds metadata of ours; False if it cannot be read."""
    try:
        return KEY in weights_metadata(path)
    except (SafetensorError, OSError):
        return False


def read_metadata(path: Path) -> Metadata:
    """Read what a model file says about itself.

    ``BadInputError`` if the file is missing, damaged, or not one of ours.
    """
    if not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        raise BadInputError(
            f"{path} {found}, expected a model file (.safetensors) of evenslice; check the path"
        )
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise BadInputError(
            f"{path} is not a model file ({error}), expected .safetensors of evenslice; "
            "check or copy it again"
        ) from error
    if text is None:
        raise BadInputError(
            f"{path} holds weights but no evenslice metadata, expected a model file of evenslice; "
            "use it with train --weights, or train a model"
        )
    metadata = parse_metadata(text, path)
    if metadata.get("schema") != SCHEMA:
        raise BadInputError(
            f"{path} has the schema {metadata.get('schema')!r}, expected {SCHEMA!r}; "
            "use the evenslice that wrote it"
        )
    return metadata


def with_metadata(model: Model, metadata: Metadata, source: object) -> Model:
    """Return a model with all that metadata say of it beside its network and spec.

    ``BadInputError`` if they are not as we write them.
    """
    try:
        norm = metadata["normalisation"]
        if norm is not None:
            mean, std = (tuple(map(float, norm[key])) for key in ("mean", "std"))
            norm = Normalisation(mean, std, "file")
            if len(mean) not in (1, model.slices):
                raise ValueError(f"{len(mean)} means for {model.slices} slices")
        return replace(
            model,
            normalisation=norm,
            training=training_in(metadata["training"]),
            scores=dict(metadata["scores"]),
            certificate=certificate_in(metadata.get("certificate")),
            provenance=dict(metadata.get("provenance") or {}),
        ).with_tta(metadata.get("tta", "none"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise corrupt_metadata(source, repr(error)) from error


def load_model(
    path: str | Path,
    network: nn.Module | None = None,
    answer: str | None = None,
    probe: tuple[int, int] | None = None,
) -> Model:
    """Load a file of ``save_model``, on the CPU, in eval mode, ties baked into plain weights.

    Parameters
    ----------
    path
        The file.
    network
        For the file of a network that was not built by evenslice: that network, whose weights are
        replaced. No file makes evenslice run code that it names.
    answer, probe
        Which output of that network is the prediction, and a size (y, x) that it takes; None: as
        the file says.

    Raises
    ------
    BadInputError
        If the file is missing, damaged, not one of ours, or does not fit the network.
    """
    path = Path(path)
    metadata = read_metadata(path)
    try:
        fields = {**metadata["spec"]}
        spec = ExternalSpec(**fields) if "form" in fields else Spec(**fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise corrupt_metadata(path, error) from error
    except BadInputError as error:
        raise BadInputError(f"{path} cannot be used: {error}") from error
    if isinstance(spec, ExternalSpec):
        model = _load_external(path, spec, network, answer or spec.answer, probe or spec.probe)
    else:
        network = rebuild(spec)
        load_state(network, path)
        model = Model(network, spec, stride=stride_of(network), size=size_of(network))
    model.module.eval()
    return replace(with_metadata(model, metadata, path), file=path)


def _load_external(
    path: Path,
    spec: ExternalSpec,
    network: nn.Module | None,
    answer: str | None,
    probe: tuple[int, int] | None,
) -> Model:
    if spec.form != "callable":
        raise corrupt_metadata(path, f"a network of the form {spec.form!r} in a .safetensors file")
    if network is None:
        raise BadInputError(
            f"{path} holds weights for {spec.source}, whose code is not run unless you name it, "
            f"expected both; give {spec.source}@{path}, in Python load_model(path, network=...)"
        )
    if probe is not None:
        network.evenslice_size = probe  # type: ignore[assignment]
    if spec.slices != spec.built:
        widen_stem(network, spec.built, spec.slices, "random")
    load_state(network, path)  # before it is run: what it answers may depend on its weights
    network = network.float().cpu().eval()
    model = wrap_external(network, "callable", spec.source, spec.slices, answer, probe)
    assert isinstance(model.spec, ExternalSpec)
    found = replace(model.spec, built=spec.built, init=spec.init, tie=spec.tie)
    return replace(model, spec=found)


def load_state(network: nn.Module, path: Path) -> None:
    """Fill a network with the tensors of a file of weights, all of them and no others.

    ``BadInputError`` if the file cannot be read or does not fit; the network is then as it was,
    or partly filled.
    """
    wanted = network.state_dict()
    names = {plain: name for name, plain in without_wrapper_prefixes(wanted).items()}
    state = under_prefix(load_state_dict(path), names)
    state = {names.get(name, name): tensor for name, tensor in state.items()}
    shapes = {k: (tuple(state[k].shape), tuple(wanted[k].shape)) for k in wanted if k in state}
    problems = {
        "lacks": [name for name in wanted if name not in state],
        "also holds": [name for name in state if name not in wanted],
        "has in another shape": [f"{k} {a} for {b}" for k, (a, b) in shapes.items() if a != b],
    }
    if any(problems.values()):
        what = "; ".join(
            f"{how} {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if names[3:] else "")
            for how, names in problems.items()
            if names
        )
        raise BadInputError(
            f"{path} does not fit the network ({what}), expected all its tensors and no others; "
            "copy it again, or name the function that made its network"
        )
    network.load_state_dict(state)


def dump_metadata(metadata: JsonObject) -> str:
    """Write metadata as JSON; numbers that are not finite become null."""
    return json.dumps(_finite(metadata), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def parse_metadata(text: str | bytes, source: object) -> JsonObject:
    """Parse a JSON object; raise ``BadInputError`` if it is none, or larger than 4 MiB."""
    try:
        if len(text) > LARGEST:
            raise ValueError(f"{len(text)} bytes of JSON, at most {LARGEST} are read")
        return dict(json.loads(text, parse_constant=_refuse_constant))
    except (TypeError, ValueError, RecursionError) as error:
        raise corrupt_metadata(source, error) from error


def _refuse_constant(text: str) -> float:
    raise ValueError(f"the number {text}")


def training_in(found: Any) -> JsonObject:
    """Read what a model was trained on; raise ``TypeError`` or ``ValueError`` if it is damaged."""
    training = dict(found)
    for volume in [training, *map(dict, training.get("volumes") or [])]:
        for key in ("slices", "validation"):
            spans_in(volume.get(key) or [])
    return training


def certificate_in(found: Any) -> JsonObject | None:
    """Read a certificate; null, as an infinite difference is written, is infinity."""
    if found is None:
        return None
    response = found["float32"]
    symmetric = bool(found["symmetric"])
    infinite = response is None
    return dict(found) | {
        "symmetric": symmetric,
        "float32": math.inf if infinite else float(response),
    }
