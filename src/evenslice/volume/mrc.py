"""MRC volumes (.mrc .rec .map .st .mrcs), mapped rather than read."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from evenslice.errors import BadInputError, InputWarning
from evenslice.volume.array import Volume, VoxelSize, sizes
from evenslice.volume.cache import ChunkedPixels
from evenslice.volume.voxel_size import checked

IMOD_STAMP = 1146047817
SIGNED, PACKED = 1, 16  # bits of IMOD's flags
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
STAMPS = {0x44: "<", 0x11: ">"}
LONGEST_SIDE = 2**24
VOLUME_STACKS = range(401, 631)
DEEPEST = 30  # times as deep as wide: no section is
UNSET_NM = 0.1  # 1 Angstrom: what programs write that do not know it


def open_mrc(path: Path) -> Volume:
    """Open an MRC file lazily as a volume (z, y, x).

    Mode 0 is signed, but unsigned where IMOD wrote the file and its flags say so, or where the
    statistics in the header leave nothing else. Mode 12 is given as float32.

    Raises
    ------
    BadInputError
        If the file is not MRC, is cut off, holds several volumes, or is of a mode or an order of
        axes that is not read.
    """
    header = _header(path)
    mode = int(header["mode"])
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
    shape = tuple(int(header[name]) for name in ("nz", "ny", "nx"))
    if int(header["ispg"]) in VOLUME_STACKS and int(header["mz"]) != shape[0]:
        raise BadInputError(
            f"{path} is a stack of volumes (space group {header['ispg']}): {shape[0]} sections, "
            f"{header['mz']} per volume, expected one volume; save one of them"
        )
    if 1 < int(header["mz"]) < shape[0] and shape[0] % int(header["mz"]) == 0:
        _warn(
            f"{path} has {shape[0]} sections but states a cell of {header['mz']}: if these are "
            "several volumes, one after another, save one of them"
        )
    dtype = _type(header, path)
    start = HEADER_DTYPE.itemsize + int(header["nsymbt"])
    _check_length(path, start, shape, dtype, old=not bytes(header["map"]).startswith(b"MAP"))
    mapped = np.memmap(path, dtype, "r", start, shape)
    given = np.dtype(np.float32) if mode == 12 else dtype
    pixels = ChunkedPixels(shape, given, None, lambda *box: np.array(mapped[box]))
    facts = {"format": f"MRC mode {mode}", "compression": "none"}
    return Volume(pixels, _voxel_size(header, path), str(path), facts=facts)


def _warn(text: str) -> None:
    warnings.warn(text, InputWarning, stacklevel=5)


def _header(path: Path) -> Any:
    """Return the header in the byte order in which its numbers make sense."""
    with path.open("rb") as file:
        data = file.read(HEADER_DTYPE.itemsize)
    if len(data) < HEADER_DTYPE.itemsize:
        raise BadInputError(
            f"{path} is cut off or damaged: it has {len(data)} bytes, expected a header of "
            f"{HEADER_DTYPE.itemsize}; copy or export it again"
        )
    orders = {mark: np.frombuffer(data, HEADER_DTYPE.newbyteorder(mark))[0] for mark in "<>"}
    fitting = [mark for mark, header in orders.items() if _makes_sense(header)]
    stamp = int(orders["<"]["machst"][0])
    stated = STAMPS.get(stamp)
    if not fitting or bytes(orders["<"]["map"]).strip() not in (b"MAP", b""):
        raise BadInputError(
            f"{path} cannot be read as MRC: its header is of another format, or states sizes that "
            "cannot be, expected a whole MRC2014 file; copy or export it again"
        )
    if stated is not None and stated not in fitting:
        words = {"<": "little", ">": "big"}
        _warn(
            f"{path} has the machine stamp of {words[stated]}-endian numbers, but its sizes and "
            f"mode make sense only as {words[fitting[0]]}-endian ones: it is read so"
        )
    return orders[stated if stated in fitting else fitting[0]]


def _makes_sense(header: Any) -> bool:
    return (
        all(0 < int(header[name]) < LONGEST_SIDE for name in ("nx", "ny", "nz"))
        and 0 <= int(header["mode"]) < 2**8
        and 0 <= int(header["nsymbt"]) < 2**28
    )


def _check_length(
    path: Path, start: int, shape: tuple[int, ...], dtype: np.dtype[Any], old: bool
) -> None:
    """Raise unless the file holds the voxels of its header and no more sections than those."""
    size, need = path.stat().st_size, start + math.prod(shape) * dtype.itemsize
    what = f"{path} has {size} bytes, expected {need} for the {sizes(shape)} voxels of its header"
    if need > size:
        raise BadInputError(f"{what}: it is cut off or damaged; copy or export it again")
    if size - need >= math.prod(shape[1:]) * dtype.itemsize or (old and size > need):
        raise BadInputError(
            f"{what}: it holds more sections than these, or is no MRC; correct the header, or "
            "export it again"
        )
    if size > need:
        _warn(
            f"{what}: the last {size - need} are not read; the slices are shifted if it is the "
            "header that is longer than stated"
        )


def _type(header: Any, path: Path) -> np.dtype[Any]:
    """Return the type of the voxels; the sign of bytes is that of IMOD, or of the statistics."""
    mode, order = int(header["mode"]), header.dtype["nx"].byteorder
    dtype = np.dtype(MODES[mode]).newbyteorder(order)
    if dtype.kind == "f":
        return dtype
    words = np.dtype("i4").newbyteorder(order)
    stamp, flags = np.frombuffer(header["extra2"].tobytes()[40:48], words)
    by_imod = mode == 0 and stamp == IMOD_STAMP
    if by_imod and flags & PACKED:
        raise BadInputError(
            f"{path} holds two values of 4 bits in each byte (flags of IMOD), expected one value "
            "each; convert it, for example with newstack"
        )
    if by_imod and not flags & SIGNED:
        dtype = np.dtype(np.uint8)
    low, high = float(header["dmin"]), float(header["dmax"])
    other = np.dtype(dtype.str.translate(str.maketrans("iu", "ui")))
    where = f"{path} has MRC mode {mode}" + (" and the flags of IMOD" if by_imod else "")
    if not low < high:  # not determined
        if mode == 0 and not by_imod:
            _warn(f"{where}, and nothing says whether its bytes are signed: read as signed")
        return dtype
    limits, others = np.iinfo(dtype), np.iinfo(other)
    fits = limits.min <= low and high <= limits.max
    if fits or not (others.min <= low and high <= others.max):
        return dtype
    chosen = other if mode == 0 and not by_imod else dtype
    _warn(
        f"{where}, whose numbers are {dtype.name}, but its header states values from {low:g} to "
        f"{high:g}: read as {chosen.name}"
    )
    return chosen


def _voxel_size(header: Any, path: Path) -> VoxelSize | None:
    """Return the cell over its samples, Angstrom to nm; None where the header leaves it open."""
    samples = [int(header[name]) for name in ("mz", "my", "mx")]
    cell = [float(header["cella"][axis]) for axis in "zyx"]
    angles = [float(header["cellb"][name]) for name in ("alpha", "beta", "gamma")]
    if min(samples) < 1 or any(angle not in (0, 90) for angle in angles):
        return None
    size = checked(side / count / 10 for side, count in zip(cell, samples, strict=True))
    if size is None:
        return None
    if np.allclose(size, UNSET_NM, rtol=1e-4):
        _warn(
            f"{path} states voxels of 1 Angstrom each way, which programs write that do not know "
            "it, so it counts as not stated; give it with --voxel-size"
        )
        return None
    depth, width = int(header["nz"]), min(size[1:])
    whole = int(header["ispg"]) != 0 or size[0] > DEEPEST * width
    if samples[0] == 1 < depth and (whole or math.isclose(size[0], depth * width, rel_tol=0.02)):
        _warn(
            f"{path} states a cell {cell[0]:g} Angstrom deep for 1 section but has {depth}, so its "
            "voxel size counts as not stated; give it with --voxel-size"
        )
        return None
    return size
