"""HDF5 files that people have: ilastik, BigDataViewer, CREMI, funlib, Fiji, netCDF."""

import json

import h5py
import numpy as np

from inputs.case import Case

HDF5 = "HDF5"
STACK = np.random.default_rng(0).integers(0, 255, (7, 20, 24), dtype=np.uint8)
SIGNED = STACK.astype(np.int16) - 100
BRIGHT = np.linspace(20000, 50000, STACK.size).reshape(STACK.shape).astype(np.uint16)


def dataset(data=STACK, name="data", scales="", **attributes):
    """What makes a file of one dataset with these attributes, and netCDF's scales if asked for."""

    def make(folder):
        with h5py.File(folder / "a.h5", "w") as file:
            file[name] = data
            file[name].attrs.update(attributes)
            for axis, scale in enumerate(scales):
                file[scale] = np.arange(file[name].shape[axis])
                file[scale].make_scale(scale)
                file[name].dims[axis].attach_scale(file[scale])
        return f"{folder / 'a.h5'}:/{name}"

    return make


def axistags(axes, resolution=0.0, unit=None):
    """How ilastik describes its axes."""
    more = {} if unit is None else {"unit": unit}
    return json.dumps(
        {"axes": [{"key": k, "typeFlags": 2, "resolution": resolution} | more for k in axes]}
    )


def cells(data, data_type=None):
    """A setup of BigDataViewer; its resolutions are relative sizes of levels (x, y, z)."""

    def make(folder):
        with h5py.File(folder / "a.h5", "w") as file:
            file["t00000/s00/0/cells"] = data
            file["s00/resolutions"] = [[1.0, 1.0, 1.0], [2.0, 2.0, 1.0]]
            if data_type:
                file["s00"].attrs["dataType"] = data_type
        return folder / "a.h5"

    return make


def several(**arrays):
    def make(folder):
        with h5py.File(folder / "a.h5", "w") as file:
            for name, data in arrays.items():
                file[name] = data
        return folder / "a.h5"

    return make


def read(found, answer, make, pixels=STACK, voxel_nm=None, warns=None, **more):
    return Case(HDF5, found, answer, make, pixels, voxel_nm, warns, **more)


def refused(found, make, words, answer="refused"):
    return Case(HDF5, found, answer, make, refused=words)


