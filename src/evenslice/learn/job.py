"""What a process of another device needs to train along: all of it can be sent to that process."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from evenslice.learn.fit import Seen, fit
from evenslice.learn.module import Training
from evenslice.learn.multi_volume import Mixture
from evenslice.learn.preload import held_sources
from evenslice.learn.ranks import Ranks
from evenslice.model.build import rebuild
from evenslice.model.spec import Spec
from evenslice.model.stem.adapt import mirror_stem
from evenslice.model.tile_limits import free_memory
from evenslice.options import TrainOptions, TrainPrecision
from evenslice.volume.array import Pixels, Volume
from evenslice.volume.files import open_volume


@dataclass(frozen=True)
class Job:
    """Training on one of several devices. The weights to start from come from the first device.

    Attributes
    ----------
    spec, stride
        The network.
    mixture
        What to draw patches from.
    recipe, chunk
        How to train; steps between two looks.
    device, precision
        Kind of device, and the numbers that it computes with.
    folder
        Where the state lies, if the run goes on.
    """

    spec: Spec
    stride: int
    mixture: Mixture
    recipe: TrainOptions
    chunk: int
    device: str
    precision: TrainPrecision
    folder: Path

    def __call__(self, ranks: Ranks) -> Callable[[], None]:
        """Open everything, and return what trains along."""
        network = rebuild(self.spec)
        if self.spec.tie != "none":
            mirror_stem(network, self.spec.slices, self.spec.tie)
        mixture = held_sources(self.mixture, self.recipe, free_memory() // ranks.count)
        training = Training(
            network.train(), self.stride, mixture, self.recipe, self.chunk, ranks.rank
        )
        return partial(
            fit, training, torch.device(self.device), self.precision, self.folder, _unseen, ranks
        )


def _unseen(steps: int, loss: float, rate: float) -> Seen:
    raise NotImplementedError("only the first device looks")


def abroad(volume: Volume, given: Any) -> Volume:
    """Return a volume as another process can have it: one given by its path is opened there anew."""
    if not isinstance(given, (str, Path)):
        return volume
    return replace(volume, pixels=Reopened(str(given), volume), facts={})


class Reopened:
    """Pixels of a file that are opened where they are read, so that they can be sent to another process."""

    def __init__(self, path: str, volume: Volume) -> None:
        self.path, self.shape, self.dtype = path, volume.shape, volume.dtype
        self._pixels: Pixels | None = None

    def __getitem__(self, key: Any) -> Any:
        """Read part of it."""
        if self._pixels is None:
            self._pixels = open_volume(self.path).pixels
        return self._pixels[key]
