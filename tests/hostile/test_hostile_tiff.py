"""TIFF files that are broken, huge by their header, or no greyscale stack."""

from pathlib import Path

import bad_tiff as made
import numpy as np
import pytest
import tifffile
from checking import Case, listed


def bytes_in(name, body):
    return lambda place: (place / name).write_bytes(body)


def tiffs(name, *stacks, **options):
    """Several series in one file."""

    def make(place: Path) -> None:
        with tifffile.TiffWriter(place / name) as writer:
            for stack in stacks:
                writer.write(stack, photometric="minisblack", metadata=None, **options)

    return make


GREY = np.zeros((5, 8, 8), np.uint8)
CASES = [
    Case("truncated: tiff", "audit model.safetensors cut.tif", ("cut.tif", "cut off"), made.written("cut.tif", cut=0.5)),
    Case("truncated: bigtiff", "segment model.safetensors cut.tif out.zarr", ("cut.tif", "cut off"), made.written("cut.tif", cut=0.5, bigtiff=True)),
    Case("truncated: tiled tiff", "inspect cut.tif", "cut.tif", made.written("cut.tif", cut=0.7, tile=(16, 16))),
    Case("truncated: compressed tiff", "evaluate labels.tif cut.tif", "cut.tif", made.written("cut.tif", cut=0.6, compression="zlib")),
    Case("truncated: compressed tiled bigtiff", "train cut.tif labels.tif o.safetensors", "cut.tif", made.written("cut.tif", cut=0.3, bigtiff=True, tile=(16, 16), compression="zlib")),
    Case("truncated: tiff whose pages lie at its end", "inspect cut.tif", "cut.tif", made.written("cut.tif", cut=0.99, metadata=None)),
    Case("truncated: tiff of a header alone", "inspect cut.tif", "cut.tif", bytes_in("cut.tif", b"II*\0\x08\0\0\0")),
    Case("truncated: bigtiff of four bytes", "segment model.safetensors cut.tif out.tif", "cut.tif", bytes_in("cut.tif", b"II+\0")),
    Case("zero-byte: tiff", "inspect none.tiff", "none.tiff", bytes_in("none.tiff", b"")),
    Case("wrong magic: text named tif", "segment model.safetensors text.tif out.zarr", "text.tif cannot be read as TIFF", bytes_in("text.tif", b"not an image\n" * 9)),
    Case("wrong magic: tiff of no pages", "inspect none.tif", "none.tif", bytes_in("none.tif", b"II*\0\0\0\0\0" + b"\0" * 64)),
    Case("wrong magic: picture named tif", "inspect p.tif", "p.tif", bytes_in("p.tif", b"\x89PNG\r\n\x1a\n" + b"\0" * 64)),
    Case("corrupt: chain of pages that turns back", "inspect loop.tif", "loop.tif is cut off or damaged", made.turning_back),
    Case("corrupt: compressed page", "segment model.safetensors spoilt.tif out.zarr", ("spoilt.tif", "cannot be decoded"), made.spoilt),
    Case("corrupt: compressed labels", "evaluate labels.tif spoilt.tif", "spoilt.tif", lambda place: (made.spoilt(place), tifffile.imwrite(place / "labels.tif", np.zeros((6, 48, 64), np.uint8), photometric="minisblack"))),
    Case("absurd size: tiff", "inspect huge.tif", ("huge.tif", "cut off"), made.absurd("huge.tif", pages=3)),
    Case("absurd size: bigtiff in segment --output probabilities", "segment model.safetensors huge.tif out.tif --output probabilities", "huge.tif", made.absurd("huge.tif", big=True, pages=3)),
    Case("absurd size: one compressed strip", "inspect bomb.tif", "bomb.tif", made.bomb),
    Case("absurd size: one compressed strip in audit", "audit model.safetensors bomb.tif", "bomb.tif", made.bomb),
    Case("absurd size: one compressed strip in evaluate", "evaluate bomb.tif bomb.tif", "bomb.tif", made.bomb),
    Case("absurd size: one compressed tile in train", "train bomb.tif bomb.tif o.safetensors", "bomb.tif", made.tiled_bomb),
    Case("absurd size: tiff of a billion tiles", "inspect many.tif", "many.tif", made.many_tiles),
    Case("absurd size: tiff by its description", "inspect said.tif", ("said.tif", "cut off"), bytes_in("said.tif", made.plain(8, 8, b"\0" * 64, t270=(made.ASCII, b'{"shape": [1000000, 1000, 1000]}\0')))),
    Case("absurd size: ImageJ tiff by its description", "inspect said.tif", ("said.tif", "cut off"), bytes_in("said.tif", made.plain(8, 8, b"\0" * 64, t270=(made.ASCII, b"ImageJ=1.53t\nimages=1000000000000\nslices=1000000000000\n\0")))),
    Case("absurd size: tag of 2^60 bytes", "inspect tag.tif", "tag.tif", bytes_in("tag.tif", made.plain(8, 8, b"\0" * 64, big=True, t270=(made.ASCII, (2**60, 16))))),
    Case("absurd size: zero wide", "inspect flat.tif", "flat.tif", bytes_in("flat.tif", made.plain(0, 8, b"\0" * 64, pages=3))),
    Case("no volume: colour tiff", "segment model.safetensors rgb.tif out.zarr", "rgb.tif is a colour image", lambda place: tifffile.imwrite(place / "rgb.tif", np.zeros((5, 8, 8, 3), np.uint8), photometric="rgb")),
    Case("no volume: one slice", "audit model.safetensors one.tif", "one.tif is a 2-D image", lambda place: tifffile.imwrite(place / "one.tif", GREY[0])),
    Case("no volume: channels", "train c.tif labels.tif o.safetensors", "c.tif has 2 channels", lambda place: tifffile.imwrite(place / "c.tif", np.zeros((5, 2, 8, 8), np.uint8), imagej=True, metadata={"axes": "ZCYX"})),
    Case("no volume: pages of two sizes", "segment model.safetensors two.tif out.zarr", ("two.tif", "separate images"), tiffs("two.tif", GREY, GREY[:, :4])),
    Case("no volume: pages of two types", "inspect two.tif", ("two.tif", "separate images"), tiffs("two.tif", GREY, GREY.astype(np.uint16))),
    Case("dtype: complex tiff", "segment model.safetensors c.tif out.zarr", ("c.tif", "complex64"), made.written("c.tif", dtype=np.complex64)),
    Case("dtype: float16 tiff", "inspect h.tif", "float16", made.written("h.tif", dtype=np.float16), code=0),
    Case("dtype: int64 tiff", "segment model.safetensors l.tif out.zarr", "out.zarr", made.written("l.tif", dtype=np.int64), code=0),
    Case("dtype: one bit a voxel", "inspect b.tif", "bool", lambda place: tifffile.imwrite(place / "b.tif", np.zeros((5, 8, 8), bool), photometric="minisblack"), code=0),
]  # fmt: skip


@pytest.mark.parametrize("case", listed(CASES))
def test_tiff(checked, case):
    checked(case)
