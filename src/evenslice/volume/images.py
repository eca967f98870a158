"""A folder of images, one slice each, in the order of the positions in their names."""

import contextlib
import math
import re
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from PIL import Image, ImageFile

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume, Voxels, first_line, read_planes, sizes
from evenslice.volume.cache import LastUsed
from evenslice.volume.tiff import image_header, read_image
from evenslice.volume.tiff_metadata import turned, warn_of

TIFF = (".tif", ".tiff")
SUFFIXES = (".png", *TIFF, ".jpg", ".jpeg", ".bmp", ".pgm", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "P", "RGB", "RGBA")
MOST_MISSING = 10  # sections for each one that is there: else the numbers do not count sections
LISTED = 10
STRETCHED = {"L;2": 85, "L;4": 17}  # how Pillow fills 8 bits
EXIF_ORIENTATION = 274
_LOCK = threading.Lock()
_DECIMAL, _WHOLE = re.compile(r"\d+(?:[.,p]\d+)?"), re.compile(r"\d+")
_PGM = re.compile(rb"P([25])" + rb"(?:\s|#[^\r\n]*[\r\n])+(\d+)" * 3 + rb"\s")


def open_images(folder: Path) -> Volume:
    """Open a folder of equally sized grey images as a volume (z, y, x), lazily.

    Raises
    ------
    BadInputError
        If the folder holds no images, they are not alike or not grey, or their names give no order.
    """
    files = [
        f
        for f in folder.iterdir()
        if f.suffix.lower() in SUFFIXES and not f.name.startswith(".") and f.is_file()
    ]
    kinds = sorted({f.suffix.lower() for f in files})
    if not files:
        raise BadInputError(
            f"the folder {folder} holds no images, expected files such as "
            f"{', '.join(SUFFIXES[:3])}; check the path"
        )
    if len(kinds) > 1:
        raise BadInputError(
            f"the folder {folder} holds images of several kinds ({', '.join(kinds)}), expected "
            "one; move the others out"
        )
    names, remarks = in_order([f.name for f in files], folder)
    files = [folder / name for name in names]
    first = _header(files[0])
    for file in files[1:]:
        other = _header(file)
        if not first.is_like(other):
            raise BadInputError(
                f"{file} is {other}, expected {first} like {files[0].name}; make all slices alike"
            )
    facts = {"format": f"folder of {kinds[0][1:].upper()} images", "files": str(len(files))}
    volume = Volume(_ImagePixels(files, first), None, str(folder), facts=facts)
    warn_of(folder, remarks)
    warn_of(files[0], first.remarks)
    return volume


def in_order(names: Sequence[str], folder: Path) -> tuple[list[str], dict[str, str]]:
    """Sort file names by the positions in them, and remark on gaps.

    A position is a number, with decimals or a sign too, that differs from name to name; where
    several do, the one that runs with the fewest gaps.

    Raises
    ------
    BadInputError
        If two names have the same position, or the names are not numbered alike.
    """
    names = sorted(names, key=lambda name: (name.lower(), name))
    stems = [Path(name).stem.lower() for name in names]
    if len(names) == 1:
        return names, {}
    numbered = [_WHOLE.search(stem) is not None for stem in stems]
    if not any(numbered):
        return names, {"holds images without numbers": "they are read in alphabetical order"}
    if not all(numbered):
        raise BadInputError(
            f"{folder / names[numbered.index(False)]} has no number, expected one as in "
            f"{names[numbered.index(True)]}; move what is no section out, or number it"
        )
    decimal, whole = (_running(_columns(stems, pattern)) for pattern in (_DECIMAL, _WHOLE))
    running = min(decimal, whole, key=lambda found: _missing(found[0]) if found else math.inf)
    if running:
        if any(_ranks(other) != _ranks(running[0]) for other in running):
            raise BadInputError(
                f"the names in {folder} hold two numbers that run in different orders (as in "
                f"{names[0]} and {names[1]}), expected one; rename the files"
            )
        return [names[n] for n in _ranks(running[0])], _remark_on_gaps(running[0])
    return _in_order_of_several(names, stems, folder)


