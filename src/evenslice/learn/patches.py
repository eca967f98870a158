"""Patches: random crops of windows with their targets, the same for the same seed whatever ran before."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from evenslice.labels.targets import Target
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation, check_finite
from evenslice.volume.windows import read_window


@dataclass(frozen=True)
class PatchSource:
    """A volume, its labels, and how a patch is cut from them.

    Attributes
    ----------
    volume, labels
        Same shape (z, y, x).
    centres
        Centre slices to draw from.
    slices
        S.
    crop
        Sides (y, x) of a patch in pixels.
    target
        How labels become targets.
    normalisation
        Scalar mean and std.
    reverse_z
        Whether half of the windows are reversed, before normalisation.
    ignore
        Label that no loss is taken on, or None.
    """

    volume: Volume
    labels: Volume
    centres: tuple[int, ...]
    slices: int
    crop: tuple[int, int]
    target: Target
    normalisation: Normalisation
    reverse_z: bool = False
    ignore: int | None = None

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Draw one patch: window (S, y, x) normalised, target (y, x) with -1 where no loss is taken."""
        z = int(rng.choice(self.centres))
        (_, height, width), (tall, wide) = self.volume.shape, self.crop
        y, x = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
        place = slice(y, y + tall), slice(x, x + wide)
        window = read_window(self.volume, z, self.slices, *place)
        check_finite(window, f"{self.volume.source} around slice {z}")
        labels = self.labels.read((slice(z, z + 1), *place))[0]
        target = self.target.apply(labels).astype(np.int64)
        if self.ignore is not None:
            target[labels == self.ignore] = -1
        if self.reverse_z and rng.random() < 0.5:
            window = window[::-1]
        window, target = turn(window, target, int(rng.integers(8)))
        return self.normalisation.apply(window.copy()), target.copy()  # torch takes no turned views


def turn(
    window: NDArray[np.generic], target: NDArray[np.int64], which: int
) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Apply one of the eight flips and quarter turns in the plane; only the four that keep the shape if it is not square."""
    if which & 1:
        window, target = window[..., ::-1, :], target[::-1, :]
    if which & 2:
        window, target = window[..., ::-1], target[:, ::-1]
    if which & 4 and target.shape[0] == target.shape[1]:
        window, target = np.rot90(window, axes=(-2, -1)), np.rot90(target)
    return window, target


class Patches(Dataset[tuple[Tensor, Tensor]]):
    """A finite stretch of an endless, seeded stream of patches; item i is the same in every run."""

    def __init__(self, source: PatchSource, seed: int, first: int, count: int) -> None:
        self.source, self.seed, self.first, self.count = source, seed, first, count

    def __len__(self) -> int:
        """Return how many patches this stretch holds."""
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return window (S, y, x) and target (y, x)."""
        if not 0 <= index < self.count:
            raise IndexError(f"patch {index}, expected one of 0 to {self.count - 1}")
        window, target = self.source.draw(np.random.default_rng([self.seed, self.first + index]))
        return torch.from_numpy(window), torch.from_numpy(target)
