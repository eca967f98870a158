"""Voxels and labels that cannot be worked with: not numbers, constant, too few, huge, negative, of another shape or type."""

import numpy as np
import pytest
import tifffile
from bad_hdf5 import file_of
from checking import Case, listed

from evenslice import save_volume

GREY = np.random.default_rng(0).integers(0, 200, (9, 48, 64)).astype(np.uint8)
HALF = np.uint8(GREY > 100)
TRAIN = (
    "--weights none --encoder test_resnet.r160_in1k --encoder-depth 2 --steps 2 --crop 32 --batch 2"
)
AUDIT = "--tile 32 --windows 4 --methods gradient"


def saved(**volumes):
    """Save volumes as HDF5, which takes every type."""
    return lambda place: [
        file_of(f"{name}.h5", lambda file, v=v: file.__setitem__("v", v))(place)
        for name, v in volumes.items()
    ]


def spotted(value: float, dtype=np.float32) -> np.ndarray:
    """A volume in which one voxel of each slice is something else."""
    found = GREY.astype(dtype)
    found[:, 20, 30] = value
    return found


def sized(**volumes):
    """Save volumes with the voxel size 30 x 4 x 4 nm, and 30 x 8 x 8 for names that begin with c."""
    return lambda place: [
        save_volume(
            place / f"{name}.tif", v, (30.0, 8.0, 8.0) if name[0] == "c" else (30.0, 4.0, 4.0)
        )
        for name, v in volumes.items()
    ]


