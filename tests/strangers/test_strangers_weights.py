"""Weights of strangers, as ``train --weights FILE`` reads them."""

import io
import json
import zipfile

import pytest
import torch
from offers import CODE, Evil, bomb, headed, pickled, put, tensor, torch_zip

from evenslice.errors import BadInputError
from evenslice.model import pretrained as hub
from evenslice.model.build import build_model
from evenslice.model.pretrained import facts_as_options
from evenslice.model.weights import read_weights


def half_expanded(path):
    return torch_zip(path, {"a": torch.zeros(1, dtype=torch.float16).expand(2**40)})


def sparse(path):
    return torch_zip(
        path, {"a": torch.sparse_coo_tensor([[0]], [1.0], (2**40,), check_invariants=True)}
    )


def meta(path):
    return torch_zip(path, {"a": torch.empty(2**40, device="meta")})


def evil(path):
    return torch_zip(path, {"a": torch.zeros(2), "b": Evil()})


def opener(path):
    return torch_zip(path, {"state_dict": {"a": torch.zeros(2)}, "hook": open})


def flipped(path):
    """A zip whose pickle has one byte changed."""
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, buffer)
    body = buffer.getvalue()
    at = body.index(b"torch")
    return put(path, body[:at] + b"xorch" + body[at + 5 :])


def looped(path):
    """State dicts within state dicts, the innermost a list."""
    inner = [1]
    for _ in range(200):
        inner = {"state_dict": inner}
    return torch_zip(path, inner)


WEIGHTS = {
    "pickle: plain": (pickled, "w.pkl", "cannot be read"),
    "pickle: in a torch zip": (evil, "w.pth", "which is not run"),
    "pickle: a function": (opener, "w.ckpt", "which is not run"),
    "pickle: as .safetensors": (pickled, "w.safetensors", "cannot be read"),
    "zip: a bomb": (bomb, "w.pth", "far more than their own size"),
    "zip: a bomb of zeros for a tensor": (lambda path: bomb(path, "archive/data/0"), "w.bin", "far more than their own size"),
    "zip: damaged": (flipped, "w.pth", "cannot be read"),
    "tensor: 2^40 values in two bytes": (half_expanded, "w.pth", "'a' in a form that is not plain numbers"),
    "tensor: sparse": (sparse, "w.pth", "cannot be read|'a' in a form that is not plain numbers"),
    "tensor: without memory": (meta, "w.pth", "cannot be read|'a' in a form that is not plain numbers"),
    "tensor: none, but nests": (looped, "w.pth", "hold more than tensors"),
    "safetensors: an unknown type": (
        lambda path: put(path, headed({"a": tensor(dtype="F999")}, bytes(4))), "w.safetensors", "cannot be read",
    ),
    "safetensors: a length of 2^60": (lambda path: put(path, headed({}, length=2**60)), "w.safetensors", "cannot be read"),
    "safetensors: nothing": (lambda path: put(path, headed({})), "w.safetensors", None),
    "text": (lambda path: put(path, CODE.encode()), "w.pth", "cannot be read"),
    "nothing": (lambda path: put(path, b""), "w.pth", "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights(guarded, tmp_path, case):
    make, name, words = WEIGHTS[case]
    path = make(tmp_path / name)
    guarded()
    if words is None:
        assert read_weights(path) == ({}, {})
        return
    with pytest.raises(BadInputError, match=words) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


FACTS = {
    "padding: unknown": ({"pad_type": "evil"}, "state pad_type"),
    "padding: code": ({"pad_type": "__import__('os')"}, "state pad_type"),
    "image: text": ({"img_size": "x"}, "state img_size"),
    "image: -1": ({"img_size": "-1"}, "state img_size"),
    "image: 0": ({"img_size": "0"}, "state img_size"),
    "image: 10^9": ({"img_size": "1000000000"}, "state img_size"),
    "image: three sides": ({"img_size": "1,2,3"}, "state img_size"),
    "image: a million sides": ({"img_size": ",".join("1" * 10**6)}, "state img_size"),
    "image: other digits": ({"img_size": "\u0968\u0968\u096a,"}, "state img_size"),
    "image: 5000 digits": ({"img_size": "9" * 5000}, "state img_size"),
}


@pytest.mark.parametrize("case", FACTS)
def test_facts(guarded, case):
    facts, words = FACTS[case]
    guarded()
    with pytest.raises(BadInputError, match=words) as caught:
        facts_as_options(facts, "test_vit", "w.safetensors")
    assert len(str(caught.value)) < 600


ENCODERS = {
    "encoder: a folder": ("local-dir:/tmp", "none"),
    "encoder: a callable": ("evil:make", "none"),
    "encoder: an address": ("https://evil.example/w.pth", "none"),
    "weights: a callable": ("test_resnet", "evil:make"),
    "weights: an address": ("test_resnet", "https://evil.example/w.pth"),
    "weights: a folder": ("test_resnet", "local-dir:/tmp"),
}


@pytest.mark.parametrize("case", ENCODERS)
def test_names(guarded, tmp_path, case):
    encoder, weights = ENCODERS[case]
    put(tmp_path / "evil.py", CODE.encode())
    guarded()
    with pytest.raises(BadInputError, match=r"unknown|do not exist"):
        build_model(encoder=encoder, weights=weights)


HUB = {
    "config: another repository": {"architecture": "hf-hub:evil/model"},
    "config: a folder": {"architecture": "local-dir:/tmp"},
    "config: a number": {"architecture": 3},
    "config: weights to fetch": {
        "architecture": "test_resnet",
        "model_args": {"pretrained_cfg_overlay": "x"},
    },
    "config: a checkpoint": {
        "architecture": "test_resnet",
        "model_args": {"checkpoint_path": "evil.pth"},
    },
    "config: a huge network": {"architecture": "test_vit", "model_args": {"embed_dim": 10**8}},
    "config: arguments of text": {"architecture": "test_vit", "model_args": "x"},
    "config: a list": [],
}


@pytest.mark.parametrize("case", HUB)
def test_configs_of_the_hub(guarded, tmp_path, monkeypatch, case):
    path = put(tmp_path / "config.json", json.dumps(HUB[case]).encode())
    monkeypatch.setattr(hub, "download", lambda name, file: path)
    guarded()
    with pytest.raises(BadInputError) as caught:
        build_model(encoder="hf-hub:owner/name", weights="none")
    assert "\n" not in str(caught.value)


def test_a_zip_that_is_no_bomb_is_read(tmp_path):
    path = torch_zip(tmp_path / "w.pth", {"a": torch.arange(6.0).reshape(2, 3)[:, :2]})
    assert zipfile.is_zipfile(path) and read_weights(path)[0]["a"].tolist() == [[0, 1], [3, 4]]
