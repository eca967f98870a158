"""Zarr and OME-Zarr stores that people have: zarr, ome-zarr-py, bioformats2raw, funlib."""

import warnings

import numpy as np
import zarr
from numcodecs import Delta, FixedScaleOffset

from inputs.case import Case

ZARR, OME = "Zarr", "OME-Zarr"
STACK = np.random.default_rng(0).integers(0, 255, (7, 20, 24), dtype=np.uint8)
SIGNED = STACK.astype(np.int16) - 100
TYPES = {"t": "time", "c": "channel"}


WINDOW = {"start": 9, "end": 10, "min": 0, "max": 99}


def array(data=STACK, attributes=None, **options):
    def make(folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of types outside the specification
            made = zarr.create_array(
                str(folder / "a.zarr"), shape=data.shape, dtype=data.dtype, **options
            )
            made[...] = data
        made.attrs.update(attributes or {})
        return folder / "a.zarr"

    return make


def scale(*sides):
    return {"type": "scale", "scale": list(sides)}


def move(*places):
    return {"type": "translation", "translation": list(places)}


def describe(axes="zyx", units="nanometer", changes=None, whole=None, path="0"):
    """One multiscale image of one level; ``units`` are one for all axes of space, or for each."""
    if isinstance(units, str) or units is None:
        units = [units if axis in "zyx" else None for axis in axes]
    described = [
        {"name": axis, "type": TYPES.get(axis, "space")} | ({"unit": unit} if unit else {})
        for axis, unit in zip(axes, units, strict=True)
    ]
    sides = {"z": 40.0, "y": 4.0, "x": 5.0}
    changes = changes or [scale(*(sides.get(axis, 1.0) for axis in axes))]
    level = {"path": path, "coordinateTransformations": changes}
    more = {"coordinateTransformations": whole} if whole else {}
    return {"version": "0.4", "axes": described, "datasets": [level]} | more


def image(
    data=STACK, version="0.5", path="0", multiscales=None, more=None, names=None, **described
):
    """What makes an image of one level, in a store or a group of it."""

    def make(folder, inside="."):
        form = 3 if version == "0.5" else 2
        zarr.open_group(str(folder / "a.zarr"), mode="a", zarr_format=form)
        group = zarr.open_group(str(folder / "a.zarr" / inside), mode="a", zarr_format=form)
        group.create_array(path, data=data, dimension_names=names)
        found = {"multiscales": multiscales or [describe(path=path, **described)]} | (more or {})
        group.attrs.update({"ome": {"version": version} | found} if form == 3 else found)
        return folder / "a.zarr"

    return make


def inside(*places, around=None, choose="", **options):
    """What makes images in these groups of a store."""

    def make(folder):
        for place in places:
            image(**options)(folder, place)
        for place, attributes in (around or {}).items():
            zarr.open_group(str(folder / "a.zarr" / place), mode="a").attrs.update(attributes)
        return folder / "a.zarr" / choose

    return make


def chosen(make, name="0"):
    return lambda folder: make(folder) / name


def read(kind, found, answer, make, pixels=STACK, voxel_nm=None, warns=None, **more):
    return Case(kind, found, answer, make, pixels, voxel_nm, warns, **more)


def refused(kind, found, make, words, answer="refused"):
    return Case(kind, found, answer, make, refused=words)


SIZE = (40, 4, 5)
COLOURS = np.stack([STACK] * 2)
V3 = {"axes": ["c", "y", "x"], "datasets": [{"path": "0"}], "version": "0.3"}
CASES = [
    read(
        ZARR,
        "v2: big-endian, Fortran order, other separators",
        "the same numbers",
        array(SIGNED.astype(">i2"), zarr_format=2, order="F", chunks=(4, 8, 8)),
        SIGNED,
    ),
    read(
        ZARR,
        "v2: filters (delta, fixed scale and offset)",
        "the numbers before the filters",
        array(
            STACK.astype("f4") / 2,
            zarr_format=2,
            filters=[FixedScaleOffset(0, 2, "<f4", "<i2"), Delta("<i2")],
        ),
        STACK.astype(np.float32) / 2,
    ),
    read(ZARR, "no names of axes", "z, y, x", array()),
    read(
        ZARR,
        "chunks that were never written",
        "the fill value; `inspect` counts them",
        array(
            np.full((7, 20, 24), 7, np.uint8), fill_value=7, config={"write_empty_chunks": False}
        ),
        np.full((7, 20, 24), 7, np.uint8),
    ),
    refused(ZARR, "no names, shape y, x, 3", array(np.zeros((20, 24, 3), "u1")), "3 colours"),
    refused(
        ZARR,
        "`_ARRAY_DIMENSIONS` c, y, x (xarray)",
        array(attributes={"_ARRAY_DIMENSIONS": ["c", "y", "x"]}, zarr_format=2),
        r"more than one value along c \(axes c 7, y 20, x 24\)",
    ),
    refused(
        ZARR,
        "`dimension_names` x, y, z",
        array(dimension_names=["x", "y", "z"]),
        "expected z, y, x in this order",
    ),
    refused(
        ZARR,
        "`axis_names` c^, z, y, x (funlib) with several channels",
        array(COLOURS, {"axis_names": ["c^", "z", "y", "x"]}),
        r"more than one value along c\^",
    ),
    refused(
        ZARR,
        "`dimension_names` and `_ARRAY_DIMENSIONS` that differ",
        array(attributes={"_ARRAY_DIMENSIONS": ["x", "y", "z"]}, dimension_names=["z", "y", "x"]),
        "dimension_names z, y, x but _ARRAY_DIMENSIONS x, y, z",
    ),
    read(
        ZARR,
        "`voxel_size` and `units` (funlib), `resolution`",
        "z, y, x in that unit, nm if none is stated",
        array(attributes={"voxel_size": [0.04, 4, 5], "units": ["um", "nm", "nm"]}),
        voxel_nm=SIZE,
    ),
    read(
        ZARR,
        "`scale_factor`, `add_offset` (xarray)",
        "the stored numbers, and warned of",
        array(attributes={"scale_factor": 0.01}),
        warns="scale_factor 0.01, which are not applied",
    ),
    refused(
        ZARR,
        "structured numbers",
        array(np.zeros((7, 20, 24), [("a", "u1"), ("b", "u1")]), zarr_format=2),
        "expected whole or real",
    ),
    *(
        read(OME, f"version {version}", "level 0", image(version=version), voxel_nm=SIZE)
        for version in ("0.4", "0.5")
    ),
    refused(
        OME,
        "versions 0.1 to 0.3",
        image(version="0.4", multiscales=[V3]),
        "broken OME-Zarr metadata .* expected version 0.4 or 0.5",
        "refused; their arrays open by path, without voxel size",
    ),
    refused(
        OME,
        "an array c, y, x of version 0.3 by its path",
        chosen(image(version="0.4", multiscales=[V3])),
        "more than one value along c",
    ),
    read(
        OME, "t and c of size 1", "dropped", image(STACK[None, None], axes="tczyx"), voxel_nm=SIZE
    ),
    refused(
        OME,
        "t or c larger than 1",
        image(COLOURS, axes="czyx"),
        r"along c \(axes c 2, z 7, y 20, x 24\)",
    ),
    refused(OME, "axes c, y, x", image(axes="cyx"), "more than one value along c"),
    refused(OME, "axes x, y, z", image(axes="xyz"), "expected z, y, x in this order"),
    refused(
        OME,
        "axes in another order than `dimension_names` of the array",
        image(names=["x", "y", "z"]),
        "OME-Zarr metadata z, y, x but dimension_names x, y, z",
    ),
    refused(
        OME, "more axes than the array has", image(axes="czyx"), "but its OME-Zarr metadata names 4"
    ),
    refused(
        OME,
        "a scale of fewer entries than axes",
        image(changes=[scale(4.0, 5.0)]),
        r"broken OME-Zarr metadata .*\(2\) does not match the number of axes \(3\)",
    ),
    refused(
        OME, "no axes", image(multiscales=[{"datasets": [{"path": "0"}]}]), "axes: Field required"
    ),
    read(
        OME,
        "a unit for each axis: micrometer, nanometer, angstrom",
        "each in its own unit",
        image(units=["micrometer", "nanometer", "angstrom"], changes=[scale(0.04, 4, 50)]),
        voxel_nm=SIZE,
    ),
    read(
        OME,
        "no unit, or an unknown one, for one axis",
        "voxel size not stated",
        image(units=["nanometer", None, "nanometer"]),
    ),
    read(
        OME,
        "a scale of the whole image beside that of a level",
        "both, multiplied",
        image(whole=[scale(1, 2, 3)]),
        voxel_nm=(40, 8, 15),
    ),
    read(
        OME,
        "a translation of a level and of the whole image",
        "the place of the first voxel, both added",
        image(changes=[scale(40, 4, 5), move(400, 8, 0)], whole=[scale(1, 2, 1), move(0, 4, 5)]),
        voxel_nm=(40, 8, 5),
        origin=(10, 2.5, 1),
    ),
    read(OME, "a scale of 0 or below", "voxel size not stated", image(changes=[scale(40, 4, -5)])),
    read(
        OME,
        "channel windows and colours (`omero`)",
        "not applied to the numbers",
        image(
            more={
                "omero": {
                    "channels": [
                        {"color": "FF0000", "window": {"start": 9, "end": 10, "min": 0, "max": 99}}
                    ]
                }
            }
        ),
        voxel_nm=SIZE,
    ),
    refused(
        OME,
        "several images in one group",
        image(multiscales=[describe(), describe(units="micrometer")]),
        "holds 2 images, expected exactly one",
    ),
    read(
        OME,
        "one series of bioformats2raw (0)",
        "its level 0",
        inside("0", around={".": {"ome": {"version": "0.5", "bioformats2raw.layout": 3}}}),
        voxel_nm=SIZE,
    ),
    refused(
        OME,
        "several series of bioformats2raw",
        inside("0", "1"),
        "holds 2 arrays.* choose one of: 0, 1",
    ),
    refused(
        OME, "several fields of a plate", inside("A/1/0", "A/2/0"), "holds 2 arrays.* A/1/0, A/2/0"
    ),
    read(
        OME,
        "`labels/NAME` with `image-label`",
        "labels",
        inside("labels/cells", choose="labels/cells", more={"image-label": {}}),
        voxel_nm=SIZE,
        meaning="labels",
    ),
    read(
        OME,
        "`labels/NAME` that only the group `labels` lists",
        "labels",
        inside(
            "labels/cells",
            choose="labels/cells",
            around={"labels": {"ome": {"version": "0.5", "labels": ["cells"]}}},
        ),
        voxel_nm=SIZE,
        meaning="labels",
    ),
]
