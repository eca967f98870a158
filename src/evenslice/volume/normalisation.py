"""Normalisation: raw intensities to what a network expects.

It is part of symmetry: one scalar mean and one scalar std for all slots keep a uniform stem
uniform; one pair per slot breaks it again. So windows are arranged first and normalised afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError, give_warnings
from evenslice.volume.array import Volume, Voxels

BLOCKS = 64
BLOCK_SIDE = 256
LARGEST = 1e30
STRETCH = 16  # voxels of one value in a row: noise makes none
MUCH_FLAT = 0.1
FAR_MEAN, FAR_STD, CLEAR_SKEW = 1.5, 2.5, 0.5  # in stds; a ratio; of both volumes


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
    if pixels.dtype.kind == "f" and not (good := _finite(pixels)).all():
        bad = good.size - np.count_nonzero(good)
        raise BadInputError(
            f"{where} has {bad} voxels that are NaN or infinite, or beyond {LARGEST:.3g}, expected "
            "numbers; fill or scale them first"
        )


def _finite(pixels: Voxels) -> NDArray[np.bool_]:
    return np.asarray(np.abs(pixels) <= LARGEST)  # false for NaN, too


@dataclass(frozen=True)
class Statistics:
    """Intensities of a volume without blank sections and voxels that are no numbers.

    Attributes
    ----------
    dtype
        Type of a voxel.
    mean, std, skew
        Of the voxels that count; NaN where none does. The sign of the skew changes with an inverted
        contrast.
    counted
        Which fraction of the voxels read counts.
    bad
        How many voxels read are NaN, infinite or beyond 1e30.
    flat_value, flat
        The value that fills most stretches of 16 voxels and more, and its fraction of the voxels.
    """

    dtype: str
    mean: float
    std: float
    skew: float
    counted: float
    bad: int
    flat_value: float
    flat: float

    @property
    def text(self) -> str:
        """The facts to be compared: ``mean 128, std 40 (uint8)``."""
        mean, std = (f"{float(f'{value:.4g}'):g}" for value in (self.mean, self.std))
        return f"mean {mean}, std {std}" + (self.dtype and f" ({self.dtype})")

    def differs(self, other: "Statistics") -> bool:
        """Whether the intensities are of another range than those of ``other``, or inverted."""
        near = abs(self.mean - other.mean) <= FAR_MEAN * other.std
        alike = 1 / FAR_STD <= self.std / other.std <= FAR_STD
        inverted = self.skew * other.skew < 0 and min(abs(self.skew), abs(other.skew)) > CLEAR_SKEW
        return not (near and alike) or inverted


def measure_intensities(
    volume: Volume, seed: int = 0, zs: Sequence[int] | None = None, blocks: int = BLOCKS
) -> Statistics:
    """Measure the intensities of a volume.

    Small volumes are read whole, large ones through seeded blocks of one slice by at most 256 x
    256. A blank section (one value everywhere) counts only where there are no others.

    Parameters
    ----------
    volume, seed
        The volume; seed of the blocks.
    zs
        Slices to read; all when None.
    blocks
        How many blocks to read.
    """
    zs = zs if zs is not None else range(volume.shape[0])
    _, height, width = volume.shape
    if len(zs) * height * width <= blocks * BLOCK_SIDE**2:
        boxes = [(z, slice(None), slice(None)) for z in zs]
    else:
        boxes = _seeded_boxes(zs, height, width, seed, blocks)
    parts, blank, read, finite = [], [], 0, 0
    stretches: dict[float, int] = {}
    for z, y, x in boxes:
        block = volume.read((slice(z, z + 1), y, x)).ravel()
        read += block.size
        if block.dtype.kind == "f":
            block = block[_finite(block)]
        finite += block.size
        if block.size and block.min() == block.max():
            blank.append(block)
        elif block.size:
            parts.append(block)
            for value, length in _stretches(block):
                stretches[value] = stretches.get(value, 0) + length
    values = np.concatenate(parts or blank or [np.full(1, np.nan)])
    mean = float(values.mean(dtype=np.float64))
    apart = values.astype(np.float64) - mean
    std = float(np.sqrt(np.square(apart).mean())) if values.min() != values.max() else 0.0
    flat = max(stretches, key=stretches.__getitem__, default=0.0)
    return Statistics(
        dtype=str(volume.dtype),
        mean=mean,
        std=std,
        skew=float(np.power(apart / std, 3).mean()) if std else 0.0,
        counted=values.size / read,
        bad=read - finite,
        flat_value=flat,
        flat=stretches.get(flat, 0) / values.size,
    )


def _stretches(values: Voxels) -> list[tuple[float, int]]:
    """Return the value and length of the stretches of one value, of 16 voxels and more."""
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
    lengths = np.diff(ends, prepend=-1)
    long = lengths >= STRETCH
    return list(zip(values[ends[long]].tolist(), lengths[long].tolist(), strict=True))


def estimate(volume: Volume, seed: int = 0, zs: Sequence[int] | None = None) -> Normalisation:
    """Estimate one scalar mean and std of a volume, as ``measure_intensities`` does.

    Raises
    ------
    BadInputError
        If the volume is constant, or holds no numbers.
    """
    return normalisation_from(measure_intensities(volume, seed, zs), volume.source)


def normalisation_from(found: Statistics, source: str) -> Normalisation:
    """Return the normalisation by a volume's own numbers; warn of padding that counts in them.

    Raises
    ------
    BadInputError
        If the volume is constant, or holds no numbers.
    """
    if not found.std > 0:
        what = "NaN or infinite" if np.isnan(found.mean) else f"{found.mean:g}"
        raise BadInputError(
            f"{source} is constant (every voxel read is {what}), expected an image; check the file"
        )
    if found.flat > MUCH_FLAT:
        padding = (
            f"{found.flat:.0%} of the voxels of {source} are {found.flat_value:g} in long "
            "stretches (padding?), and count in its mean and std; cut them off, or give --mean and "
            "--std where there are such options"
        )
        give_warnings([padding])
    return Normalisation((found.mean,), (found.std,), "volume")


def _seeded_boxes(
    zs: Sequence[int], height: int, width: int, seed: int, blocks: int
) -> list[tuple[int, slice, slice]]:
    rng = np.random.default_rng(seed)
    tall, wide = min(BLOCK_SIDE, height), min(BLOCK_SIDE, width)
    boxes = []
    for z in rng.choice(np.asarray(zs), blocks, replace=len(zs) < blocks):
        y, x = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
        boxes.append((int(z), slice(y, y + tall), slice(x, x + wide)))
    return boxes
