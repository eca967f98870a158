"""Raw voxels with a text file beside them: NAME.raw and NAME.raw.info (PyHST, GF-PA66)."""

import math
import re
import warnings
from pathlib import Path
from typing import Literal

import numpy as np

from evenslice.errors import BadInputError, InputWarning
from evenslice.volume.array import Volume, VoxelSize, sizes
from evenslice.volume.cache import ChunkedPixels
from evenslice.volume.voxel_size import agreed, checked, nm_of

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
_LITTLE = ["lowbytefirst", "littleendian", "little", "lsb", "lsbfirst", "le"]
_BIG = ["highbytefirst", "bigendian", "big", "msb", "msbfirst", "be"]
ORDER_KEYS = ("byteorder", "endian", "endianness", "byteordering")
OFFSET_KEYS = ("headersize", "headerlength", "headerbytes", "offset", "headeroffset", "byteoffset")
SIZE_KEYS = ("voxelsize", "voxelsizeum", "pixelsize")
UNIT_KEYS = ("unit", "units", "voxelunit", "voxelsizeunit")
MORE_KEYS = ("numc", "numchannels", "channels", "numt", "numcomponents", "components")


def open_raw(path: Path) -> Volume:
    """Open raw voxels, x fastest, lazily as a volume (z, y, x).

    The text file holds lines such as ``NUM_X = 1300``, ``NUM_Y``, ``NUM_Z``, and may hold
    ``DATA_TYPE = uint8``, ``BYTEORDER = LOWBYTEFIRST``, ``HEADER_SIZE = 512`` and
    ``voxelSize = 1.4`` (micrometres). Without a type, the length of the file decides between uint8,
    uint16 and float32.

    Raises
    ------
    BadInputError
        If there is no text file, it does not state the sizes or contradicts itself, or they do not
        fit the length of the file.
    """
    info = path.with_name(path.name + ".info")
    if not info.is_file():
        raise BadInputError(
            f"{path} has no {info.name} beside it, expected that text file with the lines NUM_X, "
            "NUM_Y and NUM_Z; write it"
        )
    values = _values(info)
    shape = tuple(_whole(values, info, f"num{axis}") for axis in "zyx")
    start = _whole(values, info, *OFFSET_KEYS, default="0")
    if any(_whole(values, info, key, default="1") != 1 for key in MORE_KEYS):
        raise BadInputError(
            f"{info} states more than one channel or time, expected one volume; save one of them"
        )
    size, voxels = path.stat().st_size - start, math.prod(shape)
    stated = _first(values, TYPE_KEYS)
    name = _KNOWN.get(_bare(stated)) if stated else _BY_SIZE.get(size // max(1, voxels))
    if stated and name is None:
        raise BadInputError(
            f"{info} states the data type {stated!r}, expected one of {', '.join(_TYPES)}; correct "
            "it"
        )
    if name is None or min(shape) < 1 or voxels * np.dtype(name).itemsize != size:
        wanted = (
            f"{voxels * np.dtype(name).itemsize} bytes of {name}"
            if stated and name
            else "1, 2 or 4 bytes per voxel"
        )
        header = f" after a header of {start}" if start else ""
        raise BadInputError(
            f"{path} has {size} bytes{header} but {info.name} states {sizes(shape)} voxels, "
            f"expected {wanted}; correct it or copy the file again"
        )
    if not stated and size > voxels:
        warnings.warn(
            f"{info} states no data type: the {size // voxels} bytes of a voxel are read as "
            f"{name}; add a line such as DATA_TYPE = int16 if they are something else",
            InputWarning,
            stacklevel=4,
        )
    dtype = np.dtype(name).newbyteorder(_byte_order(values, info))
    pixels = np.memmap(path, dtype, "r", start, shape)
    lazy = ChunkedPixels(shape, dtype, None, lambda *box: np.array(pixels[box]))
    facts = {"format": "raw with .info", "compression": "none"}
    return Volume(lazy, _voxel_size(values, info), str(path), facts=facts)


def _first(values: dict[str, str], keys: tuple[str, ...], default: str = "") -> str:
    """Return the value of the first of these keys that is there."""
    return next((values[key] for key in keys if key in values), default)


def _whole(values: dict[str, str], info: Path, *keys: str, default: str = "") -> int:
    try:
        return int(_first(values, keys, default))
    except ValueError as error:
        name = keys[0].upper().replace("NUM", "NUM_")
        raise BadInputError(
            f"{info} does not state a whole number for {name}, expected NUM_X, NUM_Y "
            "and NUM_Z, a line each such as NUM_X = 1300; correct it"
        ) from error


def _byte_order(values: dict[str, str], info: Path) -> Literal["<", ">"]:
    stated = _first(values, ORDER_KEYS, "little")
    if _bare(stated) not in _LITTLE + _BIG:
        raise BadInputError(
            f"{info} states the byte order {stated!r}, expected LOWBYTEFIRST or HIGHBYTEFIRST; "
            "correct it"
        )
    return ">" if _bare(stated) in _BIG else "<"


def _bare(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _values(info: Path) -> dict[str, str]:
    """Return the lines ``KEY = VALUE`` of a text file, keys bare."""
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    found: dict[str, str] = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if not equals or not _bare(key) or line.lstrip().startswith(("!", "#")):
            continue
        if found.setdefault(_bare(key), value.strip()) != value.strip():
            raise BadInputError(
                f"{info} states {key.strip()} twice, {found[_bare(key)]} and {value.strip()}, "
                "expected it once; correct it"
            )
    return found


def _voxel_size(values: dict[str, str], info: Path) -> VoxelSize | None:
    """Return ``voxelSize``: one number or three (x, y, z), in micrometres unless a unit follows."""
    unit = _first(values, UNIT_KEYS, "um")
    return agreed({key: _sides(values[key], unit) for key in SIZE_KEYS if key in values}, info)


def _sides(text: str, unit: str) -> VoxelSize | None:
    found = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", text)]
    word = re.search(r"[a-zµμå]+\s*$", text.lower())
    factor = nm_of(unit if word is None else word.group())
    if len(found) not in (1, 3):
        return None
    return checked(side * factor for side in (found * 3)[2::-1])
