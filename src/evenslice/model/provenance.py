"""How a result was made: command, seed, versions, and the hashes of what was read."""

import hashlib
import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np

from evenslice.data.fetch import SourceRecord
from evenslice.model.source import form_of
from evenslice.options import JsonObject
from evenslice.volume.array import Volume, as_volume
from evenslice.volume.files import split_container
from evenslice.volume.inputs import fingerprint

if TYPE_CHECKING:
    from evenslice.model.spec import Model

PACKAGES = ("evenslice", "torch", "timm", "segmentation-models-pytorch", "numpy", "scipy", "zarr")
WHOLE_BYTES = 256 * 2**20
SPANS = 64
SPAN_BYTES = 2**20
MOST_FILES = 4096
SIDE = 512  # of what is hashed of a slice: cheap in any chunks
WEIGHTS_KEYS = {"bytes": int} | dict.fromkeys(("name", "sha256", "hashed", "source", "terms"), str)
UNSAID = {"--resume", "--force"}  # which change how a result came about, not what it is
Source: TypeAlias = Union["Model", Volume, np.ndarray, str, Path, JsonObject]


def provenance_of(seed: int | None, **inputs: Source | None) -> JsonObject:
    """Record what a result is made with, so that it can be made again.

    ``command`` (of this process), ``seed`` of the run, ``versions`` {package: version, and
    ``python``}, ``platform``, and by role the ``inputs`` (models, volumes, names of files; None is
    left out; what is a record already stays) as ``file_record`` gives them. Volumes have ``voxels``
    too, a hash of shape, type and 512 x 512 voxels of three slices that does not depend on the
    format, and models the pretrained ``weights`` that they started from.
    """
    return {
        "command": command_line(),
        "seed": seed,
        "versions": versions(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "inputs": {role: _record(source) for role, source in inputs.items() if source is not None},
    }


def command_line() -> str:
    """Return the command of this process, to be run again; without --resume and --force."""
    first, *words = sys.argv or [""]
    path = Path(first)
    name = path.parent.name if path.name == "__main__.py" else path.name
    return shlex.join([name, *(word for word in words if word not in UNSAID)])


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # code that was put on the path, not installed
            found[name] = "unknown"
    return found


def _record(source: Source) -> JsonObject:
    if isinstance(source, dict):
        return source
    if isinstance(source, str | Path):
        is_code = form_of(source) == "callable"
        return _code_record(str(source)) if is_code else file_record(source)
    if isinstance(source, Volume | np.ndarray):
        volume = as_volume(source)
        return file_record(volume.source) | {"voxels": fingerprint(volume, SIDE)}
    made_by = str(source.spec.to_dict().get("source", "a model in memory"))
    record = _code_record(made_by) if source.file is None else file_record(source.file)
    weights = pretrained_weights(source)
    return record if weights is None else record | {"weights": weights}


def pretrained_weights(model: "Model") -> JsonObject | None:
    """Return the record of the weights that a model started from, also of one that was fixed."""
    inputs = model.provenance.get("inputs")
    for _ in range(2):  # of the model itself, then of the one it was made of
        if not isinstance(inputs, dict):
            return None
        if isinstance(found := inputs.get("weights"), dict):
            known = {key: found.get(key) for key in WEIGHTS_KEYS}
            return {
                key: v if isinstance(v, WEIGHTS_KEYS[key]) else None for key, v in known.items()
            }
        inputs = inputs.get("model")
    return None


def _code_record(name: str) -> JsonObject:
    """Describe a network from code: the weights behind ``@`` are hashed, the code is not."""
    weights = name.partition("@")[2]
    record = file_record(weights) if weights else {"bytes": None, "sha256": None, "hashed": "none"}
    return record | {"name": name}


def file_record(path: str | Path) -> JsonObject:
    """Describe a file or folder that was read: its name as given, size in bytes and SHA-256.

    ``name``, ``bytes``, ``sha256`` and ``hashed``; of ``FILE.h5:/dataset`` the file is hashed.
    ``whole``: the hash of all bytes, as ``sha256sum`` gives it. ``sampled``: of a file above
    256 MiB, the hash of its size (8 bytes, little-endian) and of 64 evenly spaced spans of 1 MiB,
    the first and the last included. ``tree``: of a folder of at most 4096 files and 256 MiB, the
    hash of the sorted lines ``SHA-256  relative/path``. ``none``: of a larger folder, or one that
    cannot be read; size and hash are None then. ``fetched``: of what ``data fetch`` fetched, its
    address, terms and hash.
    """
    file, _ = split_container(path)
    record: JsonObject = {"name": str(path), "bytes": None, "sha256": None, "hashed": "none"}
    if (fetched := SourceRecord.read(file.parent)) is not None:
        record["fetched"] = fetched.to_dict()
    try:
        if file.is_dir():
            return record | _hash_tree(file)
        size = file.stat().st_size
        if size <= WHOLE_BYTES:
            return record | {"bytes": size, "sha256": _hash_whole(file), "hashed": "whole"}
        return record | {"bytes": size, "sha256": _hash_samples(file, size), "hashed": "sampled"}
    except OSError:
        return record


def _hash_whole(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hash_samples(file: Path, size: int) -> str:
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    with file.open("rb") as stream:
        for n in range(SPANS):
            stream.seek((size - SPAN_BYTES) * n // (SPANS - 1))
            digest.update(stream.read(SPAN_BYTES))
    return digest.hexdigest()


def _hash_tree(folder: Path) -> JsonObject:
    files: list[Path] = []
    total = 0
    for item in folder.rglob("*"):
        if item.is_file():
            files.append(item)
            total += item.stat().st_size
        if len(files) > MOST_FILES or total > WHOLE_BYTES:
            return {}
    lines = [f"{_hash_whole(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    text = "".join(sorted(lines)).encode(errors="surrogateescape")
    return {"bytes": total, "sha256": hashlib.sha256(text).hexdigest(), "hashed": "tree"}
