"""TIFF stacks: plain, BigTIFF, tiled or compressed, read lazily and checked to be whole."""

import contextlib
import itertools
import logging
import math
import struct
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from evenslice.errors import BadInputError
from evenslice.volume.array import MEANINGS, Volume, Voxels, read_planes, sizes, spans
from evenslice.volume.cache import LastUsed
from evenslice.volume.tiff_metadata import (
    WHITE_IS_ZERO,
    check_ome,
    facts_of,
    images_beside,
    noted_origin,
    notes,
    remarks_on_file,
    remarks_on_page,
    voxel_size,
    warn_of,
)

LARGE_PAGE_BYTES = 64 * 2**20
IMAGEJ_CHANNELS = 7
RGB, OTHER_COLOURS = 2, (5, 8, 9, 10)  # PhotometricInterpretation: also CMYK and Lab
# Width, length, bits, compression, photometric, fill order, samples, planes, predictor, format; and
# what each is when it is left out.
CODING_TAGS = {256: 0, 257: 0, 258: 1, 259: 1, 262: 1, 266: 1, 277: 1, 284: 1, 317: 1, 339: 1}
INTEGERS = {1: "B", 3: "H", 4: "I"}


def open_tiff(path: Path) -> Volume:
    """Open a TIFF stack lazily as a volume (z, y, x).

    Raises
    ------
    BadInputError
        If the file is not TIFF, is cut off, or does not hold one greyscale stack.
    """
    with _opened(path) as (file, series):
        stated = notes(file)
        _check_stack(file, series, path, flat="evenslice" in stated)
        voxel_nm = voxel_size(file, series)
        remarks = remarks_on_page(series.keyframe) | remarks_on_file(file, series, voxel_nm)
        pixels = _TiffPixels(file, series, path)
        meaning = stated.get("evenslice", "")
        volume = Volume(
            pixels,
            voxel_nm,
            str(path),
            meaning if meaning in MEANINGS else "intensity",
            facts_of(file),
            noted_origin(stated),
        )
    warn_of(path, remarks)
    return volume


def read_image(path: Path) -> Voxels:
    """Read a whole TIFF file, an image of a folder; raise ``BadInputError`` if it is none."""
    with _opened(path, is_ome=False) as (file, series):  # not the other files of an OME-TIFF
        image = np.asarray(series.asarray())
        file.close()
        return _as_shown(image, series.keyframe)


def image_header(path: Path) -> tuple[tuple[int, int], np.dtype[Any], dict[str, str]]:
    """Return shape (y, x), type and remarks of the image in a TIFF file, without its pixels.

    Raises
    ------
    BadInputError
        If it is none, or of colours that cannot be compared with grey.
    """
    with _readable(path), tifffile.TiffFile(path, is_ome=False) as file:
        page = file.pages.first
        _check_kind(page, path)
        if file.pages.is_multipage and file.pages[1].shape == page.shape:
            raise BadInputError(
                f"{path} is a stack of {len(file.pages)} images, expected one grey slice (y, x); "
                "give a stack as a file, not in a folder"
            )
        return (page.imagelength, page.imagewidth), np.dtype(page.dtype), remarks_on_page(page)


def _check_kind(page: tifffile.TiffPage, path: Path) -> None:
    """Raise unless there is a type for what the header says of the samples."""
    if page.photometric in OTHER_COLOURS or page.dtype is None:
        colours = tifffile.PHOTOMETRIC(page.photometric).name
        form = tifffile.SAMPLEFORMAT(page.sampleformat).name
        raise BadInputError(
            f"{path} says that it holds {colours} of {page.bitspersample} bits as {form}, expected "
            "greyscale in whole or real numbers; convert it to 8-bit grey"
        )


def _as_shown(image: Voxels, page: tifffile.TiffPage) -> Voxels:
    """Invert 1-bit images whose zeros are white; stored numbers of more bits stay as they are."""
    return ~image if page.photometric == WHITE_IS_ZERO and page.bitspersample == 1 else image


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn any error of the library into one line."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it only logs is checked here
    try:
        yield
    except BadInputError:
        raise
    except Exception as error:  # a broken file may raise anything
        raise BadInputError(
            f"{path} cannot be read as TIFF ({error}), expected a whole TIFF stack; copy or "
            "export it again"
        ) from error