def _in_order_of_several(
    names: list[str], stems: list[str], folder: Path
) -> tuple[list[str], dict[str, str]]:
    """Sort names in which no number runs by all of their numbers, if that gives an order."""
    columns = [column for column in _columns(stems, _WHOLE) if len(set(column)) > 1]
    alike = len({tuple(_WHOLE.split(stem)) for stem in stems}) == 1
    keys = list(zip(*columns, strict=True)) if columns else [()] * len(names)
    twice = next((n for n, key in enumerate(keys) if key in keys[:n]), None)
    if twice is not None or not (alike or len(columns) == 1):
        pair = (0, 1) if twice is None else (keys.index(keys[twice]), twice)
        raise BadInputError(
            f"the folder {folder} holds several series, or copies: {names[pair[0]]} and "
            f"{names[pair[1]]} have the same number or are not numbered alike, expected one name "
            "for each section; move the others out"
        )
    counts = [len(set(column)) for column in columns]
    if len(columns) > 1 and math.prod(counts) == len(names):
        raise BadInputError(
            f"the names in {folder} hold every combination of {' and '.join(map(str, counts))} "
            f"numbers (as in {names[0]} and {names[1]}), as channels or tiles do, expected one "
            "series of sections; give each its own folder"
        )
    order = sorted(range(len(names)), key=lambda n: keys[n])
    if len(columns) == 1:
        return [names[n] for n in order], _remark_on_gaps(columns[0])
    fact = f"counts in {len(columns)} places of its names (as in {names[order[0]]})"
    return [names[n] for n in order], {fact: "they are read in the order of the first, then on"}


def _running(columns: list[list[Fraction]]) -> list[list[Fraction]]:
    """Return the column that differs from name to name with the fewest gaps, if not too many.

    After it come others that run too, with at most as many gaps as there are names.
    """
    distinct = [column for column in columns if len(set(column)) == len(column)]
    first, *others = sorted(distinct, key=_missing) or [[]]
    if not first or _missing(first) > MOST_MISSING * len(first):
        return []
    return [first, *(column for column in others if _missing(column) <= len(column))]


def _columns(stems: list[str], pattern: re.Pattern[str]) -> list[list[Fraction]]:
    """Return the numbers that all names have: a list for each place, in the order of the names.

    A hyphen is a sign where only some names have it, or decimals follow.
    """
    texts, numbers = [pattern.split(stem) for stem in stems], [pattern.findall(s) for s in stems]
    equal = len({len(found) for found in numbers}) == 1
    columns = []
    for place in range(min(map(len, numbers))):
        before = [text[place] for text in texts]
        values = [Fraction(re.sub("[,p]", ".", found[place])) for found in numbers]
        signs = [text.endswith("-") and (place == 0 or len(text) > 1) for text in before]
        if any(signs) and (not all(signs) or any(value.denominator > 1 for value in values)):
            values = [-value if sign else value for value, sign in zip(values, signs, strict=True)]
            before = [text.removesuffix("-") for text in before]
        if not equal and len(set(before)) > 1:
            break  # what follows is not the same number in each name
        columns.append(values)
    return columns


def _ranks(positions: list[Fraction]) -> list[int]:
    return sorted(range(len(positions)), key=lambda n: positions[n])


def _step(positions: list[Fraction]) -> Fraction:
    """Return the largest step of which all distances are multiples."""
    ordered = sorted(positions)
    return reduce(
        lambda a, b: Fraction(
            math.gcd(a.numerator * b.denominator, b.numerator * a.denominator),
            a.denominator * b.denominator,
        ),
        (high - low for low, high in pairwise(ordered)),
    )


def _missing(positions: list[Fraction]) -> int:
    """Return how many positions are left out between the first and the last."""
    return int((max(positions) - min(positions)) / _step(positions)) + 1 - len(positions)