CHANNELS = r"more than one value along c \(axes"
IMAGE = np.zeros((20, 24, 3), np.uint8)
CASES = [
    read(
        "`axistags` z, y, x, and c or t of size 1",
        "axes of size 1 are dropped",
        dataset(STACK[None, ..., None], axistags=axistags("tzyxc")),
    ),
    refused("`axistags` y, x, c", dataset(IMAGE, axistags=axistags("yxc")), CHANNELS),
    refused(
        "`axistags` z, y, x, c with one slice and several channels",
        dataset(IMAGE[None], axistags=axistags("zyxc")),
        CHANNELS,
    ),
    refused("`axistags` c, y, x", dataset(axistags=axistags("cyx")), CHANNELS),
    refused("`axistags` t, y, x", dataset(axistags=axistags("tyx")), "more than one value along t"),
    refused("`axistags` x, y, z", dataset(axistags=axistags("xyz")), "expected z, y, x in this"),
    refused(
        "`axistags` of more axes than there are",
        dataset(axistags=axistags("zyxc")),
        r"has 3 axes \(7 x 20 x 24\) but its axistags names 4",
    ),
    refused(
        "`axistags` that are not JSON", dataset(axistags="zyx"), "axistags that cannot be read"
    ),
    read(
        "`axistags` with a resolution and its unit",
        "is the voxel size",
        dataset(axistags=axistags("zyx", 0.25, "um")),
        voxel_nm=(250, 250, 250),
    ),
    read(
        "`axistags` with a resolution but no unit",
        "voxel size not stated",
        dataset(axistags=axistags("zyx", 0.25)),
    ),
    refused(
        "`DIMENSION_LABELS` c, y, x",
        dataset(DIMENSION_LABELS=np.array(["c", "y", "x"], object)),
        CHANNELS,
    ),
    refused(
        "`DIMENSION_LABELS` and `axistags` that differ",
        dataset(DIMENSION_LABELS=np.array(["x", "y", "z"], object), axistags=axistags("zyx")),
        "axistags z, y, x but DIMENSION_LABELS x, y, z",
    ),
    refused("dimension scales x, y, z (netCDF)", dataset(scales="xyz"), "axes x 7, y 20, z 24"),
    refused(
        "`axis_names` c^, z, y, x (funlib) with several channels",
        dataset(np.stack([STACK] * 2), axis_names=["c^", "z", "y", "x"]),
        r"more than one value along c\^",
    ),
    refused("no names, shape y, x, 3", dataset(IMAGE), "that of an image with 3 colours"),
    refused("no names, shape 2, z, y, x", dataset(np.stack([STACK] * 2)), "the shape 2 x 7 x 20"),
    read("no names, shape z, 1, y, x", "z, y, x", dataset(STACK[:, None])),
    refused("several volumes", several(raw=STACK, labels=STACK), r"2 volumes: /labels .*, /raw"),
    read(
        "one volume beside tables and images",
        "the volume",
        several(raw=STACK, image=IMAGE, table=np.arange(9)),
    ),
    read(
        "`resolution` (CREMI) or `voxel_size` (funlib)",
        "z, y, x in nm",
        dataset(resolution=[40.0, 4.0, 5.0]),
        voxel_nm=(40, 4, 5),
    ),
    read(
        "`offset` beside it",
        "the place of the first voxel, in the same unit",
        dataset(resolution=[0.04, 0.004, 0.005], offset=[0.4, 0.008, 0.0], units="um"),
        voxel_nm=(40, 4, 5),
        origin=(10, 2, 0),
    ),
    read(
        "`resolution` in the order x, y, z: x more than 1.5 times y",
        "voxel size not stated, and warned of",
        dataset(resolution=[4.0, 4.0, 40.0]),
        warns="voxels of 4 x 4 x 40 nm, expected z, y, x",
    ),
    read(
        "`voxel_size` with `units`, one for each axis",
        "each in its own unit",
        dataset(voxel_size=[0.04, 4.0, 50.0], units=["um", "nm", "angstrom"]),
        voxel_nm=(40, 4, 5),
    ),
    read(
        "`voxel_size` for each axis of an array with channels",
        "that of z, y, x",
        dataset(STACK[None], voxel_size=[1, 40, 4, 5], units=["", "nm", "nm", "nm"]),
        voxel_nm=(40, 4, 5),
    ),
    read(
        "`element_size_um` (Fiji, PlantSeg, Luxendo)",
        "z, y, x in µm",
        dataset(element_size_um=[0.05, 0.004, 0.005]),
        voxel_nm=(50, 4, 5),
    ),
    read(
        "`resolution` without `units`, smaller than an atom",
        "voxel size not stated",
        dataset(resolution=[0.04, 0.004, 0.004]),
    ),
    read(
        "`units` that are unknown; sizes that are 0, negative or not three",
        "voxel size not stated",
        dataset(voxel_size=[40, 4, -5], resolution=[4.0], element_size_um=[0.0, 1, 1]),
    ),
    read(
        "`resolution` and `element_size_um` that differ",
        "voxel size not stated, and warned of",
        dataset(resolution=[40.0, 4, 4], element_size_um=[0.03, 0.004, 0.004]),
        warns="resolution 40 x 4 x 4 nm but element_size_um 30 x 4 x 4 nm",
    ),
    read(
        "BigDataViewer cells in int16 without `dataType`",
        "uint16, as BigDataViewer stores them",
        cells(BRIGHT.view(np.int16)),
        BRIGHT,
    ),
    read("BigDataViewer cells with `dataType` int16", "int16", cells(SIGNED, "int16"), SIGNED),
    read("BigDataViewer cells in uint8", "uint8", cells(STACK)),
    refused(
        "BigDataViewer cells of another size than `dataType`",
        cells(STACK, "uint16"),
        "type uint8 but the attribute dataType of s00 states uint16",
    ),
    read(
        "`scale_factor`, `add_offset` (netCDF)",
        "the stored numbers, and warned of",
        dataset(scale_factor=0.5, add_offset=3.0),
        warns="scale_factor 0.5 and add_offset 3.0, which are not applied",
    ),
    read("big-endian numbers", "the same numbers", dataset(SIGNED.astype(">i2")), SIGNED),
    read("an enumeration false, true", "bool", dataset(STACK > 9), STACK > 9),
    refused(
        "compound or complex numbers",
        dataset(STACK.astype("c8")),
        "type complex64, expected whole or real",
    ),
]
