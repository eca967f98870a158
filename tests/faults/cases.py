"""What is run with faults: quick runs of every verb that writes, how they are gone on with, and what they have to leave in the end."""

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from faults.injecting import SILENT

HIDDEN = re.compile(r"\.(part|old|gone|moving|held)(\.|$)|\.partial$")
OPTIONS = ["--slices", 3, "--mean", 128, "--std", 40, "--precision", "fp32", "--device", "cpu"]
QUICK = [
    "--weights",
    "none",
    "--encoder-depth",
    1,
    "--steps",
    4,
    "--batch",
    1,
    "--crop",
    32,
    "--device",
    "cpu",
    "--init",
    "rgb",
]
STUDY = """
name = "tiny"
[train]
weights = "none"
encoder_depth = 1
steps = 2
batch = 1
crop = 32
validation_runs = 1
[audit]
windows = 8
tile = 32
methods = ["gradient"]
[datasets.grey]
raw = "raw.tif"
labels = "labels.tif"
test = "7:9"
[[grid]]
dataset = "grey"
init = ["rgb", "green"]
"""


@dataclass(frozen=True)
class Case:
    """A run.

    Attributes
    ----------
    words
        Of the command line, ``IN`` in them is the folder of what is read; or a function.
    outs
        What is old or new at every moment: files and folders.
    state
        Folder that a run which failed may leave, to be gone on with.
    again
        Words to go on with it.
    earlier
        The words of a run before that leaves other results under the same names; ``--force`` replaces them.
    before
        Called in the process first.
    forced
        Whether ``--force`` is among the words.
    together
        Whether its output is old or new as a whole at every moment; else each of its files is.
    """

    words: list | Callable[[], None]
    outs: tuple[str, ...]
    state: str = ""
    again: tuple[str, ...] = ()
    earlier: list | Callable[[], None] | None = None
    before: Callable[[], None] | None = None
    forced: bool = field(default=False)
    together: bool = field(default=True)

    def next(self, folder):
        """Return the words with which a user goes on after a fault."""
        if callable(self.words):
            return self.words
        there = bool(self.state) and (folder / self.state).exists()
        done = bool(self.again) and (folder / self.outs[0]).exists() and not self.forced
        return self.words + list(self.again) if there or done else self.words


def quick_training():
    """Leave out what costs time and writes nothing: the search for stems, the certificate; look twice."""
    from evenslice.learn import fit
    from evenslice.model import build, checkpoint
    from evenslice.verbs import train

    fit.FEWEST_CHUNK = 2
    build.uniform_stem = lambda module, *_, **__: module
    checkpoint.stem_record = lambda model: []
    train.certify = lambda *_, **__: SimpleNamespace(
        to_dict=lambda: {"float32": 0.0, "float64": 0.0, "symmetric": True}
    )


def quick_study():
    """And audits that only look at the weights."""
    from evenslice.study import cell as study_cell

    quick_training()
    study_cell.audit = lambda model, *_, **__: SimpleNamespace(to_dict=lambda: _audit(model))


def _audit(model):
    index = float(
        sum(
            value.double().sum()
            for value in model.module.state_dict().values()
            if value.is_floating_point()
        )
    )
    method = {
        "shares": [0.3, 0.4, 0.3],
        "mirror_index": index,
        "mirror_low": index - 1,
        "mirror_high": index + 1,
    }
    return {
        "methods": {"gradient": method},
        "verdict": "symmetric",
        "reversal": {"probability_change": abs(index)},
    }


def make_inputs(folder):
    """Write what all cases read."""
    from scipy.ndimage import gaussian_filter

    from evenslice import save_volume

    noise = gaussian_filter(np.random.default_rng(0).normal(size=(9, 48, 64)), (1, 2, 2))
    grey = np.uint8(np.clip(128 + 300 * noise, 0, 255))
    save_volume(folder / "raw.tif", grey, (30, 4, 4))
    save_volume(folder / "labels.tif", np.uint8(grey > 128))
    (folder / "s.toml").write_text(STUDY)


def segment(out, *more):
    return ["segment", "faults.nets:tiny", "IN/raw.tif", out, *OPTIONS, *more]


def train(*more):
    return ["train", "IN/raw.tif", "IN/labels.tif", "m.safetensors", *QUICK, *more]


