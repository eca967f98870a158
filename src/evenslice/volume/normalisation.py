"""Normalisation: raw intensities to what a network expects.

It is part of symmetry: one scalar mean and one scalar std for all slots keep a uniform stem
uniform; one pair per slot breaks it again. So windows are arranged first and normalised afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume, Voxels

BLOCKS = 64
BLOCK_SIDE = 256
LARGEST = 1e30


@dataclass(frozen=True)
class Normalisation:
    """``(raw - mean) / std``, in raw intensity units.

    Attributes
    ----------
    mean, std
        One number for all slots, or S numbers, one per slot. ``std`` is above 0.
    source
        Where the numbers came from: ``"file"``, ``"option"`` or ``"volume"``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str = "volume"

    def __post_init__(self) -> None:
        """Refuse numbers that cannot normalise."""
        if len(self.mean) != len(self.std) or not self.mean:
            raise BadInputError(
                f"normalisation has {len(self.mean)} means and {len(self.std)} stds, expected as "
                "many of both; give one of each"
            )
        if not np.all(np.isfinite([*self.mean, *self.std])) or min(self.std) <= 0:
            raise BadInputError(
                f"normalisation has mean {self.mean} and std {self.std}, expected finite numbers "
                "and a std above 0; correct them, or give --mean and --std"
            )

    @property
    def uniform(self) -> bool:
        """Whether every slot is normalised alike."""
        return len(set(self.mean)) == 1 and len(set(self.std)) == 1

    def apply(self, windows: Voxels) -> NDArray[np.float32]:
        """Normalise raw windows (..., S, y, x) to float32."""
        if len(self.mean) not in (1, windows.shape[-3]):
            raise BadInputError(
                f"normalisation has {len(self.mean)} means, expected 1 or {windows.shape[-3]} (one "
                "per slot); give one number"
            )
        exact = np.result_type(windows.dtype, np.float32)  # more for whole numbers of 32 bits
        mean = np.asarray(self.mean, exact)[:, None, None]
        scale = 1.0 / np.asarray(self.std, exact)[:, None, None]
        return np.asarray((windows.astype(exact) - mean) * scale, np.float32)


def check_finite(pixels: Voxels, where: str) -> None:
    """Raise ``BadInputError`` if float pixels hold NaN, infinity, or numbers beyond 1e30."""
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        bad = int(pixels.size - np.isfinite(pixels).sum())
        raise BadInputError(
            f"{where} has {bad} voxels that are NaN or infinite, expected numbers; fill them first"
        )
    if pixels.dtype == np.float64 and pixels.size and np.abs(pixels).max() > LARGEST:
        raise BadInputError(
            f"{where} holds numbers beyond {LARGEST:.3g}, expected smaller ones; scale them first"
        )


def estimate(volume: Volume, seed: int = 0, zs: Sequence[int] | None = None) -> Normalisation:
    """Estimate one scalar mean and std of a volume.

    Small volumes are read whole, large ones through 64 seeded blocks of one slice by at most 256 x
    256.

    Parameters
    ----------
    volume
        The volume.
    seed
        Seed of the blocks.
    zs
        Slices to read; all when None.

    Raises
    ------
    BadInputError
        If the volume holds NaN or infinity, or is constant.
    """
    zs = zs if zs is not None else range(volume.shape[0])
    _, height, width = volume.shape
    if len(zs) * height * width <= BLOCKS * BLOCK_SIDE**2:
        boxes = [(z, slice(None), slice(None)) for z in zs]
    else:
        boxes = _seeded_boxes(zs, height, width, seed)
    count, mean = 0, 0.0
    squares = 0.0  # sum of squared distances from the mean, merged block by block
    low, high = np.inf, -np.inf
    for z, y, x in boxes:
        block = volume.read((slice(z, z + 1), y, x))
        check_finite(block, f"{volume.source} slice {z}")
        values = block.astype(np.float64)
        low, high = min(low, values.min()), max(high, values.max())
        apart, part = values.mean() - mean, values.size / (count + values.size)
        squares += np.square(values - values.mean()).sum() + apart**2 * part * count
        mean, count = mean + apart * part, count + values.size
    if not low < high:
        raise BadInputError(
            f"{volume.source} is constant (every voxel read is {low:g}), expected an image; check "
            "the file"
        )
    return Normalisation((float(mean),), (float(np.sqrt(squares / count)),), "volume")


def _seeded_boxes(
    zs: Sequence[int], height: int, width: int, seed: int
) -> list[tuple[int, slice, slice]]:
    rng = np.random.default_rng(seed)
    tall, wide = min(BLOCK_SIDE, height), min(BLOCK_SIDE, width)
    boxes = []
    for z in rng.choice(np.asarray(zs), BLOCKS, replace=len(zs) < BLOCKS):
        y, x = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
        boxes.append((int(z), slice(y, y + tall), slice(x, x + wide)))
    return boxes
