"""Patches of several volumes: each in proportion to its training voxels, some centred on a class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.labels.blocks import MOST_VOXELS, bands
from evenslice.learn.patches import PatchSource
from evenslice.volume.normalisation import Normalisation

MOST_PLACES = 2**16
STREAM = 1  # apart from the seeds of patches


@dataclass(frozen=True)
class Occurrences:
    """Voxels of each foreground class.

    Attributes
    ----------
    places
        For each class that occurs, voxels (n, 4): number of the source, z, y, x; all of them, or a uniform sample.
    """

    places: tuple[NDArray[np.int32], ...]

    def draw(self, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draw a class evenly, and one of its voxels: number of the source, z, y, x."""
        places = self.places[int(rng.integers(len(self.places)))]
        source, z, y, x = places[int(rng.integers(len(places)))].tolist()
        return source, z, y, x


def find_occurrences(
    sources: Sequence[PatchSource], seed: int, most: int = MOST_PLACES, voxels: int = MOST_VOXELS
) -> Occurrences:
    """Look for the foreground classes in the training slices of all sources.

    Parameters
    ----------
    sources
        Volumes with labels and centre slices; what their targets ignore is left out.
    seed
        Of the sample.
    most
        Voxels of a class to keep.
    voxels
        How many to look at together.

    Raises
    ------
    BadInputError
        If no foreground class occurs.
    """
    rng = np.random.default_rng([seed, STREAM])
    samples = [_Sample(most) for _ in range(1, max(2, sources[0].target.classes))]
    for number, source in enumerate(sources):
        for corner, target in _targets(source, voxels):
            for kind, sample in enumerate(samples, 1):
                at = np.flatnonzero(target.ravel() == kind)
                keys = rng.random(len(at))
                near = keys < sample.bar
                where = np.stack(np.unravel_index(at[near], target.shape), 1) + corner
                sample.add(keys[near], np.insert(where, 0, number, 1).astype(np.int32))
    places = tuple(sample.places for sample in samples if len(sample.places))
    if not places:
        raise BadInputError(
            f"the training slices of {sources[0].volume.source} hold no foreground, expected some to centre patches on; "
            "use other --validation slices, or leave --balance out"
        )
    return Occurrences(places)


def _targets(
    source: PatchSource, voxels: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Give the targets of all training slices box by box, each with the corner (z, y, x) where it lies."""
    shape = source.volume.shape
    for run in np.split(
        np.asarray(source.centres), np.flatnonzero(np.diff(source.centres) != 1) + 1
    ):
        first = int(run[0])
        for band in bands((len(run), *shape[1:]), most=voxels):
            z = slice(first + band.z.start, first + band.z.stop)
            yield (
                np.array([z.start, band.rows.start, 0]),
                source.target_at(z, band.rows, slice(0, shape[2])),
            )


class _Sample:
    """A uniform sample of a stream: each item comes with a random key, and those of the lowest keys are kept."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys = np.empty(0)
        self.places = np.empty((0, 4), np.int32)
        self.bar = 1.0
        """A key from here on is too high."""

    def add(self, keys: NDArray[np.float64], places: NDArray[np.int32]) -> None:
        """Take items (n, 4) in with their keys."""
        self._keys = np.concatenate([self._keys, keys])
        self.places = np.concatenate([self.places, places])
        if len(self._keys) > self._most:
            keep = np.sort(np.argpartition(self._keys, self._most)[: self._most])
            self._keys, self.places = self._keys[keep], self.places[keep]
        if len(self._keys) == self._most:
            self.bar = float(self._keys.max())


@dataclass(frozen=True)
class Mixture:
    """Volumes to draw patches from.

    Attributes
    ----------
    sources
        One a volume, alike in all but volume, labels and centres.
    occurrences
        Where the classes occur; None if ``balance`` is 0.
    balance
        Part of the patches that are centred on a pixel of a class, the class drawn evenly.
    """

    sources: tuple[PatchSource, ...]
    class_locations: Occurrences | None = None
    balance: float = 0.0

    @property
    def crop(self) -> tuple[int, int]:
        """Sides (y, x) of a patch in pixels."""
        return self.sources[0].crop

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Draw one patch: window (S, y, x) normalised, target (y, x) with -1 where no loss is taken."""
        if self.class_locations is not None and rng.random() < self.balance:
            number, z, y, x = self.class_locations.draw(rng)
            return self.sources[number].draw_around(rng, z, y, x)
        if len(self.sources) == 1:
            return self.sources[0].draw(rng)
        voxels = np.array([training_voxels(source) for source in self.sources], float)
        return self.sources[int(rng.choice(len(voxels), p=voxels / voxels.sum()))].draw(rng)


def training_voxels(source: PatchSource) -> int:
    """Return how many voxels the training slices of a volume have."""
    _, height, width = source.volume.shape
    return len(source.centres) * height * width


def combined(parts: Sequence[Normalisation], voxels: Sequence[int]) -> Normalisation:
    """Return the mean and std of several volumes together, from those of each: a single one is given back as it is.

    The variance of the whole is the mean of the variances and of the squared distances of the means, weighted by voxels.

    Parameters
    ----------
    parts
        One scalar mean and std a volume.
    voxels
        How many voxels each stands for.
    """
    if len(parts) == 1:
        return parts[0]
    weights = np.asarray(voxels, float) / sum(voxels)
    means, stds = (np.array([getattr(part, name)[0] for part in parts]) for name in ("mean", "std"))
    mean = float(weights @ means)
    return Normalisation(
        (mean,), (float(np.sqrt(weights @ (stds**2 + (means - mean) ** 2))),), parts[0].source
    )
