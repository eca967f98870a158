"""TIFF stacks: plain, BigTIFF, tiled or compressed, read slice by slice; written with their voxel size."""

import contextlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume
from evenslice.volume.writing import written_beside

CACHE_BYTES = 256 * 2**20
BIG = 2**32 - 2**25
_UNIT_NM = {
    "nm": 1.0,
    "nanometer": 1.0,
    "um": 1e3,
    "µm": 1e3,
    "\\u00b5m": 1e3,
    "micron": 1e3,
    "micrometer": 1e3,
    "mm": 1e6,
    "pm": 1e-3,
    "å": 0.1,
}
VoxelSize = tuple[float, float, float]


def open_tiff(path: Path) -> Volume:
    """Open a TIFF stack lazily as a volume (z, y, x).

    Raises
    ------
    BadInputError
        If the file is not TIFF, is cut off, or does not hold one greyscale stack.
    """
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it would log, we raise
    try:
        file = tifffile.TiffFile(path)
        series = file.series[0]
    except (tifffile.TiffFileError, ValueError, KeyError, IndexError, OSError) as error:
        raise BadInputError(
            f"{path} cannot be read as TIFF ({error}), expected a whole TIFF stack; copy or export it again"
        ) from error
    _check_whole(file, series, path)
    axes, shape = series.axes, series.shape
    if "S" in axes and shape[axes.index("S")] > 1:
        raise BadInputError(
            f"{path} is a colour image (axes {axes}, shape {shape}), expected greyscale; convert it to 8-bit grey"
        )
    keep = [n for n, size in zip(axes, shape, strict=True) if size > 1 or n in "YX"]
    if len(keep) > 3:
        raise BadInputError(
            f"{path} has axes {axes} of shape {shape}, expected one stack z, y, x; save one channel and time"
        )
    if len(keep) < 3 and not set(axes) - {"Y", "X", "S"}:
        raise BadInputError(
            f"{path} is a 2-D image of shape {shape}, expected a volume with axes z, y, x; stack the slices into one file or give the folder that holds them"
        )
    meaning = "probabilities" if _description(file).get("evenslice") == "probabilities" else "intensity"
    return Volume(_TiffPixels(file, series, path), _voxel_size(file), str(path), meaning)


def _check_whole(file: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path) -> None:
    size = path.stat().st_size
    if series.dataoffset is not None:
        ends = [series.dataoffset + series.nbytes]
    else:
        ends = [
            o + n
            for page in series.pages
            if page is not None
            for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)
        ]
    if max(ends, default=0) > size or any(page is None for page in series.pages):
        raise BadInputError(
            f"{path} is cut off: it has {size} bytes, expected at least {max(ends, default=0)}; copy or download it again"
        )


class _TiffPixels:
    """The slices of a TIFF series; decoded ones are kept while they fit in a small cache."""

    def __init__(self, file: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path) -> None:
        height, width = (series.shape[series.axes.index(n)] for n in "YX")
        self.shape = (int(np.prod(series.shape)) // (height * width), height, width)
        self.dtype = np.dtype(series.dtype)
        self._file, self._path = file, path
        self._pages = [page for page in series.pages if page is not None]
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, NDArray[Any]] = OrderedDict()
        # A file is mapped rather than decoded when its voxels lie in it as they are.
        offset = series.dataoffset
        order = file.byteorder + self.dtype.str[1:]
        self._map = None if offset is None else np.memmap(path, order, "r", offset, self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if self._map is not None:
            return np.asarray(self._map[key], self.dtype)
        zs, *rest = (*(key if isinstance(key, tuple) else (key,)), slice(None), slice(None))[:3]
        planes = [self._plane(z)[tuple(rest)] for z in range(*zs.indices(self.shape[0]))]
        return np.stack(planes) if planes else np.empty((0, 0, 0), self.dtype)

    def _plane(self, z: int) -> NDArray[Any]:
        with self._lock:
            if z in self._cache:
                self._cache.move_to_end(z)
                return self._cache[z]
            try:
                plane = self._pages[z].asarray().reshape(self.shape[1:])
            except Exception as error:  # codecs raise types of their own
                raise BadInputError(
                    f"slice {z} of {self._path} cannot be decoded ({error}), expected a whole file; copy or export it again"
                ) from error
            self._cache[z] = plane
            while len(self._cache) > 1 and sum(p.nbytes for p in self._cache.values()) > CACHE_BYTES:
                self._cache.popitem(last=False)
            return plane


def _description(file: tifffile.TiffFile) -> dict[str, Any]:
    if file.imagej_metadata:
        return dict(file.imagej_metadata)
    if file.shaped_metadata:
        return dict(file.shaped_metadata[0])
    with contextlib.suppress(ValueError, TypeError):
        found = json.loads(file.pages.first.description)
        return found if isinstance(found, dict) else {}
    return {}


def _voxel_size(file: tifffile.TiffFile) -> VoxelSize | None:
    """Voxel size in nm from ImageJ or OME metadata, None when the file does not state all of it."""
    with contextlib.suppress(KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError):
        if file.ome_metadata:
            return _ome_voxel_size(file.ome_metadata)
        if file.imagej_metadata:
            meta = file.imagej_metadata
            unit = _UNIT_NM[str(meta["unit"]).lower()]
            across = [file.pages.first.tags[name].value for name in ("YResolution", "XResolution")]
            y, x = (unit * below / above for above, below in across)
            return float(meta["spacing"]) * unit, y, x
    return None


def _ome_voxel_size(xml: str) -> VoxelSize | None:
    pixels = tifffile.xml2dict(xml)["OME"]["Image"]
    pixels = (pixels[0] if isinstance(pixels, list) else pixels)["Pixels"]
    z, y, x = (
        float(pixels[f"PhysicalSize{n}"]) * _UNIT_NM[str(pixels.get(f"PhysicalSize{n}Unit", "µm")).lower()]
        for n in "ZYX"
    )
    return z, y, x


def write_tiff(
    path: Path,
    slices: Iterable[NDArray[Any]],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    voxel_nm: VoxelSize | None = None,
    meaning: str = "intensity",
) -> None:
    """Write slices (y, x), one after the other, as a deflate-compressed TIFF stack that Fiji opens with its voxel size.

    The file appears under its name only when it is complete. ImageJ layout for uint8, uint16 and float32 below
    4 GB, else OME-TIFF.
    """
    size = int(np.prod(shape)) * dtype.itemsize
    imagej = dtype in (np.uint8, np.uint16, np.float32) and size < BIG
    options: dict[str, Any] = {"imagej": True} if imagej else {"ome": True, "bigtiff": size >= BIG}
    metadata: dict[str, Any] = {"axes": "ZYX"}
    resolution: dict[str, Any] = {}
    if imagej and voxel_nm:
        metadata |= {"spacing": voxel_nm[0] / 1e3, "unit": "um"}
        resolution = {"resolution": (1e3 / voxel_nm[2], 1e3 / voxel_nm[1])}
    elif voxel_nm:
        for name, value in zip("ZYX", voxel_nm, strict=True):
            metadata |= {f"PhysicalSize{name}": value, f"PhysicalSize{name}Unit": "nm"}
    if imagej and meaning == "probabilities":
        metadata["evenslice"] = "probabilities"
    with written_beside(path) as part, tifffile.TiffWriter(part, **options) as writer:
        writer.write(
            (np.ascontiguousarray(s, dtype) for s in slices),
            shape=shape,
            dtype=dtype,
            compression="zlib",
            photometric="minisblack",
            metadata=metadata,
            **resolution,
        )
