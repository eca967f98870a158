"""Raw voxels with a text file beside them: NAME.raw and NAME.raw.info (PyHST, GF-PA66)."""

import math
import re
from pathlib import Path

import numpy as np

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume, VoxelSize, sizes
from evenslice.volume.cache import ChunkedPixels
from evenslice.volume.voxel_size import UNIT_NM, checked

_TYPES = {
    "uint8": "uint8 unsignedchar uchar unsignedbyte byte u8 8bit 8bitunsigned unsigned8bit",
    "int8": "int8 signedchar char i8 8bitsigned",
    "uint16": "uint16 unsignedshort ushort u16 16bit 16bitunsigned unsigned16bit",
    "int16": "int16 signedshort short i16 16bitsigned",
    "uint32": "uint32 unsignedint unsigned uint u32 32bitunsigned",
    "int32": "int32 signedint int i32 32bitsigned",
    "float32": "float32 float real f32 32bitreal 32bitfloat",
    "float64": "float64 double f64 64bitreal 64bitfloat",
}
_KNOWN = {word: name for name, words in _TYPES.items() for word in words.split()}
TYPE_KEYS = ("datatype", "type", "dtype", "pixeltype", "voxeltype")
_BY_SIZE = {1: "uint8", 2: "uint16", 4: "float32"}


def open_raw(path: Path) -> Volume:
    """Open raw voxels, x fastest, lazily as a volume (z, y, x).

    The text file holds lines such as ``NUM_X = 1300``, ``NUM_Y``, ``NUM_Z``, and may hold
    ``DATA_TYPE = uint8``, ``BYTEORDER = LOWBYTEFIRST`` and ``voxelSize = 1.4`` (micrometres).
    Without a type, the length of the file decides between uint8, uint16 and float32.

    Raises
    ------
    BadInputError
        If there is no text file, it does not state the sizes, or they do not fit the length of the
        file.
    """
    info = path.with_name(path.name + ".info")
    if not info.is_file():
        raise BadInputError(
            f"{path} has no {info.name} beside it, expected that text file with the lines NUM_X, "
            "NUM_Y and NUM_Z; write it"
        )
    values = _values(info)
    try:
        shape = tuple(int(values[f"num{axis}"]) for axis in "zyx")
    except (KeyError, ValueError) as error:
        raise BadInputError(
            f"{info} does not state whole numbers for NUM_X, NUM_Y and NUM_Z, expected a line each "
            "such as NUM_X = 1300; correct it"
        ) from error
    size, voxels = path.stat().st_size, math.prod(shape)
    stated = next((values[key] for key in TYPE_KEYS if key in values), None)
    if stated is None:
        name = _BY_SIZE.get(size // max(1, voxels))
    else:
        name = _KNOWN.get(_bare(stated))
        if name is None:
            raise BadInputError(
                f"{info} states the data type {stated!r}, expected one of {', '.join(_TYPES)}; "
                "correct it"
            )
    if name is None or min(shape) < 1 or voxels * np.dtype(name).itemsize != size:
        wanted = (
            "1, 2 or 4 bytes per voxel"
            if stated is None
            else f"{voxels * np.dtype(name).itemsize} bytes of {name}"
        )
        raise BadInputError(
            f"{path} has {size} bytes but {info.name} states {sizes(shape)} voxels, expected "
            f"{wanted}; correct it or copy the file again"
        )
    dtype = np.dtype(name).newbyteorder(
        ">" if _bare(values.get("byteorder", "")).startswith("high") else "<"
    )
    pixels = np.memmap(path, dtype, "r", 0, shape)
    lazy = ChunkedPixels(shape, dtype, None, lambda *box: np.array(pixels[box]))
    facts = {"format": "raw with .info", "compression": "none"}
    return Volume(lazy, _voxel_size(values), str(path), facts=facts)


def _bare(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _values(info: Path) -> dict[str, str]:
    """Return the lines ``KEY = VALUE`` of a text file, keys bare."""
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (
        line.partition("=")[::2]
        for line in lines
        if "=" in line and not line.lstrip().startswith(("!", "#"))
    )
    return {_bare(key): value.strip() for key, value in pairs}


def _voxel_size(values: dict[str, str]) -> VoxelSize | None:
    """Return ``voxelSize``: one number or three (x, y, z), in micrometres unless a unit follows."""
    text = next((values[k] for k in ("voxelsize", "voxelsizeum", "pixelsize") if k in values), "")
    found = [float(n) for n in re.findall(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", text)]
    unit = re.search(r"[a-zµμå]+\s*$", text.lower())
    factor = 1e3 if unit is None else UNIT_NM.get(unit.group().strip())
    if factor is None or len(found) not in (1, 3):
        return None
    return checked(side * factor for side in (found * 3)[2::-1])
