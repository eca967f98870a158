"""MRC volumes (.mrc .rec .map .st .mrcs), mapped rather than read."""

import math
import warnings
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume
from evenslice.volume.cache import ChunkedPixels
from evenslice.volume.voxel_size import checked

HEADER_BYTES = 1024
IMOD_STAMP = 1146047817
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}


def open_mrc(path: Path) -> Volume:
    """Open an MRC file lazily as a volume (z, y, x).

    Mode 0 is signed, but unsigned where IMOD wrote the file and its flags say so. Mode 12 is given as float32.

    Raises
    ------
    BadInputError
        If the file is not MRC, is cut off, or is of a mode or an order of axes that is not read.
    """
    _check_extension(path)
    try:
        with (
            warnings.catch_warnings(),
            mrcfile.open(path, "r", permissive=False, header_only=True) as file,
        ):
            warnings.simplefilter("ignore")
            header = file.header.copy()
    except Exception as error:  # mrcfile raises types of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInputError(
            f"{path} cannot be read as MRC ({reason}), expected a whole MRC2014 file; copy or export it again"
        ) from error
    mode = int(header.mode)
    if mode not in _MODES:
        raise BadInputError(
            f"{path} has MRC mode {mode}, expected 0, 1, 2, 6 or 12 (whole or real numbers); convert it, for example with newstack"
        )
    order = tuple(int(header[n]) for n in ("mapc", "mapr", "maps"))
    if order not in ((1, 2, 3), (0, 0, 0)):
        raise BadInputError(
            f"{path} has its axes in the order {order} (columns, rows, sections), expected 1, 2, 3 for x, y, z; transpose it first"
        )
    dtype = np.dtype(_MODES[mode]).newbyteorder(header.nx.dtype.byteorder)
    if mode == 0 and _imod_unsigned(header):
        dtype = np.dtype(np.uint8)
    shape, start = (
        tuple(int(header[n]) for n in ("nz", "ny", "nx")),
        HEADER_BYTES + int(header.nsymbt),
    )
    size, need = path.stat().st_size, start + math.prod(shape) * dtype.itemsize
    if min(shape) < 1 or int(header.nsymbt) < 0 or need > size:
        raise BadInputError(
            f"{path} is cut off or damaged: its header states {' x '.join(map(str, shape))} voxels behind "
            f"{start} bytes, expected {need} bytes in all, and the file has {size}; copy or export it again"
        )
    pixels = np.memmap(path, dtype, "r", start, shape)
    given = np.dtype(np.float32) if mode == 12 else dtype.newbyteorder("=")
    lazy = ChunkedPixels(shape, given, None, lambda *box: np.array(pixels[box]))
    return Volume(
        lazy,
        _voxel_size(header),
        str(path),
        facts={"format": f"MRC mode {mode}", "compression": "none"},
    )


def _check_extension(path: Path) -> None:
    """Raise if the header states more before the voxels than the file holds: it would be read, whatever its size."""
    with path.open("rb") as file:
        head, size = file.read(HEADER_BYTES), path.stat().st_size
    order: Any = "big" if head[212:213] == b"\x11" else "little"
    stated = int.from_bytes(head[92:96], order, signed=True)
    if (
        len(head) == HEADER_BYTES
        and head[208:212] == b"MAP "
        and not 0 <= stated <= size - HEADER_BYTES
    ):
        raise BadInputError(
            f"{path} is cut off or damaged: its header states {stated} bytes before the voxels, expected 0 to {size - HEADER_BYTES}; "
            "copy or export it again"
        )


def _imod_unsigned(header: Any) -> bool:
    """Whether IMOD wrote bytes as unsigned: its stamp is there (word 39) and bit 0 of its flags (word 40) is not."""
    stamp, flags = np.frombuffer(
        header["extra2"].tobytes()[40:48], np.dtype("i4").newbyteorder(header.nx.dtype.byteorder)
    )
    return bool(stamp == IMOD_STAMP and not flags & 1)


def _voxel_size(header: Any) -> tuple[float, float, float] | None:
    """Return the cell over its samples, Angstrom to nm; None where the header leaves it 0."""
    samples = [int(header[n]) for n in ("mz", "my", "mx")]
    if min(samples) < 1:
        return None
    return checked(
        float(header.cella[axis]) / count / 10 for axis, count in zip("zyx", samples, strict=True)
    )