@contextlib.contextmanager
def _opened(
    path: Path, is_ome: bool | None = None
) -> Iterator[tuple[tifffile.TiffFile, tifffile.TiffPageSeries]]:
    """Give a whole TIFF file and its one series; it is closed on any error."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_readable(path))
        file = stack.enter_context(tifffile.TiffFile(path, is_ome=is_ome))
        _check_chain(file, path)
        _check_kind(file.pages.first, path)
        if file.is_ome:
            check_ome(file, path)
        series = max(file.series, key=_planes)
        _check_whole(file, series, path)
        _check_alike(file, series, path)
        yield file, series
        stack.pop_all()


def _planes(series: tifffile.TiffPageSeries) -> int:
    """Return how many slices a series has; a page may hold several."""
    return series.size // series.keyframe.size


def _check_stack(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path, flat: bool
) -> None:
    """Raise unless a series is one greyscale stack; where ``flat`` a single slice will do."""
    axes, shape = series.axes, series.shape
    sizes = dict(zip(axes, shape, strict=True))
    # tifffile saves 3 or 4 slices of which nothing is said as samples of one page.
    stacked = axes == "SYX" and file.is_shaped and series.keyframe.photometric == RGB
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
    tags, _, _ = _directory(file, file.pages.first.offset)
    _, _, after = _directory(file, file.pages[-1].offset)
    if after or tags > len(file.pages.first.tags):
        raise BadInputError(
            f"{path} is cut off or damaged: page {len(file.pages) if after else 1} is not whole, "
            "expected a whole TIFF; copy or download it again"
        )


def _check_alike(file: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path) -> None:
    """Raise unless all pages of a stack are coded alike: tifffile compares only a few of them."""
    own = [page for page in series.pages if page is not None and page.parent is file]
    first: dict[int, int] = {}
    for number, page in enumerate(own):
        _, coded, _ = _directory(file, page.offset)
        first = first or coded
        for tag, value in coded.items():
            if value != first[tag]:
                name = tifffile.TIFF.TAGS[tag]
                raise BadInputError(
                    f"{path} holds pages of several kinds (the first has {name} {first[tag]}, page "
                    f"{number + 1} has {value}), expected one stack of pages that are alike; save "
                    "it again as one"
                )


def _directory(file: tifffile.TiffFile, offset: int) -> tuple[int, dict[int, int], int]:
    """Return how many tags the page at an offset has, how it is coded, and where the next is."""
    tiff, handle = file.tiff, file.filehandle
    handle.seek(offset)
    (tags,) = struct.unpack(tiff.tagnoformat, handle.read(tiff.tagnosize))
    data = handle.read(tags * tiff.tagsize)
    (after,) = struct.unpack(tiff.offsetformat, handle.read(tiff.offsetsize))
    coded = dict(CODING_TAGS)
    entry = file.byteorder + ("HHQ8s" if file.is_bigtiff else "HHI4s")
    for tag, kind, count, value in struct.iter_unpack(entry, data):
        if tag in coded and kind in INTEGERS and count == 1:
            (coded[tag],) = struct.unpack_from(file.byteorder + INTEGERS[kind], value)
    return int(tags), coded, int(after)


def _check_whole(file: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path) -> None:
    """Raise unless all slices that the file states are there, in one series, with all bytes."""
    pages = [page for page in series.pages if page is not None]
    plain = series.keyframe
    need = -(-math.prod(plain.shape) * plain.bitspersample // 8)  # bytes, where not compressed
    contiguous = series.dataoffset
    for page in pages:
        handle = page.parent.filehandle  # of another file of an OME-TIFF too
        spans = zip(page.dataoffsets, page.databytecounts, strict=True)
        end = max((offset + count for offset, count in spans), default=0)
        if contiguous is not None:
            end = contiguous + series.nbytes
        elif len(page.dataoffsets) < math.prod(plain.chunked):
            end = handle.size + 1  # the table of strips or tiles is not whole
        elif plain.compression == 1:
            end = max(end, handle.size + need - sum(page.databytecounts))
        if end > handle.size:
            raise BadInputError(
                f"{path.parent / handle.name} is cut off: it has {handle.size} bytes, expected at "
                f"least {end}; copy or download it again"
            )
    planes = _planes(series)
    there = len(pages)
    if series.dataoffset is not None:  # side by side, described by one page or by one each
        there = planes if len(file.pages) == 1 else min(planes, len(file.pages))
    stated = _stated_planes(file, math.prod(pages[0].shape))
    if there < max(stated, planes):
        raise BadInputError(
            f"{path} is cut off: it holds {there} slices, expected {max(stated, planes)}; copy or "
            "download it again"
        )
    known = sum(max(_planes(level), len(level)) for one in file.series for level in one.levels)
    if series.kind in ("imagej", "ome") and (there > planes or len(file.pages) > known):
        raise BadInputError(
            f"{path} says that it holds {planes} slices and holds {len(file.pages)}, "
            "expected one stack; save each stack as a file of its own, or all as one"
        )
    others = [
        other
        for other in images_beside(file, series)
        if _planes(other) > 1 or _area(other) >= _area(series)  # not a preview
    ]
    if others:
        both = "; ".join(
            f"{sizes(one.shape)} {one.dtype} {tifffile.PHOTOMETRIC(one.keyframe.photometric).name}"
            for one in (series, others[0])
        )
        raise BadInputError(
            f"{path} holds {len(others) + 1} separate images ({both}), expected one stack; save it "
            "alone"
        )


def _area(series: tifffile.TiffPageSeries) -> int:
    return series.keyframe.imagelength * series.keyframe.imagewidth


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
        self._keyframe = series.keyframe
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
        page = self._keyframe
        grey = page.samplesperpixel == 1 and page.imagedepth == 1 and self._per_page == 1
        return bool(grey and math.prod(page.shape) * self.dtype.itemsize > LARGE_PAGE_BYTES)

    def _read_parts(self, z: slice, y: slice, x: slice) -> Voxels:
        """Read a box from the strips or tiles that touch it."""
        page = self._keyframe
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
        handle = page.parent.filehandle
        closed = handle.closed  # one of the other files of an OME-TIFF
        try:
            if closed:
                handle.open()
            if segment is None:
                image = page.asarray().reshape(self._per_page, *self.shape[1:])
            else:
                image = self._decoded_part(page, segment)
            return _as_shown(np.asarray(image), self._keyframe)
        except Exception as error:  # codecs raise types of their own
            raise BadInputError(
                f"slice {number * self._per_page} of {self._path} cannot be decoded ({error}), "
                "expected a whole file; copy or export it again"
            ) from error
        finally:
            if closed:
                handle.close()

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
