"""TIFF stacks: plain, BigTIFF, tiled or compressed, read lazily, written with voxel size."""

import contextlib
import itertools
import json
import logging
import math
import struct
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from evenslice.errors import BadInputError
from evenslice.options import JsonObject
from evenslice.volume.array import (
    MEANINGS,
    ORIGIN,
    Place,
    Volume,
    Voxels,
    VoxelSize,
    read_planes,
    sizes,
    spans,
)
from evenslice.volume.atomic import written_beside
from evenslice.volume.cache import LastUsed
from evenslice.volume.voxel_size import UNIT_NM, checked

LARGE_PAGE_BYTES = 64 * 2**20
BIG = 2**32 - 2**25
IMAGEJ_CHANNELS = 7
WIDEST = 65535
WRITABLE = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")


def open_tiff(path: Path) -> Volume:
    """Open a TIFF stack lazily as a volume (z, y, x).

    Raises
    ------
    BadInputError
        If the file is not TIFF, is cut off, or does not hold one greyscale stack.
    """
    with _opened(path) as (file, series):
        notes = _notes(file)
        note = notes.get("evenslice")
        _check_stack(file, series, path, flat=note is not None)
        meaning = note if note in MEANINGS else "intensity"
        pixels = _TiffPixels(file, series, path)
        origin = noted_origin(notes)
        return Volume(pixels, _voxel_size(file), str(path), meaning, _facts(file), origin)


