"""The model file: one safetensors file with plain weights and, as JSON, all that is needed to use it."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from evenslice.errors import BadInputError
from evenslice.model.build import rebuild, size_of, stride_of
from evenslice.model.external import wrap_external
from evenslice.model.metadata import (
    certificate_in,
    corrupt_metadata,
    dump_metadata,
    parse_metadata,
    training_in,
)
from evenslice.model.spec import ExternalSpec, Model, Spec
from evenslice.model.stem.adapt import uniform_stem
from evenslice.model.stem.find import find_stems
from evenslice.model.stem.slots import distances, norms_per_slot, slot_pattern
from evenslice.model.weights import load_state_dict, without_wrapper_prefixes
from evenslice.volume.atomic import written_beside
from evenslice.volume.normalisation import Normalisation

KEY = "evenslice"
SCHEMA = "evenslice.model/1"


def baked_state(module: nn.Module) -> dict[str, Tensor]:
    """Return a state dict of plain weights, ties worked in, under the names the network has without them."""
    state = {}
    for name, tensor in module.state_dict().items():
        owner, _, rest = name.partition("parametrizations.")
        if not rest:
            state[name] = tensor
            continue
        weight, _, part = rest.partition(".")
        if part == "original":
            state[owner + weight] = getattr(
                module.get_submodule(owner.rstrip(".")), weight
            ).detach()
    return _apart({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})


def _apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors that share their memory, as tied weights do, one each: a safetensors file holds no sharing."""
    held: set[int] = set()
    for name, tensor in state.items():
        where = tensor.untyped_storage().data_ptr()
        state[name] = tensor.clone() if where in held else tensor
        held.add(where)
    return state


def stem_record(model: Model) -> list[dict[str, Any]]:
    """Describe the stems of a model: module, kind, norm per slot, and how far its weights are from even ones."""
    records = []
    for stem in find_stems(model.network, model.slices):
        uniform, mirror = distances(stem)
        norms = norms_per_slot(stem)
        records.append(
            {
                "module": stem.name,
                "kind": stem.kind,
                "layer": stem.description,
                "norms": norms,
                "from_uniform": uniform,
                "from_mirror": mirror,
                "pattern": slot_pattern(stem),
            }
        )
    return records


def save_model(path: str | Path, model: Model, force: bool = True) -> None:
    """Write a model file; it appears under its name only when it is complete, and replaces one of that name (``force``).

    Raises
    ------
    BadInputError
        If the name does not end in ``.safetensors``, or a file of that name is there without ``force``.
    """
    path = Path(path)
    check_model_name(path)
    with written_beside(path, force) as part:
        part.write_bytes(
            save(baked_state(model.network), {KEY: dump_metadata(model_metadata(model))})
        )  # readable for those whom umask lets


def model_metadata(model: Model) -> dict[str, Any]:
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


def normalisation_record(norm: Normalisation | None) -> dict[str, Any] | None:
    """Describe a normalisation as JSON has it: one number each where all slots are treated alike."""
    if norm is None:
        return None
    mean, std = (norm.mean[0], norm.std[0]) if norm.uniform else (list(norm.mean), list(norm.std))
    return {"uniform": norm.uniform, "mean": mean, "std": std, "source": norm.source}


def check_model_name(path: Path) -> None:
    """Raise ``BadInputError`` unless a model can be saved under this name."""
    if path.suffix != ".safetensors":
        raise BadInputError(
            f"{path} has the ending {path.suffix or '(none)'!r}, expected .safetensors for a model; rename it"
        )


def read_metadata(path: Path) -> dict[str, Any]:
    """Read what a model file says about itself.

    Raises
    ------
    BadInputError
        If the file is missing, damaged, or not one of ours.
    """
    if not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        raise BadInputError(
            f"{path} {found}, expected a model file (.safetensors) of evenslice; check the path"
        )
    try:
        with safe_open(path, "pt") as file:
            about = parse_metadata((file.metadata() or {})[KEY], path)
    except KeyError as error:
        raise BadInputError(
            f"{path} holds weights but no evenslice record, expected a model file of evenslice; use it with train --weights, or train a model"
        ) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInputError(
            f"{path} is not a model file ({error}), expected .safetensors of evenslice; check or copy it again"
        ) from error
    if about.get("schema") != SCHEMA:
        raise BadInputError(
            f"{path} has the schema {about.get('schema')!r}, expected {SCHEMA!r}; use the evenslice that wrote it"
        )
    return about


