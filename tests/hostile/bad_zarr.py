"""Zarr and OME-Zarr stores whose metadata or chunks are not as they should be."""

import json
import shutil
from pathlib import Path

import numpy as np
import zarr

GREY = np.random.default_rng(0).integers(0, 200, (6, 48, 64), np.uint8)
V2 = {
    "zarr_format": 2, "shape": [6, 48, 64], "chunks": [2, 48, 64], "dtype": "|u1", "compressor": None, "fill_value": 0,
    "order": "C", "filters": None,
}  # fmt: skip
V3 = {
    "zarr_format": 3, "node_type": "array", "shape": [6, 48, 64], "data_type": "uint8", "fill_value": 0, "attributes": {},
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 48, 64]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
}  # fmt: skip


def stored(name: str, voxels: np.ndarray = GREY, version: int = 3, chunks=(2, 48, 64), **options):
    """Write a good array."""

    def make(place: Path) -> None:
        made = zarr.create_array(
            place / name,
            shape=voxels.shape,
            dtype=voxels.dtype,
            chunks=chunks,
            zarr_format=version,
            **options,
        )
        made[:] = voxels

    return make


def stated(name: str, version: int = 3, **changes):
    """Write the metadata of an array, some of it changed (``_`` for what is to be left out), and no chunk."""

    def make(place: Path) -> None:
        meta = (V3 if version == 3 else V2) | changes
        meta = {key: value for key, value in meta.items() if value != "_"}
        (place / name).mkdir()
        (place / name / ("zarr.json" if version == 3 else ".zarray")).write_text(json.dumps(meta))

    return make


def grid(*chunk: int) -> dict[str, object]:
    """Chunks of these sides, for version 3."""
    return {"name": "regular", "configuration": {"chunk_shape": list(chunk)}}


def text(name: str, body: str | bytes, file: str = "zarr.json"):
    """Write a store of one file."""

    def make(place: Path) -> None:
        (place / name).mkdir()
        (place / name / file).write_bytes(body if isinstance(body, bytes) else body.encode())

    return make


def spoilt(name: str, change, version: int = 3, **options):
    """Write a good array, and change the bytes of its second chunk; None takes the chunk away."""

    def make(place: Path) -> None:
        stored(name, version=version, **options)(place)
        chunk = place / name / ("c/1/0/0" if version == 3 else "1.0.0")
        body = change(chunk.read_bytes())
        chunk.unlink()
        if body is not None:
            chunk.write_bytes(body)

    return make


def image(name: str, change=None, gone: str | None = None):
    """Write a good OME-Zarr 0.5 image of two levels, change its description, take a level away."""

    def make(place: Path) -> None:
        from evenslice import save_volume

        save_volume(place / name, np.tile(GREY, (1, 11, 8)), (30.0, 4.0, 4.0))
        if change is not None:
            file = place / name / "zarr.json"
            meta = json.loads(file.read_text())
            change(meta["attributes"]["ome"])
            file.write_text(json.dumps(meta))
        if gone is not None:
            shutil.rmtree(place / name / gone)

    return make


def scale(change):
    """Change the first multiscale of a description."""
    return lambda ome: change(ome["multiscales"][0])


def old_image(name: str, attributes: object):
    """Write a Zarr v2 group with these attributes and an array in it."""

    def make(place: Path) -> None:
        (place / name).mkdir()
        (place / name / ".zgroup").write_text('{"zarr_format": 2}')
        (place / name / ".zattrs").write_text(json.dumps(attributes))
        stored(f"{name}/0", version=2)(place)

    return make


def bare(name: str, depth: int):
    """Groups in groups, and an array at the bottom."""

    def make(place: Path) -> None:
        folder = place / name
        folder.mkdir()
        for _ in range(depth):
            (folder / "zarr.json").write_text(
                '{"zarr_format": 3, "node_type": "group", "attributes": {}}'
            )
            folder = folder / "g"
            folder.mkdir()
        (folder / "zarr.json").write_text(json.dumps(V3))

    return make


def circle(name: str):
    """A group with a link to itself and an array."""

    def make(place: Path) -> None:
        (place / name).mkdir()
        (place / name / "zarr.json").write_text(
            '{"zarr_format": 3, "node_type": "group", "attributes": {}}'
        )
        stored(f"{name}/v")(place)
        (place / name / "again").symlink_to(place / name)

    return make


def bomb(name: str):
    """A chunk of 10^12 voxels packed by Blosc into a few bytes."""
    codecs = [
        *V3["codecs"],
        {
            "name": "blosc",
            "configuration": {
                "cname": "lz4",
                "clevel": 5,
                "shuffle": "noshuffle",
                "typesize": 1,
                "blocksize": 0,
            },
        },
    ]

    def make(place: Path) -> None:
        stated(name, shape=[10**4] * 3, chunk_grid=grid(*[10**4] * 3), codecs=codecs)(place)
        (place / name / "c/0/0").mkdir(parents=True)
        (place / name / "c/0/0/0").write_bytes(b"\2\1\x21\1" + b"\xff" * 12 + b"\0" * 64)

    return make