def _remark_on_gaps(positions: list[Fraction]) -> dict[str, str]:
    """Return the remark on what is missing, by number."""
    if _missing(positions) == 0:
        return {}
    ordered, step = sorted(positions), _step(positions)
    pairs = list(pairwise(ordered))
    read = "the slices beside a gap are read as neighbours"
    if _missing(positions) > MOST_MISSING * len(positions):
        low, high = max(pairs, key=lambda pair: pair[1] - pair[0])
        return {f"is numbered unevenly ({_text(high)} comes after {_text(low)})": read}
    gaps = []
    for low, high in pairs:
        count = int((high - low) / step) - 1
        if count > 2:
            gaps.append(f"{_text(low + step)} to {_text(high - step)}")
        else:
            gaps += [_text(low + step * (n + 1)) for n in range(count)]
    if len(gaps) > LISTED:
        gaps[LISTED:] = ["more"]
    listed = " and ".join([", ".join(gaps[:-1]), gaps[-1]] if len(gaps) > 1 else gaps)
    noun = "section {} is" if _missing(positions) == 1 else "sections {} are"
    return {f"has gaps in its numbering: {noun.format(listed)} missing": read}


def _text(position: Fraction) -> str:
    whole = position.denominator == 1
    return str(position.numerator) if whole else f"{float(position):g}"


