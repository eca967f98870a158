"""HDF5 files whose links, groups, types and sizes are not what one would wish."""

from pathlib import Path

import h5py
import numpy as np

GREY = np.random.default_rng(0).integers(0, 200, (6, 48, 64), np.uint8)


def file_of(name: str, fill):
    """Write a file that ``fill`` fills."""

    def make(place: Path) -> None:
        with h5py.File(place / name, "w") as file:
            fill(file)

    return make


def holding(name: str, dtype=np.uint8, **options):
    """Write a good volume of a type."""
    return file_of(name, lambda file: file.create_dataset("v", data=GREY.astype(dtype), **options))


def cut(name: str, part: float, **options):
    """Write a good volume, of which only a part is kept."""

    def make(place: Path) -> None:
        holding(name, **options)(place)
        whole = (place / name).read_bytes()
        (place / name).write_bytes(whole[: int(len(whole) * part)])

    return make


def circular(name: str):
    """A good volume whose list of names goes on with itself."""

    def make(place: Path) -> None:
        holding(name)(place)
        body = bytearray((place / name).read_bytes())
        node = body.index(b"TREE")
        body[node + 16 : node + 24] = node.to_bytes(8, "little")  # what follows it
        (place / name).write_bytes(body)

    return make


def spoilt(name: str):
    """A compressed volume in which the bytes of the chunks were changed."""

    def make(place: Path) -> None:
        holding(name, chunks=(1, 48, 64), compression="gzip")(place)
        with h5py.File(place / name) as file:
            chunk = file["v"].id.get_chunk_info(3)
        body = bytearray((place / name).read_bytes())
        body[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
        (place / name).write_bytes(body)

    return make


def nested(depth: int):
    """A volume in so many groups."""

    def fill(file: h5py.File) -> None:
        group = file
        for _ in range(depth):
            group = group.create_group("g")
        group["v"] = GREY

    return fill


def ring(file: h5py.File) -> None:
    """A group that holds itself, beside one volume."""
    file["v"] = GREY
    inner = file.create_group("a").create_group("b")
    inner["up"] = file["a"]
    inner["root"] = h5py.SoftLink("/a/b/root")


def linked(kind, *target):
    """A link under the name ``v``."""
    return lambda file: file.__setitem__("v", kind(*target))


def outside(place: Path) -> None:
    """A link into a file that is there."""
    holding("other.h5")(place)
    file_of("out.h5", linked(h5py.ExternalLink, "other.h5", "/v"))(place)


def circle(place: Path) -> None:
    """Two files that link into each other."""
    file_of("one.h5", linked(h5py.ExternalLink, "two.h5", "/v"))(place)
    file_of("two.h5", linked(h5py.ExternalLink, "one.h5", "/v"))(place)


def virtual(place: Path) -> None:
    """A volume put together from another file."""
    holding("other.h5")(place)
    layout = h5py.VirtualLayout(GREY.shape, np.uint8)
    layout[:] = h5py.VirtualSource("other.h5", "v", GREY.shape)
    file_of("virtual.h5", lambda file: file.create_virtual_dataset("v", layout))(place)


def raw_outside(place: Path) -> None:
    """A volume whose bytes lie in another file, here one of the system's."""
    file_of(
        "out.h5",
        lambda file: file.create_dataset("v", (2, 4, 4), "u1", external=[("/etc/passwd", 0, 32)]),
    )(place)


def absurd(name: str, side: int = 10**4, dtype="u1", chunks=(1, 64, 64)):
    """Say a volume of side^3 voxels, of which none is written."""
    return file_of(name, lambda file: file.create_dataset("v", (side,) * 3, dtype, chunks=chunks))


def contiguous(file: h5py.File) -> None:
    """Say 10^12 voxels in one piece, of which none is written."""
    file.create_dataset("v", (10**4,) * 3, "u1")


def bomb(file: h5py.File) -> None:
    """A chunk of 3 GB that is packed into a few bytes."""
    held = file.create_dataset(
        "v", (3, 32000, 32000), "u1", chunks=(3, 32000, 32000), compression="gzip"
    )
    held.id.write_direct_chunk((0, 0, 0), b"\x78\x9c\x63\x00\x00\x00\x01\x00\x01")
