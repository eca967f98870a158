"""What a result was made with: command, seed, versions, and the hashes of what was read."""

import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from evenslice.model.foreign import form_of
from evenslice.model.spec import Model
from evenslice.verbs.choices import fingerprint
from evenslice.volume.array import Volume, as_volume
from evenslice.volume.hashing import file_record

PACKAGES = ("evenslice", "torch", "timm", "segmentation-models-pytorch", "captum", "numpy", "scipy", "zarr")
SIDE = 512  # of what is hashed of a slice: cheap in any chunks
UNSAID = {"--resume", "--force"}  # which change how a result came about, not what it is
Source = Model | Volume | np.ndarray | str | Path | None


def provenance_of(seed: int | None, **inputs: Source) -> dict[str, Any]:
    """Record what a result is made with, so that it can be made again.

    Parameters
    ----------
    seed
        Of the run.
    inputs
        What is read, by its role: models, volumes, or names of files.

    Returns
    -------
    dict
        ``command`` (of this process), ``seed``, ``versions`` {package: version, and ``python``}, ``platform``, and ``inputs``
        {role: {``name``, ``bytes``, ``sha256``, ``hashed``}} as ``file_record`` gives them; volumes have ``voxels`` too, a
        hash of shape, type and 512 x 512 voxels of three slices that does not depend on the format. Roles that are None are left out.
    """
    return {
        "command": command_line(),
        "seed": seed,
        "versions": versions(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "inputs": {role: _record(source) for role, source in inputs.items() if source is not None},
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def command_line() -> str:
    """Return the command of this process, to be run again; without --resume and --force, which leave the result as it is."""
    first, *words = sys.argv or [""]
    name = Path(first).name
    if name == "__main__.py":
        name = Path(first).parent.name
    return shlex.join([name, *(word for word in words if word not in UNSAID)])


def _record(source: Model | Volume | np.ndarray | str | Path) -> dict[str, Any]:
    if isinstance(source, Model):
        return _of_model(source)
    if isinstance(source, str | Path):
        return _of_code(str(source)) if form_of(source) == "callable" else file_record(source)
    volume = as_volume(source)
    return file_record(volume.source) | {"voxels": fingerprint(volume, SIDE)}


def _of_model(model: Model) -> dict[str, Any]:
    if model.file is not None:
        return file_record(model.file)
    return _of_code(str(model.spec.to_dict().get("source", "a model in memory")))


def _of_code(name: str) -> dict[str, Any]:
    """Describe a network that comes from code: the weights behind ``@`` are hashed, the code is not."""
    weights = name.partition("@")[2]
    return (file_record(weights) if weights else {"bytes": None, "sha256": None, "hashed": "none"}) | {"name": name}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # code that was put on the path, not installed
        return "unknown"
