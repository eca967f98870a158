"""Voxels, labels and options that cannot be worked with: refused with the fact, exit code 2."""

import h5py
import numpy as np
import pytest

GREY = np.random.default_rng(0).integers(0, 200, (9, 48, 64)).astype(np.uint8)
HALF = np.uint8(GREY > 100)
SEGMENT = "segment model.safetensors {} out.zarr --device cpu"
AUDIT = "audit model.safetensors {} --tile 32 --windows 4 --methods gradient --device cpu"
TRAIN = (
    "train {} {} o.safetensors --weights none --encoder test_resnet.r160_in1k --encoder-depth 2 "
    "--steps 2 --crop 32 --batch 2 --device cpu"
)


def spotted(value, dtype=np.float32):
    found = GREY.astype(dtype)
    found[:, 20, 30] = value
    return found


CONSTANT = np.full_like(GREY, 7)
VALUES = [
    ("nan in segment", SEGMENT.format("a.h5"), spotted(np.nan), "NaN or infinite"),
    ("infinity in segment", SEGMENT.format("a.h5"), spotted(np.inf), "NaN or infinite"),
    ("nan in audit", AUDIT.format("a.h5"), spotted(np.nan), "NaN or infinite"),
    ("nan in train", TRAIN.format("a.h5", "labels.tif"), spotted(np.nan), "NaN or infinite"),
    ("nan in labels", TRAIN.format("raw.tif", "a.h5"), spotted(np.nan), "fractions"),
    ("constant in train", TRAIN.format("a.h5", "labels.tif"), CONSTANT, "constant"),
    ("one slice", SEGMENT.format("a.h5"), GREY[:1], "1 slices"),
    ("two slices in audit", AUDIT.format("a.h5"), GREY[:2], "2 slices"),
    ("negative labels", "evaluate labels.tif a.h5", HALF.astype(np.int16) - 1, "negative label"),
    ("fractions as labels", TRAIN.format("raw.tif", "a.h5"), GREY / 255, "fractions"),
    ("fractions as ground truth", "evaluate labels.tif a.h5", GREY / 255, "fractions"),
    ("probabilities above 1", "evaluate a.h5 labels.tif", GREY.astype(np.float32), "from 0 to 1"),
    ("another shape", "evaluate labels.tif a.h5", HALF[:, :40], "has shape"),
    ("one label only", TRAIN.format("raw.tif", "a.h5"), np.full_like(HALF, 3), "only the value 3"),
    ("gaps", TRAIN.format("raw.tif", "a.h5") + " --target classes", HALF * 5, "without gaps"),
    ("complex", "inspect a.h5", HALF.astype(complex), "complex"),
]


@pytest.mark.parametrize(
    ("words", "values", "fact"), [case[1:] for case in VALUES], ids=[case[0] for case in VALUES]
)
def test_values_that_cannot_be_used(refused, place, words, values, fact):
    with h5py.File("a.h5", "w") as file:
        file["v"] = values
    refused(words, "a.h5", fact)


S, A, E = SEGMENT.format("raw.tif"), AUDIT.format("raw.tif"), "evaluate labels.tif labels.tif"
T = TRAIN.format("raw.tif", "labels.tif")
OPTIONS = [
    (S, "--threshold nan"),
    (S, "--threshold -1"),
    (S, "--tile -5"),
    (S, "--memory 0"),
    (S, "--min-size 0"),
    (S, "--voxel-size 0,0,0"),
    (S, "--voxel-size 1,2"),
    (S, "--voxel-size a,b,c"),
    (S, "--mean 1 --std 0"),
    (S, "--mean 1"),
    (S, "--mean 1,2 --std 1,2"),
    (S, "--slices 2"),
    (S, "--roi 5:2,:,:"),
    (S, "--roi 0:99,:,:"),
    (S, "--roi :,:"),
    (S, "--shard 0/4"),
    (S, "--shard 5/4"),
    (S, "--shard a/b"),
    (S, "--shard 1/2 --scheduler tcp://127.0.0.1:1"),
    (S, "--axis t"),
    (S, "--magic 3"),
    (A, "--windows 0"),
    (A, "--windows 1e9"),
    (A, "--margin nan"),
    (A, "--fail-above inf"),
    (A, "--methods magic"),
    (A, "--region truth"),
    (A, "--seed -1"),
    (E, "--tolerance nan"),
    (E, "--ignore 1.5"),
    (T, "--lr nan"),
    (T, "--steps 0"),
    (T, "--crop 1"),
    (T, "--devices 0"),
    (T, "--encoder-depth 99"),
    (T, "--validation 5:2"),
    (T, "--validation 0:9"),
    (T, "--init gren"),
    (T, "--encoder magic"),
    (T, "--arch magic"),
    ("fix model.safetensors f.safetensors", "--labels labels.tif"),
    ("export model.safetensors out.onnx", "--opset 3"),
    ("export model.safetensors out.jpg", ""),
    ("data fetch nothing", ""),
    ("data fetch lucchi --to raw.tif", ""),
    ("evaluate labels.tif labels.tif --json raw.tif", ""),
    ("segment model.safetensors raw.tif raw.tif", ""),
]


@pytest.mark.parametrize(
    ("words", "options"), OPTIONS, ids=[f"{w.split()[0]} {o}" for w, o in OPTIONS]
)
def test_options_that_cannot_be_used(refused, words, options):
    refused(f"{words} {options}", *options.split()[:1] if options.startswith("--magic") else ())
