"""Hostile files, made in small: safetensors with headers of any kind, records of any kind, pickles, onnx graphs."""

import json
import pickle
import struct
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save

from evenslice.model.checkpoint import KEY, baked_state, model_metadata

RAN = "RAN"


class Evil:
    """Makes a file in the current folder when it is unpickled."""

    def __reduce__(self):
        return open, (RAN, "w")


CODE = f"from pathlib import Path\nPath({RAN!r}).touch()\n\n\ndef make():\n    raise SystemExit\n"


def headed(header, data=b"", length=None):
    """A safetensors file of a header, given as JSON or bytes, and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape=(1,), dtype="F32", span=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(span)}


def recorded(model, change=lambda about: None):
    """A model file whose record was changed."""
    text, state = _parts(model)
    about = json.loads(text)
    change(about)
    return save(state, {KEY: json.dumps(about)})


_MADE = {}


def _parts(model):
    """What a model file holds, worked out once for each model."""
    if id(model) not in _MADE:
        _MADE[id(model)] = json.dumps(model_metadata(model)), baked_state(model.network), model
    return _MADE[id(model)][:2]


def put(path, body):
    path = Path(path)
    path.write_bytes(body)
    return path


def pickled(path):
    return put(path, pickle.dumps(Evil()))


def torch_zip(path, thing=None):
    torch.save({"a": torch.zeros(2)} if thing is None else thing, path)
    return Path(path)


def bomb(path, member="archive/data.pkl", size=2**26):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, bytes(size))
    return Path(path)


def deep(levels):
    return "[" * levels + "]" * levels
