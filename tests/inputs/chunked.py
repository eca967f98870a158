"""N5 and neuroglancer precomputed as tensorstore writes them, with what others state of them."""

import json

import numpy as np
import tensorstore

from inputs.case import Case

N5, PRECOMPUTED = "N5", "Neuroglancer precomputed"
STACK = np.random.default_rng(0).integers(0, 255, (7, 20, 24), dtype=np.uint8)
LABELS = STACK.astype(np.uint64) + 2**40
SIZE = (40.0, 4.0, 5.0)
AROUND = {"pixelResolution": {"dimensions": [5, 4, 40], "unit": "nm"}}


def n5(*names, data=STACK, groups=None, compression="gzip", choose="", blocks=(8, 8, 4), **own):
    """What makes arrays of a store, with their attributes and those of groups."""

    def make(folder):
        for name in names:
            place = folder / "a.n5" / name
            metadata = {
                "dimensions": data.shape[::-1],
                "blockSize": [*blocks, 1][: data.ndim],
                "dataType": data.dtype.name,
                "compression": {"type": compression},
            }
            spec = {"driver": "n5", "kvstore": f"file://{place}/", "metadata": metadata}
            tensorstore.open(spec, create=True).result().T.write(data).result()
            file = place / "attributes.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | own))
        for name, attributes in (groups or {}).items():
            (folder / "a.n5" / name / "attributes.json").write_text(json.dumps(attributes))
        return folder / "a.n5" / choose

    return make


def precomputed(data=STACK, encoding="raw", levels=1, choose="", offset=(0, 0, 0), **scale):
    """What makes a volume, each level keeping every second voxel of y and x."""

    def make(folder):
        kind = "segmentation" if "seg" in encoding else "image"
        made = data if data.ndim == 4 else data[None]
        for level in range(levels):
            step = 2**level
            part = made[:, :, ::step, ::step]
            spec = {
                "driver": "neuroglancer_precomputed",
                "kvstore": f"file://{folder / 'a'}/",
                "multiscale_metadata": {
                    "type": kind,
                    "data_type": data.dtype.name,
                    "num_channels": len(made),
                },
                "scale_metadata": {
                    "size": part.shape[:0:-1],
                    "chunk_size": [8, 8, 4],
                    "resolution": [5 * step, 4 * step, 40],
                    "voxel_offset": offset,
                    "encoding": encoding,
                    "key": f"level{level}",
                }
                | ({"compressed_segmentation_block_size": [8, 8, 8]} if kind[0] == "s" else {})
                | scale,
            }
            tensorstore.open(spec, create=True).result().T.write(part).result()
        return folder / "a" / choose

    return make


def read(kind, found, answer, make, pixels=STACK, voxel_nm=SIZE, **more):
    return Case(kind, found, answer, make, pixels, voxel_nm, **more)


def refused(kind, found, make, words):
    return Case(kind, found, "refused", make, refused=words)


SHARDED = {
    "@type": "neuroglancer_uint64_sharded_v1",
    "preshift_bits": 1,
    "minishard_bits": 1,
    "shard_bits": 1,
    "hash": "identity",
}
CASES = [
    read(N5, "axes x, y, z", "z, y, x", n5(".", resolution=[5, 4, 40], units=["nm"] * 3)),
    read(
        N5,
        "big-endian numbers of any compression that tensorstore has",
        "the same numbers",
        n5("raw", data=STACK.astype(np.uint16) * 99, compression="bzip2"),
        STACK.astype(np.uint16) * 99,
        None,
    ),
    read(N5, "a group of levels `s0`, `s1`", "`s0`", n5("em/s0", "em/s1", groups={"em": AROUND})),
    read(
        N5,
        "level `s1` by its path, `downsamplingFactors` or `scales` of the group",
        "that level, its voxels so many times as large",
        n5(
            *("em/s0", "em/s1"),
            groups={"em": AROUND | {"scales": [[1, 1, 1], [2, 2, 1]]}},
            choose="em/s1",
        ),
        voxel_nm=(40, 8, 10),
    ),
    read(
        N5,
        "`transform` (COSEM)",
        "its scale by the names of its axes, and its place",
        n5(
            "em/s0",
            transform={
                "axes": ["z", "y", "x"],
                "scale": [0.04, 0.004, 0.005],
                "translate": [0.4, 0, 0],
                "units": ["um"] * 3,
            },
        ),
        origin=(10, 0, 0),
    ),
    read(N5, "`resolution` without `units`", "nm", n5(".", resolution=[5, 4, 40])),
    read(
        N5,
        "`resolution` 1, 1, 1 without `units` (BigDataViewer)",
        "voxel size not stated",
        n5("setup0/timepoint0/s0", groups={"setup0/timepoint0": {"resolution": [1.0, 1.0, 1.0]}}),
        voxel_nm=None,
    ),
    read(N5, "channels of size 1", "dropped", n5("a", data=STACK[None]), voxel_nm=None),
    refused(N5, "several channels", n5("a", data=np.stack([STACK] * 2)), "save one channel"),
    refused(N5, "several arrays", n5("a", "b"), "holds 2 arrays.* choose one of: a, b"),
    read(PRECOMPUTED, "an image", "level 0, z, y, x", precomputed(levels=2)),
    read(
        PRECOMPUTED,
        "a level by its key",
        "that level",
        precomputed(levels=2, choose="level1"),
        STACK[:, ::2, ::2],
        (40, 8, 10),
    ),
    refused(PRECOMPUTED, "a key that is not there", precomputed(choose="no"), "one of: level0"),
    read(
        PRECOMPUTED,
        "`voxel_offset`",
        "the place of the first voxel",
        precomputed(offset=[3, 2, 1]),
        origin=(1, 2, 3),
    ),
    read(
        PRECOMPUTED,
        "compressed segmentation, uint64",
        "labels",
        precomputed(LABELS, "compressed_segmentation"),
        LABELS,
        meaning="labels",
    ),
    read(PRECOMPUTED, "shards", "the same numbers", precomputed(sharding=SHARDED)),
    refused(
        PRECOMPUTED, "several channels", precomputed(np.stack([STACK] * 2)), "along c .*c 2, z 7"
    ),
]
