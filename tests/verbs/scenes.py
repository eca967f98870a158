"""Shared by the tests of segment: quick networks, runs to compare, commands in processes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import zarr
from torch import nn

from evenslice.cli import app as cli
from evenslice.model.spec import Model, Spec
from evenslice.volume.normalisation import Normalisation

NORM = Normalisation((128.0,), (40.0,), "file")


def blurring(slices=3, classes=1, reach=1, **facts):
    """A quick network of one convolution that depends on place, order and surroundings."""
    torch.manual_seed(0)
    conv = nn.Conv2d(slices, classes, 2 * reach + 1, padding=reach)
    conv.weight.data *= 3
    return Model(conv.eval(), Spec(slices=slices, classes=classes), NORM, stride=1, **facts)


def arrays_of(store):
    """All arrays of a store by their path, as numpy has them."""
    store = Path(store)
    names = sorted(
        str(file.parent.relative_to(store))
        for file in store.rglob("zarr.json")
        if (file.parent / "c").exists()
    )
    return {name: np.asarray(zarr.open_array(str(store / name), mode="r")[:]) for name in names}


def files_of(store):
    """All files of a store and what they hold, byte for byte."""
    return {
        str(file.relative_to(store)): file.read_bytes()
        for file in Path(store).rglob("*")
        if file.is_file()
    }


def assert_same(one, two):
    """Two stores hold the same, byte for byte, apart from the command that their metadata name."""
    one, two = files_of(one), files_of(two)
    assert sorted(one) == sorted(two)
    assert [name for name in one if one[name] != two[name] and name != "zarr.json"] == []
    for files in (one, two):
        files["zarr.json"] = json.loads(files["zarr.json"])
        del files["zarr.json"]["attributes"]["evenslice"]["provenance"]["command"]
    assert one["zarr.json"] == two["zarr.json"]


def run(*words):
    """Run the command line here, and return how it exits."""
    try:
        cli.main([str(word) for word in words])
    except SystemExit as stop:
        return stop.code
    raise AssertionError("the command line did not exit")


def started(*words, **options):
    """Start the command line in another process."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([sys.executable, "-m", "evenslice", *map(str, words)], **options)


def manifest_of(out):
    """What the folder of a run says."""
    return json.loads((Path(f"{out}.run") / "manifest.json").read_text())


def identity():
    """A network that answers with the grey value as probability, 255 for 1."""
    conv = nn.Conv2d(3, 1, 1, bias=False)
    conv.weight.data[:] = torch.tensor([0.0, 1.0, 0.0])[None, :, None, None]

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv

        def forward(self, x):
            return (self.conv(x) / 255).clamp(1e-4, 1 - 1e-4).logit()

    return Model(Linear().eval(), Spec(), Normalisation((0.0,), (1.0,), "file"), stride=1)
