"""MRC files, raw voxels with their text, and folders of pictures, none of them as it should be."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

GREY = np.random.default_rng(0).integers(0, 200, (6, 48, 64), np.uint8)
BYTES = GREY.tobytes()


def bytes_in(name: str, body: bytes):
    """Write a file of these bytes."""
    return lambda place: (place / name).write_bytes(body)


def both(*makers):
    """Make several things."""
    return lambda place: [make(place) for make in makers]


def mrc(
    nx=64,
    ny=48,
    nz=6,
    mode=0,
    axes=(1, 2, 3),
    nsymbt=0,
    data=BYTES,
    magic=b"MAP ",
    stamp=b"\x44\x44\0\0",
) -> bytes:
    """An MRC header that says these things, and the data behind it."""
    head = bytearray(1024)
    struct.pack_into("<10i", head, 0, nx, ny, nz, mode, 0, 0, 0, 1, 1, 1)
    struct.pack_into("<6f3i", head, 40, 10, 10, 10, 90, 90, 90, *axes)
    struct.pack_into("<fffii", head, 76, 0, 255, 128, 1, nsymbt)
    head[208:212], head[212:216] = magic, stamp
    struct.pack_into("<i", head, 104 + 4, 20140)
    return bytes(head) + data


def raw(info: str | bytes | None, data: bytes = BYTES, name: str = "v.raw"):
    """Write raw voxels with this text beside them."""

    def make(place: Path) -> None:
        (place / name).write_bytes(data)
        if info is not None:
            (place / f"{name}.info").write_bytes(info if isinstance(info, bytes) else info.encode())

    return make


def sizes(x: object, y: object = 48, z: object = 6, more: str = "") -> str:
    """The text beside raw voxels."""
    return f"NUM_X = {x}\nNUM_Y = {y}\nNUM_Z = {z}\n{more}"


def sparse(name: str, size: int, head: bytes = b""):
    """Write a file of so many bytes that takes no room."""

    def make(place: Path) -> None:
        with (place / name).open("wb") as file:
            file.write(head)
            file.truncate(size)

    return make


def pictures(folder: str, *planes: np.ndarray, ending: str = "png", **others: bytes):
    """Write a folder of pictures, and other files by name (``_`` for ``.``)."""

    def make(place: Path) -> None:
        (place / folder).mkdir()
        for number, plane in enumerate(planes):
            Image.fromarray(plane).save(place / folder / f"{number:03d}.{ending}")
        for name, body in others.items():
            (place / folder / name.replace("_", ".")).write_bytes(body)

    return make


def png_header(width: int, height: int) -> bytes:
    """A picture that says it is so large, and is not."""
    import zlib

    def part(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", head)
        + part(b"IDAT", zlib.compress(b"\0" * 1000))
        + part(b"IEND", b"")
    )
