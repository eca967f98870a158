"""Hashes by which a file or folder that was read can be recognised again."""

import hashlib
from pathlib import Path
from typing import Any

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
        return {"name": str(path), "bytes": size, "sha256": _sampled(file, size), "hashed": "sampled"}
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