BIG = HALF.astype(np.uint64)
VALUES = [
    Case("not finite: nan in segment", "segment model.safetensors n.h5 out.zarr", ("n.h5:/v slice 0 has 1 voxels that are NaN or infinite",), saved(n=spotted(np.nan))),
    Case("not finite: infinity in segment", "segment model.safetensors n.h5 out.tif", ("n.h5", "NaN or infinite"), saved(n=spotted(np.inf))),
    Case("not finite: nan in audit", f"audit model.safetensors n.h5 {AUDIT}", ("n.h5", "NaN or infinite"), saved(n=np.full(GREY.shape, np.nan, np.float32))),
    Case("not finite: minus infinity in train", f"train n.h5 labels.tif o.safetensors {TRAIN}", ("n.h5", "NaN or infinite"), saved(n=spotted(-np.inf))),
    Case("not finite: nan in the prediction", "evaluate n.h5 labels.tif", ("n.h5", "expected probabilities from 0 to 1"), saved(n=spotted(np.nan) / 255)),
    Case("not finite: nan in labels", f"train raw.tif n.h5 o.safetensors {TRAIN}", ("n.h5", "fractions"), saved(n=spotted(np.nan))),
    Case("not finite: nan in the truth", "evaluate labels.tif n.h5", ("n.h5", "fractions"), saved(n=spotted(np.nan))),
    Case("not finite: nan in inspect", "inspect n.h5", "no finite value", saved(n=np.full(GREY.shape, np.nan)), code=0),
    Case("not finite: numbers that become infinite", "segment model.safetensors n.h5 out.zarr", ("n.h5:/v slice 0 holds numbers beyond 1e+30",), saved(n=spotted(1e300, np.float64))),
    Case("constant: in segment", "segment model.safetensors k.h5 out.tif", "out.tif", saved(k=np.full_like(GREY, 7)), code=0),
    Case("constant: in audit", f"audit model.safetensors k.h5 {AUDIT} --mean 1 --std 1", "k.h5:/v is constant", saved(k=np.full_like(GREY, 7))),
    Case("constant: in train", f"train k.h5 labels.tif o.safetensors {TRAIN}", "k.h5:/v is constant", saved(k=np.full_like(GREY, 7))),
    Case("constant: normalised by itself", "segment model.safetensors k.h5 out.zarr --normalisation volume", "k.h5:/v is constant", saved(k=np.full_like(GREY, 7))),
    Case("too few: one slice in segment", "segment model.safetensors f.h5 out.zarr", ("f.h5:/v has 1 slices", "at least 2"), saved(f=GREY[:1])),
    Case("too few: two slices in audit", f"audit model.safetensors f.h5 {AUDIT}", ("f.h5:/v has 2 slices", "at least 3"), saved(f=GREY[:2])),
    Case("too few: four slices in train", f"train f.h5 g.h5 o.safetensors {TRAIN}", ("f.h5:/v has 4 slices",), saved(f=GREY[:4], g=HALF[:4])),
    Case("too few: slices for nine", f"train raw.tif labels.tif o.safetensors {TRAIN} --slices 9", ("raw.tif has 9 slices",)),
    Case("too few: one pixel", "segment model.safetensors f.h5 out.zarr", "out.zarr", saved(f=GREY[:, :1, :1]), code=0),
    Case("too few: pixels for the network", f"train f.h5 g.h5 o.safetensors {TRAIN} --batch 1", "--batch", saved(f=GREY[:, :1, :1], g=HALF[:, :1, :1]), slow=True),
]  # fmt: skip
LABELS = [
    Case("labels: negative in evaluate", "evaluate labels.tif l.h5", ("l.h5:/v holds the negative label -1",), saved(l=HALF.astype(np.int16) - 1)),
    Case("labels: negative in the prediction", "evaluate l.h5 labels.tif --as instances", ("l.h5", "negative label"), saved(l=HALF.astype(np.int16) - 1)),
    Case("labels: negative in train", f"train raw.tif l.h5 o.safetensors {TRAIN}", ("l.h5", "negative label -5"), saved(l=HALF.astype(np.int64) * -5)),
    Case("labels: 2^40 as classes", "evaluate labels.tif l.h5", "l.h5", saved(l=BIG * 2**40)),
    Case("labels: 2^40 as objects", "evaluate l.h5 l.h5 --as instances", "adapted Rand error", saved(l=BIG * 2**40), code=0),
    Case("labels: 2^63 as objects", "evaluate l.h5 m.h5 --as instances", "adapted Rand error", saved(l=BIG << np.uint64(63), m=BIG * (2**64 - 1)), code=0),
    Case("labels: 2^63 as classes", "evaluate l.h5 labels.tif", "l.h5", saved(l=BIG << np.uint64(63))),
    Case("labels: 2^63 in train", f"train raw.tif l.h5 o.safetensors {TRAIN} --target classes", ("l.h5", "expected classes 0, 1, 2"), saved(l=BIG << np.uint64(63))),
    Case("labels: 2^63 as boundaries", f"train raw.tif l.h5 o.safetensors {TRAIN} --target boundary", "validation slices", saved(l=BIG << np.uint64(63)), code=0, slow=True),
    Case("labels: as many as voxels", "evaluate l.h5 labels.tif", "l.h5", saved(l=np.arange(GREY.size).reshape(GREY.shape))),
    Case("labels: fractions in train", f"train raw.tif l.h5 o.safetensors {TRAIN}", ("l.h5", "fractions"), saved(l=GREY / 255)),
    Case("labels: fractions in the truth", "evaluate labels.tif l.h5", ("l.h5", "fractions"), saved(l=GREY / 255)),
    Case("labels: whole numbers as floats", "evaluate l.h5 l.h5", "Dice", saved(l=HALF.astype(np.float32)), code=0),
    Case("labels: floats as objects", "evaluate l.h5 labels.tif --as instances", ("l.h5", "expected objects as whole numbers"), saved(l=HALF.astype(np.float32))),
    Case("labels: probabilities above 1", "evaluate l.h5 labels.tif", ("l.h5", "expected probabilities from 0 to 1"), saved(l=GREY.astype(np.float32))),
    Case("labels: another shape in evaluate", "evaluate labels.tif l.h5", ("labels.tif has shape", "like l.h5"), saved(l=HALF[:, :40])),
    Case("labels: another shape in train", f"train raw.tif l.h5 o.safetensors {TRAIN}", ("l.h5", "like raw.tif"), saved(l=HALF.transpose(2, 1, 0))),
    Case("labels: another shape in audit", f"audit model.safetensors raw.tif --labels l.h5 {AUDIT}", ("l.h5", "like raw.tif"), saved(l=HALF[1:])),
    Case("labels: all one value in train", f"train raw.tif l.h5 o.safetensors {TRAIN}", "l.h5:/v holds only the value 3", saved(l=np.full_like(HALF, 3))),
    Case("labels: all background in evaluate", "evaluate l.h5 l.h5", "Scores", saved(l=np.zeros_like(HALF)), code=0),
    Case("labels: all ignored in evaluate", "evaluate l.h5 l.h5 --ignore 3", "Scores", saved(l=np.full_like(HALF, 3)), code=0),
    Case("labels: all ignored in train", f"train raw.tif l.h5 o.safetensors {TRAIN} --ignore-label 3", "l.h5", saved(l=np.full_like(HALF, 3))),
    Case("labels: only foreground", f"train raw.tif l.h5 o.safetensors {TRAIN} --target foreground", "l.h5:/v holds no label 0", saved(l=HALF + np.uint8(1))),
    Case("labels: gaps between classes", f"train raw.tif l.h5 o.safetensors {TRAIN} --target classes", ("l.h5", "without gaps"), saved(l=HALF * np.uint8(5))),
    Case("labels: complex", f"train raw.tif l.h5 o.safetensors {TRAIN}", ("l.h5", "(9 x 48 x 64 complex128)"), saved(l=HALF.astype(complex))),
    Case("labels: truth of another kind in audit", f"audit model.safetensors raw.tif --labels l.h5 {AUDIT}", ("l.h5:/v", "fractions"), saved(l=GREY / 255)),
    Case("labels: probabilities as the truth", "evaluate labels.tif p.tif", ("p.tif holds probabilities", "give them second"), lambda place: probabilities(place / "p.tif")),
    Case("voxel sizes: apart in evaluate", "evaluate coarse.tif fine.tif", ("coarse.tif has voxels of 30 x 8 x 8 nm", "fine.tif of 30 x 4 x 4 nm"), sized(coarse=HALF, fine=HALF), code=0),
    Case("voxel sizes: apart in train", f"train raw.tif coarse.tif o.safetensors {TRAIN}", ("raw.tif has voxels of 30 x 4 x 4 nm", "coarse.tif of 30 x 8 x 8 nm"), sized(coarse=HALF), code=0, slow=True),
    Case("voxel sizes: apart in audit", f"audit model.safetensors raw.tif --labels coarse.tif {AUDIT}", ("raw.tif has voxels of 30 x 4 x 4 nm", "coarse.tif of 30 x 8 x 8 nm"), sized(coarse=HALF), code=0),
]  # fmt: skip
TYPES = [
    Case(
        f"dtype: {np.dtype(kind).name} in segment",
        "segment model.safetensors v.h5 out.tif",
        "out.tif",
        saved(v=GREY.astype(kind)),
        code=0,
    )
    for kind in (np.int16, np.uint64, np.float16, np.float64, bool)
]
TYPES += [
    Case(
        "dtype: int64 in audit",
        f"audit model.safetensors v.h5 {AUDIT}",
        "windows of",
        saved(v=GREY.astype(np.int64) - 100),
        code=0,
    ),
    Case(
        "dtype: float16 in train",
        f"train v.h5 labels.tif o.safetensors {TRAIN}",
        "validation slices",
        saved(v=GREY.astype(np.float16)),
        code=0,
        slow=True,
    ),
    Case(
        "dtype: longdouble in segment",
        "segment model.safetensors v.h5 out.tif",
        "out.tif",
        saved(v=GREY.astype(np.longdouble)),
        code=0,
    ),
    Case(
        "dtype: uint64 beyond float",
        "segment model.safetensors v.h5 out.tif",
        "out.tif",
        saved(v=GREY.astype(np.uint64) << np.uint64(56)),
        code=0,
    ),
]


def probabilities(path):
    from evenslice.volume.array import Volume

    save_volume(path, Volume(HALF, meaning="probabilities"))


@pytest.mark.parametrize("case", listed(VALUES))
def test_values(checked, case):
    checked(case)


@pytest.mark.parametrize("case", listed(LABELS))
def test_labels(checked, case):
    checked(case)


@pytest.mark.parametrize("case", listed(TYPES))
def test_types(checked, case):
    checked(case)


def test_a_bool_tiff_is_a_mask(place, checked):
    tifffile.imwrite("b.tif", HALF.astype(bool), photometric="minisblack")
    checked(Case("dtype: one bit a voxel in evaluate", "evaluate b.tif b.tif", "1.0", code=0))
