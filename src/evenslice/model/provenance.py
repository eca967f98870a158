"""What a result was made with: command, seed, versions, and the hashes of what was read."""

import hashlib
import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from evenslice.model.external import form_of
from evenslice.model.inputs import fingerprint
from evenslice.model.spec import Model
from evenslice.volume.array import Volume, as_volume
from evenslice.volume.files import split_container

WHOLE_BYTES = 256 * 2**20
SPANS = 64
SPAN_BYTES = 2**20
MOST_FILES = 4096


def file_record(path: str | Path) -> dict[str, Any]:
    """Describe a file or folder that was read: its name as given, size in bytes and SHA-256.

    Parameters
    ----------
    path
        As the user gave it; of ``FILE.h5:/dataset`` the file is hashed.

    Returns
    -------
    dict
        ``name``, ``bytes``, ``sha256`` and ``hashed``. ``whole``: the hash is that of all bytes, as ``sha256sum`` gives it.
        ``sampled``: of a file above 256 MiB, the hash of its size (8 bytes, little-endian) and of 64 evenly spaced spans of
        1 MiB, the first and the last included. ``tree``: of a folder of at most 4096 files and 256 MiB, the hash of the
        sorted lines ``SHA-256  relative/path``. ``none``: of a larger folder, or one that cannot be read; the size and hash
        are None then.
    """
    file, _ = split_container(path)
    nothing = {"name": str(path), "bytes": None, "sha256": None, "hashed": "none"}
    try:
        if file.is_dir():
            return nothing | (_tree(file) or {})
        size = file.stat().st_size
        if size <= WHOLE_BYTES:
            return {"name": str(path), "bytes": size, "sha256": _whole(file), "hashed": "whole"}
        return {
            "name": str(path),
            "bytes": size,
            "sha256": _sampled(file, size),
            "hashed": "sampled",
        }
    except OSError:
        return nothing


def _whole(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sampled(file: Path, size: int) -> str:
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    with file.open("rb") as stream:
        for n in range(SPANS):
            stream.seek((size - SPAN_BYTES) * n // (SPANS - 1))
            digest.update(stream.read(SPAN_BYTES))
    return digest.hexdigest()


def _tree(folder: Path) -> dict[str, Any] | None:
    files: list[Path] = []
    total = 0
    for item in folder.rglob("*"):
        if item.is_file():
            files.append(item)
            total += item.stat().st_size
        if len(files) > MOST_FILES or total > WHOLE_BYTES:
            return None
    lines = sorted(f"{_whole(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)
    text = "".join(lines).encode(errors="surrogateescape")
    return {"bytes": total, "sha256": hashlib.sha256(text).hexdigest(), "hashed": "tree"}


PACKAGES = (
    "evenslice",
    "torch",
    "timm",
    "segmentation-models-pytorch",
    "captum",
    "numpy",
    "scipy",
    "zarr",
)
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
    return (
        file_record(weights) if weights else {"bytes": None, "sha256": None, "hashed": "none"}
    ) | {"name": name}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # code that was put on the path, not installed
        return "unknown"
