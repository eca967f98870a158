"""What asymmetry comes from lagging labels, and what each remedy does about it: one study.

    python benchmarks/causes.py OUT [--real ../shared/data]

Makes phantoms of 45 slices whose labels lag: cut a quarter or half of a slice earlier, or copied
from the slice before in 60 % of the slices; networks are scored on 15 other slices with their true
labels. Writes them and the study file into OUT, and runs what is pending of it there; it may be
killed and started again. With --real the volumes of that folder are trained on, too. About two
minutes of one core per training.
"""

import argparse
from pathlib import Path

import numpy as np

from evenslice import save_volume
from evenslice.data.phantom import phantom
from evenslice.study.run import study
from evenslice.volume.array import Volume

FINE, TRAIN, GAP, TEST, SIDE = 4, 45, 5, 15, 192
VOXEL = 50.0, 4.0, 4.0
LAGS = {"copied": None, "half": 2, "true": 0, "quarter": 1}  # in quarters of a slice
REAL = {
    "VNC mitochondria": ("vnc", "mitochondria", "foreground"),
    "FIB-25": ("fib25", "neurons", "boundary"),
    "ISBI 2012": ("isbi2012", "membranes", "foreground"),
}
HEAD = """\
name = "causes"
title = "What comes from labels that lag, and what from the pretrained weights?"
precision = "fp32"

[train]
arch = "unet"
encoder = "tf_efficientnet_lite0"
encoder_depth = 4
steps = 200
batch = 4
crop = 128
validation_runs = 1

[audit]
methods = ["gradient", "ablation", "shapley"]
windows = 24
tile = 128
"""
GRID = """
[[grid]]
dataset = "{dataset}"
init = "{init}"
z_order = {orders}
tie = "{tie}"
augment_reversal = {half}
seed = [0, 1, 2]
"""
BOTH = ["forward", "reversed"]


def write_phantoms(folder):
    """Write raw slices and labels; a lagging label is that of a place earlier in the tissue."""
    if (folder / "truth.tif").exists():
        return
    depth = TRAIN + GAP + TEST
    made = phantom((depth * FINE, SIDE, SIDE), 0, (VOXEL[0] / FINE, *VOXEL[1:]))
    raw, places = made.raw[::FINE], np.arange(0, TRAIN * FINE, FINE)
    chosen = np.random.default_rng(0).random(TRAIN) < 0.6
    save_volume(folder / "train.tif", Volume(raw[:TRAIN], VOXEL))
    save_volume(folder / "test.tif", Volume(raw[-TEST:], VOXEL))
    for name, quarters in LAGS.items():
        earlier = FINE * chosen if quarters is None else quarters
        labels = made.membranes[np.maximum(places - earlier, 0)]
        save_volume(folder / f"{name}.tif", Volume(labels, VOXEL, meaning="labels"))
    truth = made.membranes[::FINE][-TEST:]
    save_volume(folder / "truth.tif", Volume(truth, VOXEL, meaning="labels"))


def tables(real):
    """Yield the parts of the study file."""
    yield HEAD
    for name in LAGS:
        yield f'\n[datasets."{name}"]\nraw = "train.tif"\nlabels = "{name}.tif"\n'
        yield 'test_raw = "test.tif"\ntest_labels = "truth.tif"\n'
    for name in LAGS:
        yield from grids(name, ("none", "mirror", "half"))
    for name, (folder, labels, target) in ({} if real is None else REAL).items():
        place = "" if real is None else real.resolve() / folder
        yield f'\n[datasets."{name}"]\nraw = "{place}/raw.tif"\nlabels = "{place}/{labels}.tif"\n'
        yield f'target = "{target}"\n'
        yield from grids(name, ("none", "mirror"))
    for name in LAGS:
        yield GRID.format(dataset=name, init="mirror", orders=BOTH, tie="none", half="false")


def grids(name, remedies):
    """Yield the trainings on a data set: both inits in both orders, and remedies."""
    for remedy in remedies:
        orders, tie = BOTH if remedy == "none" else BOTH[:1], remedy.replace("half", "none")
        half = str(remedy == "half").lower()
        yield GRID.format(dataset=name, init="green", orders=orders, tie=tie, half=half)
    yield GRID.format(dataset=name, init="rgb", orders=BOTH, tie="none", half="false")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--real", type=Path)
    given = parser.parse_args()
    given.out.mkdir(exist_ok=True)
    write_phantoms(given.out)
    file = given.out / "causes.toml"
    file.write_text("".join(tables(given.real)))
    found = study(file, given.out / "study")
    for one in found.causes:
        print(one.method, one.treatment, one.dataset, one.data, one.slots, one.spread, one.seeds)


if __name__ == "__main__":
    main()