def saving(name, value):
    def save():
        from evenslice import save_volume

        save_volume(name, np.full((4, 40, 300), value, np.uint8), (30, 4, 4))

    return save


def filling(text, force):
    def fill():
        from evenslice.volume.atomic import folder_written_beside

        with folder_written_beside(Path("out"), force) as folder:
            (folder / "sub").mkdir()
            for name in ("a.txt", "b.txt", "sub/c.txt"):
                (folder / name).write_text(text)

    return fill


def modelling(seed):
    def save():
        import torch
        from torch import nn

        from evenslice import save_model
        from evenslice.model import checkpoint
        from evenslice.model.spec import Model, Spec

        checkpoint.stem_record = lambda model: []
        torch.manual_seed(seed)
        save_model("m.safetensors", Model(nn.Conv2d(3, 1, 3), Spec()))

    return save


TRAINED = ("m.safetensors", "m.last.safetensors", "m.log.csv", "m.report.html", "t.json")
OBJECTS = ["--instances", "components", "--tile", 40, "--roi", "0:2,:,:"]
CASES = {
    "segment zarr": Case(
        segment("s.zarr", *OBJECTS, "--json", "t.json"),
        ("s.zarr", "s.report.html", "t.json"),
        "s.zarr.run",
        ("--resume",),
    ),
    "segment zarr over": Case(
        segment("s.zarr", *OBJECTS, "--force"),
        ("s.zarr", "s.report.html"),
        "s.zarr.run",
        (),
        segment("s.zarr", "--threshold", 0.7),
        forced=True,
    ),
    "segment tiff": Case(
        segment("s.tif", "--roi", "0:2,:,:"), ("s.tif", "s.report.html"), "s.tif.run", ("--resume",)
    ),
    "segment shard": Case(
        segment("s.tif", "--shard", "2/2", "--tile", 40),
        ("s.tif", "s.report.html"),
        "s.tif.run",
        ("--resume",),
        segment("s.tif", "--shard", "1/2", "--tile", 40),
    ),
    "train": Case(
        train("--json", "t.json"),
        TRAINED,
        "m.safetensors.run",
        ("--resume",),
        before=quick_training,
    ),
    "train over": Case(
        train("--force"),
        TRAINED[:4],
        "m.safetensors.run",
        ("--resume",),
        train("--seed", 1),
        quick_training,
        forced=True,
    ),
    "study": Case(
        ["study", "IN/s.toml", "--out", "out", "--device", "cpu"],
        ("out",),
        "out",
        before=quick_study,
    ),
    "save zarr": Case(saving("v.zarr", 1), ("v.zarr",), earlier=saving("v.zarr", 2)),
    "save tiff": Case(saving("v.tif", 1), ("v.tif",), earlier=saving("v.tif", 2)),
    "save model": Case(modelling(0), ("m.safetensors",), earlier=modelling(1)),
    "folder": Case(filling("new", True), ("out",), earlier=filling("old", False), together=False),
    "evaluate": Case(
        ["evaluate", "IN/labels.tif", "IN/labels.tif", "--json", "t.json", "--force"], ("t.json",)
    ),
}


def content_of(folder, names=None):
    """Return all files below a folder and what they hold, without what a clock says."""
    folder = Path(folder)
    found = {
        str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()
    }
    return {
        name: _timeless(name, file.read_bytes())
        for name, file in found.items()
        if names is None or name.split("/")[0] in names
    }


def _timeless(name, data):
    if name.endswith("rows.csv"):
        rows = list(csv.DictReader(io.StringIO(data.decode())))
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
    if name.endswith(("row.json", "study.json")):
        return json.dumps(_without(json.loads(data), "seconds"))
    if name == "out/report.html":  # tells seconds
        return b"</html>" in data[-20:]
    return data


def _without(value, key):
    if isinstance(value, dict):
        return {name: _without(inner, key) for name, inner in value.items() if name != key}
    return [_without(inner, key) for inner in value] if isinstance(value, list) else value


def hidden_in(folder):
    """Return what is not complete and has no name."""
    return [
        str(file.relative_to(folder))
        for file in Path(folder).rglob("*")
        if HIDDEN.search(file.name)
    ]


__all__ = ["CASES", "SILENT", "Case", "content_of", "hidden_in", "make_inputs"]
