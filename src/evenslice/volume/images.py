"""A folder of images, one slice each, in natural order of their names."""

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume, Voxels, first_line, read_planes
from evenslice.volume.cache import LastUsed
from evenslice.volume.tiff import read_image

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".pgm", ".webp")
_LOCK = threading.Lock()


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts ``slice2`` before ``slice10``."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part.lower())
        for part in re.split(r"(\d+)", name)
        if part
    ]


def open_images(folder: Path) -> Volume:
    """Open a folder of equally sized grey images as a volume (z, y, x), lazily.

    Raises
    ------
    BadInputError
        If the folder holds no images, kinds are mixed, or the first one is not a grey image.
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
    pixels = _ImagePixels(sorted(files, key=lambda f: (natural_key(f.name), f.name)))
    facts = {"format": f"folder of {kinds[0][1:].upper()} images", "files": str(len(files))}
    return Volume(pixels, None, str(folder), facts=facts)


class _ImagePixels:
    """Slices read from image files on demand; decoded ones are kept in a cache."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        first = _read_grey(files[0])
        self.shape = (len(files), *first.shape)
        self.dtype = first.dtype
        self._cache = LastUsed(self._plane)

    def __getitem__(self, key: Any) -> Voxels:
        return read_planes(self._cache.get, self.shape, self.dtype, key)

    def _plane(self, z: int) -> Voxels:
        plane = _read_grey(self._files[z])
        if plane.shape != self.shape[1:] or plane.dtype != self.dtype:
            raise BadInputError(
                f"{self._files[z]} is {plane.shape} {plane.dtype}, expected {self.shape[1:]} "
                f"{self.dtype} like {self._files[0].name}; make all slices alike"
            )
        return plane


def _read_grey(file: Path) -> Voxels:
    plane = read_image(file) if file.suffix.lower() in (".tif", ".tiff") else _read_picture(file)
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
    with _LOCK:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None  # slices of EM are larger than Pillow allows
        try:
            with Image.open(file) as picture:
                grey = picture.convert("RGBA") if picture.mode == "P" else picture
                pixels = np.asarray(grey)
        except Exception as error:  # each codec raises types of its own
            raise BadInputError(
                f"{file} cannot be read as an image ({first_line(error)}), expected a whole image; "
                "export it again"
            ) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    if pixels.dtype == np.int32:  # how Pillow gives 16 bits of some formats
        return pixels.astype(np.uint16)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
