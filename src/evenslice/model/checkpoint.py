"""The model file: one safetensors file with plain weights and, as JSON, all that is needed to use it."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from evenslice.errors import BadInputError
from evenslice.model.build import rebuild, stride_of
from evenslice.model.discovery import find_stems
from evenslice.model.foreign import adopt
from evenslice.model.origin import slot_pattern
from evenslice.model.slots import distances, norms_per_slot
from evenslice.model.spec import Foreign, Model, Spec
from evenslice.model.stem import uniform_stem
from evenslice.volume.normalisation import Normalisation
from evenslice.volume.writing import written_beside

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
            state[owner + weight] = getattr(module.get_submodule(owner.rstrip(".")), weight).detach()
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


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


def save_model(path: str | Path, model: Model) -> None:
    """Write a model file; it appears under its name only when it is complete, and replaces one of that name.

    Raises
    ------
    BadInputError
        If the name does not end in ``.safetensors``.
    """
    path = Path(path)
    check_model_name(path)
    with written_beside(path) as part:
        part.write_bytes(
            save(baked_state(model.network), {KEY: json.dumps(about_of(model))})
        )  # readable for those whom umask lets


def about_of(model: Model) -> dict[str, Any]:
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


def read_about(path: Path) -> dict[str, Any]:
    """Read what a model file says about itself.

    Raises
    ------
    BadInputError
        If the file is missing, damaged, or not one of ours.
    """
    if not path.is_file():
        raise BadInputError(f"{path} does not exist, expected a model file (.safetensors) of evenslice; check the path")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[KEY])
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
    return dict(about)


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
    about = read_about(path)
    norm = about["normalisation"]
    facts = {
        "normalisation": None if norm is None else Normalisation(tuple(norm["mean"]), tuple(norm["std"]), "file"),
        "training": about["training"],
        "scores": about["scores"],
        "certificate": about.get("certificate"),
    }
    model = _foreign(path, about["spec"], network) if "form" in about["spec"] else _ours(about["spec"])
    load_state(model.network, path)
    model.module.eval()
    return model.with_facts(**facts).with_tta(about.get("tta", "none"))


def _ours(fields: dict[str, Any]) -> Model:
    spec = Spec(**fields)
    network = rebuild(spec)
    return Model(network, spec, stride=stride_of(network))


def _foreign(path: Path, fields: dict[str, Any], network: nn.Module | None) -> Model:
    spec = Foreign(**fields)
    if network is None:
        raise BadInputError(
            f"{path} holds weights for {spec.source}, whose code is not run unless you name it, expected both; give "
            f"{spec.source}@{path}, in Python load_model(path, network=...)"
        )
    if spec.slices != spec.built:
        uniform_stem(network, spec.slices, "random")
    model = adopt(network.float().cpu().eval(), "callable", spec.source, spec.slices)
    return model.with_facts(spec=spec)


def load_state(network: nn.Module, path: Path) -> None:
    """Fill a network with the tensors of a safetensors file, all of them and no others.

    Raises
    ------
    BadInputError
        If the file cannot be read or does not fit; the network is then as it was, or partly filled.
    """
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BadInputError(f"{path} cannot be read ({error}), expected a .safetensors file; check the path") from error
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise BadInputError(
            f"{path} does not fit the network it describes ({str(error).splitlines()[0]}), expected all its tensors; copy it again"
        ) from error
