"""A greyscale volume: axes z, y, x, a voxel size, and pixels that are read only when asked for."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError

Roi = tuple[slice, slice, slice]


class Pixels(Protocol):
    """What a file reader hands over: anything with a shape, a dtype and numpy's basic slicing along z, y, x."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes along z, y, x."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one voxel."""

    def __getitem__(self, key: Any, /) -> Any:
        """Read part of it."""


@dataclass(frozen=True)
class Volume:
    """Greyscale volume, axes (z, y, x), read lazily.

    Attributes
    ----------
    pixels
        The voxels; a numpy array or a lazy reader.
    voxel_nm
        Voxel size (z, y, x) in nanometres, or None when unknown.
    source
        Where it came from, for messages.
    meaning
        ``"intensity"`` or ``"labels"``, or ``"probabilities"`` when a file of ours says that 255 stands for 1.

    Raises
    ------
    BadInputError
        If the pixels are not a non-empty array of three axes of real numbers.
    """

    pixels: Pixels
    voxel_nm: tuple[float, float, float] | None = None
    source: str = "array"
    meaning: str = "intensity"

    def __post_init__(self) -> None:
        """Refuse what is not a greyscale volume."""
        shape = tuple(self.pixels.shape)
        if len(shape) != 3:
            what = "a 2-D image" if len(shape) == 2 else f"an array of {len(shape)} axes"
            raise BadInputError(
                f"{self.source} holds {what} of shape {shape}, expected a volume with axes z, y, x; "
                "stack the slices into one file or give the folder that holds them"
            )
        if 0 in shape:
            raise BadInputError(f"{self.source} is empty (shape {shape}), expected at least one voxel; check the file")
        if np.dtype(self.pixels.dtype).kind not in "buif":
            raise BadInputError(
                f"{self.source} has voxels of type {self.pixels.dtype}, expected whole or real numbers; convert it to uint8"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Sizes along z, y, x."""
        z, y, x = self.pixels.shape
        return int(z), int(y), int(x)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one voxel."""
        return np.dtype(self.pixels.dtype)

    def read(self, roi: Roi) -> NDArray[Any]:
        """Read a box as a numpy array (z, y, x) of the volume's own type."""
        return np.asarray(self.pixels[roi])

    def slice_at(self, z: int) -> NDArray[Any]:
        """Read one whole slice (y, x)."""
        block = self.read((slice(z, z + 1), slice(None), slice(None)))
        return block.reshape(block.shape[1:])


def as_volume(source: "Volume | NDArray[Any]") -> Volume:
    """Take a volume as it is, or wrap a numpy array (z, y, x)."""
    return source if isinstance(source, Volume) else Volume(np.asarray(source))


def crop(volume: Volume, roi: Roi) -> Volume:
    """Return the box ``roi`` of a volume as a volume of its own, still lazy."""
    return Volume(_Crop(volume.pixels, roi), volume.voxel_nm, volume.source, volume.meaning)


class _Crop:
    """A box inside lazy pixels."""

    def __init__(self, pixels: Pixels, roi: Roi) -> None:
        spans = [part.indices(size) for part, size in zip(roi, pixels.shape, strict=True)]
        self._pixels = pixels
        self._starts = tuple(start for start, _, _ in spans)
        self.shape = tuple(max(0, stop - start) for start, stop, _ in spans)
        self.dtype = np.dtype(pixels.dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read with plain slices, shifted into the parent."""
        parts = (*(key if isinstance(key, tuple) else (key,)), slice(None), slice(None))[:3]
        shifted = []
        for part, start, size in zip(parts, self._starts, self.shape, strict=True):
            low, high, _ = part.indices(size)
            shifted.append(slice(start + low, start + high))
        return np.asarray(self._pixels[tuple(shifted)])