def read_image(path: Path) -> Voxels:
    """Read a whole TIFF file, an image of a folder; raise ``BadInputError`` if it is none."""
    with _opened(path) as (file, series):
        image = np.asarray(series.asarray())
        file.close()
        return image


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[tifffile.TiffFile, tifffile.TiffPageSeries]]:
    """Give a whole TIFF file and its one series; it is closed on any error."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it only logs is checked here
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(tifffile.TiffFile(path))
            _check_chain(file, path)
            series = file.series[0]
            _check_whole(file, series, path)
            yield file, series
        except BadInputError:
            raise
        except Exception as error:  # a broken file may raise anything
            raise BadInputError(
                f"{path} cannot be read as TIFF ({error}), expected a whole TIFF stack; copy or "
                "export it again"
            ) from error
        stack.pop_all()


def _check_stack(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path, flat: bool
) -> None:
    """Raise unless a series is one greyscale stack; where ``flat`` a single slice will do."""
    axes, shape = series.axes, series.shape
    sizes = dict(zip(axes, shape, strict=True))
    # tifffile saves 3 or 4 slices of which nothing is said as samples of one page.
    stacked = axes == "SYX" and file.is_shaped
    if sizes.get("S", 1) > 1 and not stacked:
        raise BadInputError(
            f"{path} is a colour image (axes {axes}, shape {shape}), expected greyscale; convert "
            "it to 8-bit grey"
        )
    # ImageJ has at most 7 channels: more grey ones are slices saved without a name of their axis.
    channels = sizes.get("C", 1)
    grey = (file.imagej_metadata or {}).get("mode") == "grayscale"
    if channels > 1 and not (grey and channels > IMAGEJ_CHANNELS):
        raise BadInputError(
            f"{path} has {channels} channels (axes {axes}, shape {shape}), expected one stack z, "
            "y, x; save one channel, or name the axis z if these are slices"
        )
    keep = "".join(n for n in axes if sizes[n] > 1 or n in "YX")
    if len(keep) > 3 or keep[-2:] != "YX":
        raise BadInputError(
            f"{path} has axes {axes} of shape {shape}, expected one stack z, y, x; save one "
            "channel and time"
        )
    if len(keep) < 3 and not set(axes) - {"Y", "X", "S"} and not flat:
        raise BadInputError(
            f"{path} is a 2-D image of shape {shape}, expected a volume with axes z, y, x; stack "
            "the slices into one file or give the folder that holds them"
        )


def _check_chain(file: tifffile.TiffFile, path: Path) -> None:
    """Raise unless the chain of pages ends as it should: else slices would be missing."""
    if not len(file.pages):
        raise BadInputError(
            f"{path} is a TIFF of no images, expected a stack of slices; copy or export it again"
        )
    tags, _ = _directory(file, file.pages.first.offset)
    _, after = _directory(file, file.pages[-1].offset)
    if after or tags > len(file.pages.first.tags):
        raise BadInputError(
            f"{path} is cut off or damaged: page {len(file.pages) if after else 1} is not whole, "
            "expected a whole TIFF; copy or download it again"
        )


def _directory(file: tifffile.TiffFile, offset: int) -> tuple[int, int]:
    """Return how many tags the page at an offset has, and where the next one is."""
    tiff, handle = file.tiff, file.filehandle
    handle.seek(offset)
    (tags,) = struct.unpack(tiff.tagnoformat, handle.read(tiff.tagnosize))
    handle.seek(tags * tiff.tagsize, 1)
    (after,) = struct.unpack(tiff.offsetformat, handle.read(tiff.offsetsize))
    return int(tags), int(after)


def _check_whole(file: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path) -> None:
    """Raise unless all slices that the file states are there, in one series, with all bytes."""
    size = path.stat().st_size
    pages = [page for page in series.pages if page is not None]
    if series.dataoffset is not None:
        end = series.dataoffset + series.nbytes
    else:
        end = max(
            (o + n for p in pages for o, n in zip(p.dataoffsets, p.databytecounts, strict=True)),
            default=0,
        )
        plain: Any = pages[0].keyframe
        if any(len(page.dataoffsets) < math.prod(plain.chunked) for page in pages):
            end = size + 1  # the table of strips or tiles is not whole
        if plain.compression == 1:  # as many bytes as pixels need
            need = -(-math.prod(plain.shape) * plain.bitspersample // 8)
            end = max(end, *(size + need - sum(p.databytecounts) for p in pages))
    if end > size:
        raise BadInputError(
            f"{path} is cut off: it has {size} bytes, expected at least {end}; copy or download it "
            "again"
        )
    area = math.prod(pages[0].shape)
    planes = math.prod(series.shape) // area
    there = planes if series.dataoffset is not None else len(pages)
    stated = max(_stated_planes(file, area), planes)
    if there < stated:
        raise BadInputError(
            f"{path} is cut off: it holds {there} slices, expected {stated}; copy or download it "
            "again"
        )
    others = [other for other in file.series[1:] if not other.keyframe.is_reduced]
    if others:
        raise BadInputError(
            f"{path} holds {len(others) + 1} separate images ({series.shape} {series.dtype}, "
            f"{others[0].shape} {others[0].dtype}), expected one stack; save it alone"
        )


def _stated_planes(file: tifffile.TiffFile, area: int) -> int:
    """Return how many planes the description of a file promises, 0 when it does not say."""
    if file.imagej_metadata:
        grey = file.pages.first.samplesperpixel == 1
        return math.prod(
            int(file.imagej_metadata.get(n, 1))
            for n in ("slices", "frames", "channels")[: 2 + grey]
        )
    if file.shaped_metadata:
        return int(math.prod(file.shaped_metadata[0]["shape"])) // area
    return 0


class _TiffPixels:
    """The slices of a TIFF series; decoded ones, or parts of large ones, are kept in a cache."""

    def __init__(
        self, file: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path
    ) -> None:
        height, width = (series.shape[series.axes.index(n)] for n in "YX")
        self.shape = (math.prod(series.shape) // (height * width), height, width)
        self.dtype = np.dtype(series.dtype)
        self._path = path
        self._pages = [page for page in series.pages if page is not None]
        self._per_page = self.shape[0] // len(self._pages)
        self._cache = LastUsed(self._decoded)
        # A file is mapped rather than decoded when its voxels lie in it as they are.
        offset = series.dataoffset
        order = file.byteorder + self.dtype.str[1:]
        self._map = None if offset is None else np.memmap(path, order, "r", offset, self.shape)
        if self._map is not None:
            file.close()
        else:
            weakref.finalize(self, file.close)

    def __getitem__(self, key: Any) -> Voxels:
        if self._map is not None:
            return np.asarray(self._map[key], self.dtype)
        if self._in_parts():
            return self._read_parts(*spans(key, self.shape))
        return read_planes(self._plane, self.shape, self.dtype, key)

    def _plane(self, z: int) -> Voxels:
        number, part = divmod(z, self._per_page)
        return np.asarray(self._cache.get((number, None))[part])

    def _in_parts(self) -> bool:
        """Whether pages are so large that only the strips or tiles that touch a box are decoded."""
        page: Any = self._pages[0].keyframe
        grey = page.samplesperpixel == 1 and page.imagedepth == 1 and self._per_page == 1
        return bool(grey and math.prod(page.shape) * self.dtype.itemsize > LARGE_PAGE_BYTES)

    def _read_parts(self, z: slice, y: slice, x: slice) -> Voxels:
        """Read a box from the strips or tiles that touch it."""
        page: Any = self._pages[0].keyframe
        high, wide = page.chunks[-2:]
        across = -(-self.shape[2] // wide)
        box = np.empty((z.stop - z.start, y.stop - y.start, x.stop - x.start), self.dtype)
        if not box.size:
            return box
        rows, columns = (
            range(y.start // high, -(-y.stop // high)),
            range(x.start // wide, -(-x.stop // wide)),
        )
        for number in range(z.start, z.stop):
            for row, column in itertools.product(rows, columns):
                part = self._cache.get((number, row * across + column))
                top, left = row * high, column * wide
                y0, y1 = max(top, y.start), min(top + high, y.stop)
                x0, x1 = max(left, x.start), min(left + wide, x.stop)
                box[number - z.start, y0 - y.start : y1 - y.start, x0 - x.start : x1 - x.start] = (
                    part[y0 - top : y1 - top, x0 - left : x1 - left]
                )
        return box

    def _decoded(self, key: tuple[int, int | None]) -> Voxels:
        """Decode a page (slices, y, x), or one strip or tile (y, x) of it."""
        number, segment = key
        page = self._pages[number]
        try:
            if segment is None:
                return np.asarray(page.asarray().reshape(self._per_page, *self.shape[1:]))
            return self._decoded_part(page, segment)
        except Exception as error:  # codecs raise types of their own
            raise BadInputError(
                f"slice {number * self._per_page} of {self._path} cannot be decoded ({error}), "
                "expected a whole file; copy or export it again"
            ) from error

    def _decoded_part(self, page: Any, segment: int) -> Voxels:
        keyframe = page.keyframe
        offset, count = page.dataoffsets[segment], page.databytecounts[segment]
        coded = None  # a part that is not there holds the value for no data
        if offset and count:
            page.parent.filehandle.seek(offset)
            coded = page.parent.filehandle.read(count)
        tables = {}
        if keyframe.compression in (6, 7, 34892, 33007):  # JPEG keeps its tables apart
            tables = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
        part, _, shape = keyframe.decode(coded, segment, **tables)
        if part is None:
            return np.full(shape[1:3], keyframe.nodata, self.dtype)
        return np.ascontiguousarray(part.reshape(part.shape[-3:-1]), self.dtype)


def _facts(file: tifffile.TiffFile) -> dict[str, str]:
    """Say in words what kind of TIFF it is."""
    page: Any = file.pages.first
    kind = "OME-TIFF" if file.is_ome else "ImageJ TIFF" if file.is_imagej else "TIFF"
    facts = {
        "format": f"{kind}, BigTIFF" if file.is_bigtiff else kind,
        "compression": page.compression.name.lower() if page.compression != 1 else "none",
    }
    if page.is_tiled:
        facts["chunks"] = f"tiles of {sizes(page.chunks[-2:])}"
    return facts


def _notes(file: tifffile.TiffFile) -> dict[str, str]:
    """Return what ``write_tiff`` noted, meaning and provenance; empty for files not ours."""
    if file.imagej_metadata:
        return {key: str(value) for key, value in file.imagej_metadata.items()}
    with contextlib.suppress(KeyError, TypeError, SyntaxError):
        lines = str(_ome_image(file.ome_metadata or "")["Description"]).splitlines()
        return {key: value for key, _, value in (line.partition("=") for line in lines)}
    return {}


def noted_origin(notes: Mapping[str, str]) -> Place:
    """Return the place of the first voxel that ``write_tiff`` noted; 0 where it noted none."""
    with contextlib.suppress(ValueError):
        z, y, x = map(float, notes.get("origin", "").split(","))
        return z, y, x
    return ORIGIN


def noted_provenance(path: Path) -> JsonObject:
    """Return how a TIFF was made as ``write_tiff`` noted it; empty for a file that does not say."""
    try:
        with tifffile.TiffFile(path) as file:
            found = json.loads(_notes(file).get("provenance", "{}"))
    except (tifffile.TiffFileError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _voxel_size(file: tifffile.TiffFile) -> VoxelSize | None:
    """Return the voxel size in nm from ImageJ or OME metadata, None where it is not all stated."""
    with contextlib.suppress(KeyError, TypeError, ValueError, ZeroDivisionError, SyntaxError):
        if file.ome_metadata:
            pixels = _ome_image(file.ome_metadata)["Pixels"]
            sides = [float(pixels[f"PhysicalSize{axis}"]) for axis in "ZYX"]
            units = [str(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "ZYX"]
            return checked(n * UNIT_NM[unit.lower()] for n, unit in zip(sides, units, strict=True))
        if file.imagej_metadata:
            unit = UNIT_NM[str(file.imagej_metadata["unit"]).lower()]
            tags = file.pages.first.tags
            y, x = (tags[name].value for name in ("YResolution", "XResolution"))
            depth = float(file.imagej_metadata["spacing"])
            return checked((depth * unit, unit * y[1] / y[0], unit * x[1] / x[0]))
    return None


def _ome_image(xml: str) -> JsonObject:
    image = tifffile.xml2dict(xml)["OME"]["Image"]
    return dict(image[0] if isinstance(image, list) else image)


def write_tiff(
    path: Path,
    slices: Iterable[Voxels],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    voxel_nm: VoxelSize | None = None,
    meaning: str = "intensity",
    provenance: JsonObject | None = None,
    origin: Place = ORIGIN,
) -> None:
    """Write slices (y, x) as a deflate-compressed TIFF stack that Fiji opens with its voxel size.

    The file appears under its name only when it is complete. ImageJ layout for uint8, uint16 and
    float32 below 4 GB, else OME-TIFF. How it was made is noted as a line of JSON in the
    description; the place of the first voxel (z, y, x), in voxels, as ImageJ's origin or OME's
    positions of planes. Labels are shown from 0 to the largest.

    Raises
    ------
    BadInputError
        If neither layout can hold voxels of this type.
    """
    dtype = dtype.newbyteorder("=")
    if dtype.name not in WRITABLE:
        raise BadInputError(
            f"{path} cannot hold voxels of type {dtype}, expected one of {', '.join(WRITABLE)}; "
            "convert them, labels for example to uint32"
        )
    size = math.prod(shape) * dtype.itemsize
    imagej = dtype in (np.uint8, np.uint16, np.float32) and size < BIG
    options: JsonObject = {"imagej": True} if imagej else {"ome": True, "bigtiff": size >= BIG}
    metadata: JsonObject = {"axes": "ZYX"}
    resolution: JsonObject = {}
    if imagej and voxel_nm:
        metadata |= {"spacing": voxel_nm[0] / 1e3, "unit": "um"}
        resolution = {"resolution": (1e3 / voxel_nm[2], 1e3 / voxel_nm[1])}
    elif voxel_nm:
        for name, value in zip("ZYX", voxel_nm, strict=True):
            metadata |= {f"PhysicalSize{name}": value, f"PhysicalSize{name}Unit": "nm"}
    if any(origin):
        metadata |= _imagej_origin(origin) if imagej else _ome_places(origin, voxel_nm, shape[0])
    shown = imagej and meaning == "labels"
    if shown:
        metadata |= {"min": 0, "max": WIDEST}  # is replaced when the largest label is known
    notes = {"evenslice": meaning}
    if any(origin):
        notes["origin"] = ",".join(map(repr, origin))
    if provenance is not None:
        notes["provenance"] = json.dumps(provenance)
    metadata |= (
        notes
        if imagej
        else {"Description": "\n".join(f"{key}={value}" for key, value in notes.items())}
    )
    largest = 1

    def planes() -> Iterator[Voxels]:
        nonlocal largest
        for one in slices:
            plane = np.ascontiguousarray(one, dtype)
            largest = max(largest, int(plane.max())) if shown else largest
            yield plane

    with written_beside(path) as part:
        with tifffile.TiffWriter(part, **options) as writer:
            writer.write(
                planes(),
                shape=shape,
                dtype=dtype,
                compression="zlib",
                photometric="minisblack",
                metadata=metadata,
                **resolution,
            )
        if shown:
            with tifffile.TiffFile(part, mode="r+") as file:
                description = file.pages.first.tags["ImageDescription"]
                text = description.value.replace(f"max={WIDEST}", f"max={largest}", 1)
                description.overwrite(text)


def _imagej_origin(origin: Place) -> JsonObject:
    """Return which pixel ImageJ is to give the coordinates 0."""
    return {f"{axis}origin": -place for axis, place in zip("zyx", origin, strict=True)}


def _ome_places(origin: Place, voxel_nm: VoxelSize | None, depth: int) -> JsonObject:
    """Return the position of each plane for OME, in nm; empty where the voxel size is unknown."""
    if voxel_nm is None:
        return {}
    z, y, x = (place * side for place, side in zip(origin, voxel_nm, strict=True))
    places = {"X": [x] * depth, "Y": [y] * depth, "Z": [z + n * voxel_nm[0] for n in range(depth)]}
    units = {f"Position{axis}Unit": ["nm"] * depth for axis in places}
    return {"Plane": {f"Position{axis}": place for axis, place in places.items()} | units}
