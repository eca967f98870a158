"""Volumes read into memory for training where they fit, else read from their files piece by piece."""

import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenslice.learn.multi_volume import Mixture
from evenslice.options import TrainOptions
from evenslice.volume.array import Pixels, Volume

PART_OF_FREE = 4


def held_sources(mixture: Mixture, recipe: TrainOptions, free: int) -> Mixture:
    """Return what to draw patches from with volumes and labels in memory, if they fit in a quarter of what is free."""
    wanted = recipe.steps * recipe.batch // recipe.devices * recipe.slices * math.prod(mixture.crop)
    pairs = [volume for source in mixture.sources for volume in (source.volume, source.labels)]
    ready = held(pairs, wanted, free // PART_OF_FREE)
    sources = zip(mixture.sources, ready[::2], ready[1::2], strict=True)
    return replace(
        mixture, sources=tuple(replace(s, volume=v, labels=truth) for s, v, truth in sources)
    )


def held(volumes: Sequence[Volume], wanted: int, room: int) -> list[Volume]:
    """Read volumes into memory, if training reads that much and they all fit, else guard them for threads.

    Parameters
    ----------
    volumes
        What patches are cut from; those that lie in memory stay as they are.
    wanted
        Voxels that training will read of them: volumes that are larger than that are not read as a whole.
    room
        Bytes that may be taken.
    """
    files = [volume for volume in volumes if not isinstance(volume.pixels, np.ndarray)]
    voxels = [math.prod(volume.shape) for volume in files]
    size = sum(count * volume.dtype.itemsize for count, volume in zip(voxels, files, strict=True))
    whole = size <= room and sum(voxels) <= wanted
    ready = _read if whole else Guarded.of
    return [v if isinstance(v.pixels, np.ndarray) else replace(v, pixels=ready(v)) for v in volumes]


def _read(volume: Volume) -> NDArray[Any]:
    pixels = np.empty(volume.shape, volume.dtype)
    for z in range(volume.shape[0]):
        pixels[z] = volume.slice_at(z)
    return pixels


class Guarded:
    """Lazy pixels that are read by one thread at a time."""

    @classmethod
    def of(cls, volume: Volume) -> "Guarded":
        """Guard the pixels of a volume."""
        return cls(volume.pixels)

    def __init__(self, pixels: Pixels) -> None:
        self._pixels, self._lock = pixels, threading.Lock()
        self.shape, self.dtype = pixels.shape, pixels.dtype

    def __getitem__(self, key: Any) -> Any:
        """Read part of it."""
        with self._lock:
            return np.asarray(self._pixels[key])
