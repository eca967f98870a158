"""MRC volumes (.mrc .rec .map .st .mrcs), mapped rather than read."""

import math
import warnings
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume, first_line, sizes
from evenslice.volume.cache import ChunkedPixels
from evenslice.volume.voxel_size import checked

HEADER_BYTES = 1024
IMOD_STAMP = 1146047817
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}


def open_mrc(path: Path) -> Volume:
    """Open an MRC file lazily as a volume (z, y, x).

    Mode 0 is signed, but unsigned where IMOD wrote the file and its flags say so. Mode 12 is given
    as float32.

    Raises
    ------
    BadInputError
        If the file is not MRC, is cut off, or is of a mode or an order of axes that is not read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with mrcfile.open(path, "r", permissive=False, header_only=True) as file:
                header = file.header.copy()
    except Exception as error:  # mrcfile raises types of its own
        raise BadInputError(
            f"{path} cannot be read as MRC ({first_line(error)}), expected a whole MRC2014 file; "
            "copy or export it again"
        ) from error
    mode = int(header.mode)
    if mode not in MODES:
        raise BadInputError(
            f"{path} has MRC mode {mode}, expected 0, 1, 2, 6 or 12 (whole or real numbers); "
            "convert it, for example with newstack"
        )
    order = tuple(int(header[name]) for name in ("mapc", "mapr", "maps"))
    if order not in ((1, 2, 3), (0, 0, 0)):
        raise BadInputError(
            f"{path} has its axes in the order {order} (columns, rows, sections), expected 1, 2, 3 "
            "for x, y, z; transpose it first"
        )
    dtype = np.dtype(MODES[mode]).newbyteorder(header.nx.dtype.byteorder)
    if mode == 0 and _imod_unsigned(header):
        dtype = np.dtype(np.uint8)
    shape = tuple(int(header[name]) for name in ("nz", "ny", "nx"))
    start = HEADER_BYTES + int(header.nsymbt)
    size, need = path.stat().st_size, start + math.prod(shape) * dtype.itemsize
    if min(shape) < 1 or need > size:
        raise BadInputError(
            f"{path} is cut off or damaged: it has {size} bytes, expected {need} for the "
            f"{sizes(shape)} voxels that its header states; copy or export it again"
        )
    mapped = np.memmap(path, dtype, "r", start, shape)
    given = np.dtype(np.float32) if mode == 12 else dtype
    pixels = ChunkedPixels(shape, given, None, lambda *box: np.array(mapped[box]))
    facts = {"format": f"MRC mode {mode}", "compression": "none"}
    return Volume(pixels, _voxel_size(header), str(path), facts=facts)


def _imod_unsigned(header: Any) -> bool:
    """Whether IMOD wrote bytes as unsigned: its stamp (word 39), not bit 0 of its flags (40)."""
    words = np.dtype("i4").newbyteorder(header.nx.dtype.byteorder)
    stamp, flags = np.frombuffer(header["extra2"].tobytes()[40:48], words)
    return bool(stamp == IMOD_STAMP and not flags & 1)


def _voxel_size(header: Any) -> tuple[float, float, float] | None:
    """Return the cell over its samples, Angstrom to nm; None where the header leaves it 0."""
    samples = [int(header[name]) for name in ("mz", "my", "mx")]
    if 0 in samples:
        return None
    cell = [float(header.cella[axis]) for axis in "zyx"]
    return checked(side / count / 10 for side, count in zip(cell, samples, strict=True))
