"""Model files that are cut off, absurd, or whose record is not as it is written."""

import json
import struct
from pathlib import Path

WHOLE = "whole.safetensors.kept"


def with_header(name: str, header: bytes, length: int | None = None, data: bytes = b""):
    """Write a safetensors file of this header, of the length that is said."""
    size = struct.pack("<Q", len(header) if length is None else length)
    return lambda place: (place / name).write_bytes(size + header + data)


def cut(name: str, part: float):
    """Write a part of a good model."""

    def make(place: Path) -> None:
        body = (place / WHOLE).read_bytes()
        (place / name).write_bytes(body[: int(len(body) * part)])

    return make


def record(name: str, change):
    """Write a good model whose record was changed: ``change`` takes it and returns what is written, a text or a table."""

    def make(place: Path) -> None:
        body = (place / WHOLE).read_bytes()
        size = struct.unpack("<Q", body[:8])[0]
        header = json.loads(body[8 : 8 + size])
        told = change(json.loads(header["__metadata__"]["evenslice"]))
        header["__metadata__"]["evenslice"] = told if isinstance(told, str) else json.dumps(told)
        text = json.dumps(header).encode()
        (place / name).write_bytes(struct.pack("<Q", len(text)) + text + body[8 + size :])

    return make


def tensors(name: str, change):
    """Write a good model in whose table of tensors something was changed."""

    def make(place: Path) -> None:
        body = (place / WHOLE).read_bytes()
        size = struct.unpack("<Q", body[:8])[0]
        header = json.loads(body[8 : 8 + size])
        change(header)
        text = json.dumps(header).encode()
        (place / name).write_bytes(struct.pack("<Q", len(text)) + text + body[8 + size :])

    return make


def without(key: str):
    """Take a key out of a record."""
    return lambda told: {name: value for name, value in told.items() if name != key}


def changed(key: str, **values):
    """Change values of a table of a record."""
    return lambda told: told | {key: told[key] | values}


def first(header: dict, **values) -> None:
    """Change what is said of the first tensor."""
    name = next(name for name in header if name != "__metadata__")
    header[name] |= values
