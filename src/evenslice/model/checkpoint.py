"""The model file: one safetensors file with plain weights and, as JSON, all that is needed to use it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from evenslice.errors import BadInputError
from evenslice.model.build import rebuild, stride_of
from evenslice.model.discovery import find_stems
from evenslice.model.spec import Model, Spec
from evenslice.model.stem import norms_per_slot
from evenslice.volume.normalisation import Normalisation
from evenslice.volume.writing import written_beside

KEY = "evenslice"
SCHEMA = "evenslice.model/1"


def baked_state(module: torch.nn.Module) -> dict[str, Tensor]:
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
    """Describe the stems of a model: module, kind, norm per slot."""
    return [
        {"module": stem.name, "kind": stem.kind, "norms": norms_per_slot(stem)}
        for stem in find_stems(model.module, model.slices)
    ]


def save_model(path: str | Path, model: Model) -> None:
    """Write a model file; it appears under its name only when it is complete, and replaces one of that name.

    Raises
    ------
    BadInputError
        If the name does not end in ``.safetensors``.
    """
    path = Path(path)
    check_model_name(path)
    about = {
        "schema": SCHEMA,
        "spec": model.spec.to_dict(),
        "normalisation": None
        if model.normalisation is None
        else {"mean": model.normalisation.mean, "std": model.normalisation.std},
        "stem": {"init": model.spec.init, "tie": model.spec.tie, "modules": stem_record(model)},
        "training": model.training,
        "scores": model.scores,
        "certificate": model.certificate,
    }
    with written_beside(path) as part:
        part.write_bytes(
            save(baked_state(model.module), {KEY: json.dumps(about)})
        )  # readable for those whom umask lets


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


def load_model(path: str | Path) -> Model:
    """Load a model file written by ``save_model``, on the CPU, in eval mode, ties baked into plain weights.

    Raises
    ------
    BadInputError
        If the file is missing, damaged, or not one of ours.
    """
    path = Path(path)
    about = read_about(path)
    spec = Spec(**about["spec"])
    network = rebuild(spec)
    with safe_open(path, "pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise BadInputError(
            f"{path} does not fit the network it describes ({str(error).splitlines()[0]}), expected all its tensors; copy it again"
        ) from error
    norm = about["normalisation"]
    normalisation = None if norm is None else Normalisation(tuple(norm["mean"]), tuple(norm["std"]), "file")
    return Model(
        network.eval(),
        spec,
        normalisation,
        stride_of(network),
        about["training"],
        about["scores"],
        about.get("certificate"),
    )
