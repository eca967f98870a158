"""TIFF files written by hand, tag by tag, so that they can say anything."""

import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, SAMPLES, ROWS, COUNTS = (
    256,
    257,
    258,
    259,
    262,
    273,
    277,
    278,
    279,
)
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, DESCRIPTION, FORMAT = (
    322,
    323,
    324,
    325,
    270,
    339,
)
SHORT, LONG, ASCII, LONG8 = 3, 4, 2, 16
_SIZE = {SHORT: 2, LONG: 4, ASCII: 1, LONG8: 8}
_FORM = {SHORT: "H", LONG: "I", ASCII: "B", LONG8: "Q"}


def hand_made(
    tags: dict[int, tuple[int, object]], data: bytes = b"", big: bool = False, pages: int = 1
) -> bytes:
    """A TIFF of pages that are all alike: tags {code: (type, values or (count, offset))}, the data behind the header."""
    head = (
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16 + len(data))
        if big
        else struct.pack("<2sHI", b"II", 42, 8 + len(data))
    )
    body, number, entry = head + data, "Q" if big else "I", "<HHQ" if big else "<HHI"
    for page in range(pages):
        packed, extra = b"", b""
        room = (8 + 20 * len(tags) + 8) if big else (2 + 12 * len(tags) + 4)
        for code, (kind, values) in sorted(tags.items()):
            if isinstance(values, tuple):  # a count and a place that are said, true or not
                count, held = values[0], struct.pack(f"<{number}", values[1])
            else:
                listed = list(values) if isinstance(values, list | bytes) else [values]
                count, held = len(listed), struct.pack(f"<{len(listed)}{_FORM[kind]}", *listed)
                if len(held) > (8 if big else 4):
                    at = len(body) + room + len(extra)
                    extra += held
                    held = struct.pack(f"<{number}", at)
            packed += struct.pack(entry, code, kind, count) + held.ljust(8 if big else 4, b"\0")
        after = len(body) + room + len(extra) if page + 1 < pages else 0
        body += (
            struct.pack("<Q" if big else "<H", len(tags))
            + packed
            + struct.pack(f"<{number}", after)
            + extra
        )
    return body


def plain(width: int, height: int, data: bytes, big: bool = False, pages: int = 1, **more) -> bytes:
    """Grey pages of one strip, 8 bits; ``more`` tags by number, such as t270=(ASCII, b"...")."""
    kind = LONG8 if big else LONG
    tags = {
        WIDTH: (kind, width),
        HEIGHT: (kind, height),
        BITS: (SHORT, 8),
        COMPRESSION: (SHORT, 1),
        PHOTOMETRIC: (SHORT, 1),
        OFFSETS: (kind, 16 if big else 8),
        SAMPLES: (SHORT, 1),
        ROWS: (kind, height),
        COUNTS: (kind, len(data)),
    }
    return hand_made(
        tags | {int(name[1:]): value for name, value in more.items()}, data, big, pages
    )


def absurd(name: str, **options):
    """Write pages of a million by a million pixels, of which a few bytes are there."""
    return lambda place: (place / name).write_bytes(plain(10**6, 10**6, b"\0" * 64, **options))


def bomb(place: Path) -> None:
    """A strip of 10^12 pixels that claims to be packed into a few bytes."""
    squeezed = zlib.compress(b"\0" * 10**6)
    (place / "bomb.tif").write_bytes(
        plain(10**6, 10**6, squeezed, big=True, pages=3, t259=(SHORT, 8))
    )


def tiled_bomb(place: Path) -> None:
    """One tile of 10^6 x 10^6."""
    squeezed = zlib.compress(b"\0" * 10**6)
    tags = {
        WIDTH: (LONG, 10**6), HEIGHT: (LONG, 10**6), BITS: (SHORT, 8), COMPRESSION: (SHORT, 8), PHOTOMETRIC: (SHORT, 1),
        SAMPLES: (SHORT, 1), TILE_WIDTH: (LONG, 10**6), TILE_HEIGHT: (LONG, 10**6), TILE_OFFSETS: (LONG, 8),
        TILE_COUNTS: (LONG, len(squeezed)),
    }  # fmt: skip
    (place / "bomb.tif").write_bytes(hand_made(tags, squeezed, pages=3))


def many_tiles(place: Path) -> None:
    """A page that says its 10^9 tiles lie in a table beyond its end."""
    tags = {
        WIDTH: (LONG, 10**6), HEIGHT: (LONG, 10**6), BITS: (SHORT, 8), COMPRESSION: (SHORT, 8), PHOTOMETRIC: (SHORT, 1),
        SAMPLES: (SHORT, 1), TILE_WIDTH: (LONG, 32), TILE_HEIGHT: (LONG, 32), TILE_OFFSETS: (LONG8, (10**9, 100)),
        TILE_COUNTS: (LONG8, (10**9, 100)),
    }  # fmt: skip
    (place / "many.tif").write_bytes(hand_made(tags, b"\0" * 64, big=True))


def written(name: str, shape=(6, 48, 64), cut: float | None = None, dtype=np.uint8, **options):
    """Write a good stack, of which only a part is kept."""

    def make(place: Path) -> None:
        voxels = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
        tifffile.imwrite(place / name, voxels, photometric="minisblack", **options)
        whole = (place / name).read_bytes()
        if cut is not None:
            (place / name).write_bytes(whole[: int(len(whole) * cut)])

    return make


def turning_back(place: Path) -> None:
    """Pages whose chain ends at the first one."""
    body = bytearray(plain(8, 8, b"\0" * 64, pages=2))
    first = struct.unpack_from("<I", body, 4)[0]
    count = struct.unpack_from("<H", body, first)[0]
    second = struct.unpack_from("<I", body, first + 2 + 12 * count)[0]
    struct.pack_into("<I", body, second + 2 + 12 * count, first)
    (place / "loop.tif").write_bytes(body)


def spoilt(place: Path) -> None:
    """A compressed stack in the middle of which bytes were changed."""
    written("spoilt.tif", compression="zlib")(place)
    body = bytearray((place / "spoilt.tif").read_bytes())
    with tifffile.TiffFile(place / "spoilt.tif") as file:
        page = file.pages[3]
        at, size = page.dataoffsets[0], page.databytecounts[0]
    body[at + 2 : at + size - 2] = b"\xff" * (size - 4)
    (place / "spoilt.tif").write_bytes(body)
