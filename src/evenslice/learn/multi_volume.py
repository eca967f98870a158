"""Patches of several volumes, some centred on a class; volumes kept in memory where they fit."""

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.labels.blocks import MOST_VOXELS, bands
from evenslice.learn.patches import Patch, PatchSource
from evenslice.options import TrainOptions
from evenslice.volume.array import Pixels, Volume
from evenslice.volume.files import open_volume
from evenslice.volume.normalisation import Normalisation

MOST_LOCATIONS = 2**16
LOCATION_STREAM = 1  # apart from the seeds of patches
FRACTION_OF_FREE = 4


@dataclass(frozen=True)
class ClassLocations:
    """Voxels (n, 4) of each foreground class that occurs: number of the source, z, y, x.

    All of them, or a uniform sample.
    """

    voxels: tuple[NDArray[np.int32], ...]

    def draw(self, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draw a class evenly, and one of its voxels: number of the source, z, y, x."""
        voxels = self.voxels[int(rng.integers(len(self.voxels)))]
        source, z, y, x = voxels[int(rng.integers(len(voxels)))].tolist()
        return source, z, y, x


def find_class_locations(
    sources: Sequence[PatchSource], seed: int, most: int = MOST_LOCATIONS, block: int = MOST_VOXELS
) -> ClassLocations:
    """Find the foreground classes in the training slices of all sources, without ignored labels.

    A seeded sample of at most ``most`` voxels of each is kept; ``block`` voxels are read at a time.
    Raises ``BadInputError`` if no foreground class occurs.
    """
    rng = np.random.default_rng([seed, LOCATION_STREAM])
    samples = [_Sample(most) for _ in range(1, max(2, sources[0].target.classes))]
    for number, source in enumerate(sources):
        for corner, target in _targets(source, block):
            for kind, sample in enumerate(samples, 1):
                at = np.flatnonzero(target.ravel() == kind)
                keys = rng.random(len(at))
                low = keys < sample.limit
                where = np.stack(np.unravel_index(at[low], target.shape), 1) + corner
                sample.add(keys[low], np.insert(where, 0, number, 1).astype(np.int32))
    voxels = tuple(sample.voxels for sample in samples if len(sample.voxels))
    if not voxels:
        raise BadInputError(
            f"the training slices of {sources[0].volume.source} hold no foreground, expected some "
            "to centre patches on; use other --validation slices, or leave --balance out"
        )
    return ClassLocations(voxels)


def _targets(
    source: PatchSource, block: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Give the targets of all training slices box by box, each with its corner (z, y, x)."""
    _, height, width = source.volume.shape
    gaps = np.flatnonzero(np.diff(source.centres) != 1) + 1
    for run in np.split(np.asarray(source.centres), gaps):
        first = int(run[0])
        for band in bands((len(run), height, width), most=block):
            z = slice(first + band.z.start, first + band.z.stop)
            corner = np.array([z.start, band.rows.start, 0])
            yield corner, source.target_at(z, band.rows, slice(0, width))


class _Sample:
    """A uniform sample of a stream: every item has a random key, the lowest keys are kept."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys = np.empty(0)
        self.voxels = np.empty((0, 4), np.int32)
        self.limit = 1.0  # keys from here on are too high

    def add(self, keys: NDArray[np.float64], voxels: NDArray[np.int32]) -> None:
        self._keys = np.concatenate([self._keys, keys])
        self.voxels = np.concatenate([self.voxels, voxels])
        if len(self._keys) > self._most:
            keep = np.sort(np.argpartition(self._keys, self._most)[: self._most])
            self._keys, self.voxels = self._keys[keep], self.voxels[keep]
        if len(self._keys) == self._most:
            self.limit = float(self._keys.max())


@dataclass(frozen=True)
class MultiVolume:
    """Volumes to draw patches from."""

    sources: tuple[PatchSource, ...]  # alike in all but volume, labels and centres
    class_locations: ClassLocations | None = None  # None if ``balance`` is 0
    balance: float = 0.0  # fraction of the patches centred on a pixel of a class, drawn evenly

    def draw(self, rng: np.random.Generator) -> Patch:
        """Draw a patch from a volume, chosen in proportion to its training voxels."""
        if self.class_locations is not None and rng.random() < self.balance:
            number, z, y, x = self.class_locations.draw(rng)
            return self.sources[number].draw_around(rng, z, y, x)
        if len(self.sources) == 1:
            return self.sources[0].draw(rng)
        voxels = np.array([source.training_voxels for source in self.sources], float)
        return self.sources[int(rng.choice(len(voxels), p=voxels / voxels.sum()))].draw(rng)

    def patch(self, seed: int, number: int) -> Patch:
        """Return patch ``number`` of an endless stream, whatever was drawn before."""
        return self.draw(np.random.default_rng([seed, number]))

    def preloaded(self, options: TrainOptions, free: int) -> "MultiVolume":
        """Return it with volumes and labels in memory, if they fit in a quarter of ``free`` bytes.

        Files of more voxels than training reads of them stay files, read by one thread at a time.
        """
        pairs = [volume for source in self.sources for volume in (source.volume, source.labels)]
        files = [volume for volume in pairs if not isinstance(volume.pixels, np.ndarray)]
        size = sum(math.prod(file.shape) * file.dtype.itemsize for file in files)
        wanted = options.steps * options.batch // options.devices * options.slices
        wanted *= math.prod(self.sources[0].crop)
        fits = size <= free // FRACTION_OF_FREE
        fits = fits and sum(math.prod(file.shape) for file in files) <= wanted
        ready = [_ready(volume, fits) for volume in pairs]
        sources = zip(self.sources, ready[::2], ready[1::2], strict=True)
        return replace(
            self, sources=tuple(replace(one, volume=v, labels=w) for one, v, w in sources)
        )


def _ready(volume: Volume, whole: bool) -> Volume:
    if isinstance(volume.pixels, np.ndarray):
        return volume
    if not whole:
        return replace(volume, pixels=Locked(volume.pixels))
    pixels = np.empty(volume.shape, volume.dtype)
    for z in range(volume.shape[0]):
        pixels[z] = volume.slice_at(z)
    return replace(volume, pixels=pixels)


class Locked:
    """Lazy pixels that one thread reads at a time."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels, self._lock = pixels, threading.Lock()
        self.shape, self.dtype = pixels.shape, pixels.dtype

    def __getitem__(self, key: Any) -> Any:
        """Read a box."""
        with self._lock:
            return np.asarray(self._pixels[key])


class Reopened:
    """Pixels of a file that each process opens for itself."""

    def __init__(self, path: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        self._pixels: Pixels | None = None

    def __reduce__(self) -> tuple[type["Reopened"], tuple[Any, ...]]:
        """Send the path alone to another process."""
        return Reopened, (self.path, self.shape, self.dtype)

    def __getitem__(self, key: Any) -> Any:
        """Read a box."""
        if self._pixels is None:
            self._pixels = open_volume(self.path).pixels
        return self._pixels[key]


def combined(parts: Sequence[Normalisation], voxels: Sequence[float]) -> Normalisation:
    """Return the mean and std of several volumes together, from those of each.

    The variance of the whole is the mean of the variances and of the squared distances of the
    means, weighted by the ``voxels`` that each scalar mean and std stands for.
    """
    if len(parts) == 1:
        return parts[0]
    weights = np.asarray(voxels, float) / sum(voxels)
    means = np.array([part.mean[0] for part in parts])
    stds = np.array([part.std[0] for part in parts])
    mean = float(weights @ means)
    std = float(np.sqrt(weights @ (stds**2 + (means - mean) ** 2)))
    return Normalisation((mean,), (std,), parts[0].source)
