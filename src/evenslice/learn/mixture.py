"""Patches of several volumes: each in proportion to its training voxels, some centred on a class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenslice.learn.occurrences import Occurrences
from evenslice.learn.patches import PatchSource
from evenslice.volume.normalisation import Normalisation


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
    occurrences: Occurrences | None = None
    balance: float = 0.0

    @property
    def crop(self) -> tuple[int, int]:
        """Sides (y, x) of a patch in pixels."""
        return self.sources[0].crop

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Draw one patch: window (S, y, x) normalised, target (y, x) with -1 where no loss is taken."""
        if self.occurrences is not None and rng.random() < self.balance:
            number, z, y, x = self.occurrences.draw(rng)
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
    return Normalisation((mean,), (float(np.sqrt(weights @ (stds**2 + (means - mean) ** 2))),), parts[0].source)