def has_metadata(path: Path) -> bool:
    """Whether a file of weights holds a record of ours, whole or not; False if it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def model_fields(about: dict[str, Any], source: object) -> dict[str, Any]:
    """Read what a record tells of a model beside its network.

    Raises
    ------
    BadInputError
        If it is not as we write it.
    """
    try:
        norm = about["normalisation"]
        return {
            "normalisation": None
            if norm is None
            else Normalisation(tuple(norm["mean"]), tuple(norm["std"]), "file"),
            "training": training_in(about["training"]),
            "scores": dict(about["scores"]),
            "certificate": certificate_in(about.get("certificate")),
            "provenance": dict(about.get("provenance") or {}),
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise corrupt_metadata(source, repr(error)) from error


def load_model(path: str | Path, network: nn.Module | None = None) -> Model:
    """Load a model file written by ``save_model``, on the CPU, in eval mode, ties baked into plain weights.

    Parameters
    ----------
    path
        The file.
    network
        For the file of a network that was not built by evenslice: that network, whose weights are replaced. No file makes
        evenslice run code that it names.

    Raises
    ------
    BadInputError
        If the file is missing, damaged, not one of ours, or does not fit the network.
    """
    path = Path(path)
    about = read_metadata(path)
    facts, fields = model_fields(about, path), about.get("spec")
    if not isinstance(fields, dict):
        raise corrupt_metadata(path, "it has no spec")
    try:
        model = _foreign(path, fields, network) if "form" in fields else _ours(path, fields)
        model.module.eval()
        norm = facts["normalisation"]
        if norm is not None and len(norm.mean) not in (1, model.slices):
            raise corrupt_metadata(path, f"{len(norm.mean)} means for {model.slices} slices")
        return model.with_facts(**facts, file=path).with_tta(about.get("tta", "none"))
    except BadInputError as error:
        if str(path) in str(error):
            raise
        raise BadInputError(f"{path} cannot be used: {error}") from error


def _ours(path: Path, fields: dict[str, Any]) -> Model:
    try:
        spec = Spec(**fields)
    except TypeError as error:
        raise corrupt_metadata(path, error) from error
    network = rebuild(spec)
    load_state(network, path)
    return Model(network, spec, stride=stride_of(network), size=size_of(network))


def _foreign(path: Path, fields: dict[str, Any], network: nn.Module | None) -> Model:
    try:
        spec = ExternalSpec(**fields)
    except TypeError as error:
        raise corrupt_metadata(path, error) from error
    if spec.form != "callable":
        raise corrupt_metadata(path, f"a network of the form {spec.form!r} in a .safetensors file")
    if network is None:
        raise BadInputError(
            f"{path} holds weights for {spec.source}, whose code is not run unless you name it, expected both; give "
            f"{spec.source}@{path}, in Python load_model(path, network=...)"
        )
    if spec.slices != spec.built:
        uniform_stem(network, spec.slices, "random")
    load_state(network, path)  # before it is run: what it answers may depend on its weights
    model = wrap_external(network.float().cpu().eval(), "callable", spec.source, spec.slices)
    return model.with_facts(spec=spec)


def load_state(network: nn.Module, path: Path) -> None:
    """Fill a network with the tensors of a file of weights, all of them and no others.

    Raises
    ------
    BadInputError
        If the file cannot be read or does not fit; the network is then as it was, or partly filled.
    """
    state = load_state_dict(path)
    names = without_wrapper_prefixes(network.state_dict())
    given = {short: name for name, short in names.items()}
    try:
        network.load_state_dict({given.get(name, name): tensor for name, tensor in state.items()})
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise BadInputError(
            f"{path} does not fit the network ({' '.join(lines[1:2] or lines)[:200]}), expected all "
            "its tensors and no others; copy it again, or name the function that made it"
        ) from error
