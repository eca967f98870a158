"""A folder with the files that the pages name, made once; and small versions of what takes long."""

import functools
import shutil
import sys
from pathlib import Path

import pytest

from evenslice import save_model, save_volume
from evenslice.data.phantom import phantom
from evenslice.errors import BadInputError
from evenslice.options import AuditOptions, TrainOptions
from evenslice.verbs import assert_symmetric as symmetry
from evenslice.verbs import audit as audit_verb
from evenslice.verbs import demo, fix
from evenslice.verbs import train as train_verb

SHAPE = (15, 96, 96)
RAW = ("raw.tif", "other.tif", "second.tif", "raw.zarr", "other.zarr", "raw.h5", "other.h5")
TRUTH = ("membranes.tif", "labels.tif", "truth.tif", "second_labels.tif", "truth.zarr")
MODELS = ("model.safetensors",)
SMALL = {
    "steps": 2,
    "batch": 2,
    "crop": 32,
    "validation_runs": 1,
    "encoder": "test_resnet.r160_in1k",
    "weights": "none",
    "encoder_depth": 3,
    "precision": "fp32",
}
AUDIT_ARGUMENTS = ("labels", "maps", "force", "views", "label", "progress")
TRAIN_ARGUMENTS = ("resume", "force", "on_validation", "progress")
NETWORKS = """
from torch import nn


def make():
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 1, 1)
    return nn.Sequential(*layers)
"""


@pytest.fixture(scope="session")
def workshop(tmp_path_factory, make_model):
    """Return the folder with everything; pages get copies of what they name."""
    place = tmp_path_factory.mktemp("workshop")
    made = phantom(SHAPE)
    for name in RAW:
        save_volume(place / name, made.raw, made.voxel_nm) if not name.endswith(
            ".h5"
        ) else write_h5(place / name, made.raw)
    for name in TRUTH:
        save_volume(place / name, made.membranes, made.voxel_nm)
    save_volume(place / "neurons.tif", made.neurons, made.voxel_nm)
    for name in MODELS:
        save_model(place / name, make_model())
    (place / "mypackage").mkdir()
    (place / "mypackage" / "networks.py").write_text(NETWORKS)
    return place


def write_h5(path, pixels):
    import h5py

    with h5py.File(path, "w") as file:
        file["volumes/raw"] = pixels
        file["volumes/raw"].attrs["resolution"] = (30.0, 8.0, 8.0)


def export(path):
    """Write the small network as .pt2 or .onnx."""
    import torch

    names = {}
    exec(NETWORKS, names)
    torch.manual_seed(0)
    network, x = names["make"]().eval(), torch.zeros(1, 3, 32, 32)
    if path.suffix == ".onnx":
        torch.onnx.export(network, (x,), path, dynamo=True, verbose=False)
    else:
        torch.export.save(torch.export.export(network, (x,)), path)


@pytest.fixture
def place(workshop, tmp_path, monkeypatch):
    """Return a function that makes a folder with the files that a text names, and works in it."""

    def make(text):
        for file in workshop.iterdir():
            if file.name in text and file.is_dir():
                shutil.copytree(file, tmp_path / file.name)
            elif file.name in text:
                shutil.copy(file, tmp_path / file.name)
        for name in ("network.pt2", "net.onnx"):
            if name in text:
                export(tmp_path / name)
        shutil.copytree(Path(__file__).parents[2] / "studies", tmp_path / "studies")
        monkeypatch.chdir(tmp_path)
        return tmp_path

    yield make
    for name in [name for name in sys.modules if name.split(".")[0] == "mypackage"]:
        del sys.modules[name]


@pytest.fixture
def in_small(monkeypatch):
    """Make every training and audit a small one, and pretrained weights random."""
    real_train, real_audit = train_verb.train, audit_verb.audit

    @functools.wraps(real_train)
    def train(volume, labels, out, options=None, *, device="auto", **given):
        verb = {name: given.pop(name) for name in list(given) if name in TRAIN_ARGUMENTS}
        asked = TrainOptions.of(options, given)
        small = asked.model_copy(update=SMALL)
        return real_train(volume, labels, out, small, device=device, **verb)

    @functools.wraps(real_audit)
    def audit(model, volume, options=None, **given):
        verb = {name: given.pop(name) for name in list(given) if name in AUDIT_ARGUMENTS}
        asked = AuditOptions.of(options, given)
        methods = asked.methods or ("gradient",)
        fewer = AuditOptions.of(asked, {"windows": 6, "tile": 48, "methods": methods})
        try:
            return real_audit(model, volume, fewer, **verb)
        except BadInputError as error:
            if asked.methods or "needs gradients" not in str(error):
                raise
            without = AuditOptions.of(fewer, {"methods": ("ablation",)})
            return real_audit(model, volume, without, **verb)

    for module in (audit_verb, fix, demo, symmetry):
        monkeypatch.setattr(module, "audit", audit)
    for module in (train_verb, demo):
        monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(demo, "SHAPE", SHAPE)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    import timm

    create = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda *words, **options: create(*words, **{**options, "pretrained": False}),
    )