class _Header(NamedTuple):
    """How an image is stored; ``table`` is what its numbers stand for."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    remarks: dict[str, str]
    table: bytes = b""

    def __str__(self) -> str:
        """Write it as people do: 30 x 40 uint8."""
        facts = [f"{sizes(self.shape)} {self.dtype}", *self.remarks]
        return " and ".join(facts) + (" of its own" if self.table else "")

    def is_like(self, other: "_Header") -> bool:
        """Whether the numbers of both mean the same; tables may be cut behind the last entry."""
        tables = self.table.startswith(other.table) or other.table.startswith(self.table)
        return self[:3] == other[:3] and tables


class _ImagePixels:
    """Slices read from image files on demand; decoded ones are kept in a cache."""

    def __init__(self, files: list[Path], header: _Header) -> None:
        self._files = files
        self._cache = LastUsed(lambda z: _read_grey(files[z]))
        self.shape = (len(files), *header.shape)
        self.dtype = header.dtype.newbyteorder("=")
        self._cache.get(0)  # a folder of colour images is refused now

    def __getitem__(self, key: Any) -> Voxels:
        return read_planes(self._cache.get, self.shape, self.dtype, key)


def _header(file: Path) -> _Header:
    """Return how an image is stored, without decoding it."""
    suffix = file.suffix.lower()
    if suffix in TIFF:
        return _Header(*image_header(file))
    if suffix == ".pgm":
        with file.open("rb") as start:
            width, height, dtype, _ = _pgm_header(file, start.read(4096))
        return _Header((height, width), dtype, {})
    with _picture(file) as picture:
        deep = _is_deep(picture, _raw_mode(picture))
        kind = "bool" if picture.mode == "1" else "uint16" if deep else "uint8"
        orientation = picture.getexif().get(EXIF_ORIENTATION, 1) if "exif" in picture.info else 1
        remarks, table = turned(orientation), b""
        if picture.mode == "P":
            greys, is_grey = _table(picture)
            if not is_grey:
                remarks["has a colour table"] = "the stored numbers are read, not the colours"
                table = bytes(picture.getpalette("RGB") or [])
            elif not np.array_equal(greys, np.arange(len(greys))):
                remarks["has a table of greys"] = "its greys are read, not the stored numbers"
        return _Header(picture.size[::-1], np.dtype(kind), remarks, table)


def _read_grey(file: Path) -> Voxels:
    suffix = file.suffix.lower()
    read = read_image if suffix in TIFF else _read_pgm if suffix == ".pgm" else _read_picture
    plane = read(file)
    if plane.ndim == 3 and plane.shape[-1] in (2, 3, 4):
        colour = plane[..., :3] if plane.shape[-1] > 2 else plane[..., :1]
        if (colour == colour[..., :1]).all():
            return np.ascontiguousarray(colour[..., 0])
        raise BadInputError(
            f"{file} is a colour image (shape {plane.shape}), expected greyscale; convert it to "
            "8-bit grey"
        )
    if plane.ndim != 2:
        raise BadInputError(
            f"{file} has shape {plane.shape}, expected one grey slice (y, x); give a stack as a "
            "file, not in a folder"
        )
    return plane


def _read_picture(file: Path) -> Voxels:
    with _picture(file) as picture:
        raw = _raw_mode(picture)
        if _is_deep(picture, raw) and picture.mode in ("RGB", "RGBA"):  # Pillow drops 8 of 16 bits
            return np.asarray(imagecodecs.png_decode(file.read_bytes()))
        pixels = np.asarray(picture)
        if picture.mode == "P":
            greys, is_grey = _table(picture)
            return np.resize(greys, 256)[pixels] if is_grey else pixels
        if raw in STRETCHED:
            return pixels // np.uint8(STRETCHED[raw])
        return pixels.astype(np.uint16, copy=False) if _is_deep(picture, raw) else pixels


@contextlib.contextmanager
def _picture(file: Path) -> Iterator[Image.Image]:
    """Open one grey or coloured image with Pillow, whatever its size."""
    with _LOCK:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None  # slices of EM are larger than Pillow allows
        try:
            with Image.open(file, formats=FORMATS) as picture:
                if picture.mode not in MODES or getattr(picture, "n_frames", 1) > 1:
                    kind = f"{getattr(picture, 'n_frames', 1)} x {picture.mode}"
                    raise BadInputError(
                        f"{file} holds images of another kind ({kind}), expected one in greyscale; "
                        "convert it to 8-bit grey"
                    )
                yield picture
        except BadInputError:
            raise
        except Exception as error:  # each codec raises types of its own
            raise BadInputError(
                f"{file} cannot be read as an image ({first_line(error)}), expected a whole image; "
                "export it again"
            ) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _raw_mode(picture: Image.Image) -> str:
    """Return what Pillow will decode the samples from, such as ``L;2``."""
    tiles = picture.tile if isinstance(picture, ImageFile.ImageFile) else []
    arguments = tiles[0].args if tiles else None
    return arguments if isinstance(arguments, str) else str((arguments or [""])[0])


def _is_deep(picture: Image.Image, raw: str) -> bool:
    """Whether samples have 16 bits."""
    return picture.mode.startswith("I") or ";16" in raw


def _table(picture: Image.Image) -> tuple[Voxels, bool]:
    """Return the red of each entry of a colour table, and whether all entries are grey."""
    table = np.reshape(np.array(picture.getpalette("RGB"), np.uint8), (-1, 3))
    return table[:, 0], bool((table == table[:, :1]).all())


def _read_pgm(file: Path) -> Voxels:
    """Read a PGM as it is stored: Pillow stretches numbers to the full range of their type."""
    data = file.read_bytes()
    width, height, dtype, start = _pgm_header(file, data)
    try:
        if data[1:2] == b"2":
            pixels = np.array(data[start:].split(), dtype)
        else:
            pixels = np.frombuffer(data, dtype.newbyteorder(">"), offset=start).astype(dtype)
        return pixels.reshape(height, width)
    except ValueError as error:
        raise BadInputError(
            f"{file} holds {len(data) - start} bytes after its header, expected one image of "
            f"{sizes((height, width))} {dtype}; export it again"
        ) from error


def _pgm_header(file: Path, data: bytes) -> tuple[int, int, np.dtype[Any], int]:
    """Return width, height, type and where the pixels start."""
    found = _PGM.match(data)
    if found is None:
        raise BadInputError(f"{file} cannot be read as PGM, expected a grey image; export it again")
    width, height, largest = (int(found[n]) for n in (2, 3, 4))
    return width, height, np.dtype(np.uint8 if largest < 256 else np.uint16), found.end()
