"""What processes of several devices train in tests: no batch norm, so that parts of a batch are as good as all of it."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from evenslice.labels.targets import Target
from evenslice.learn.fit import Seen, fit
from evenslice.learn.module import Training
from evenslice.learn.multi_volume import Mixture
from evenslice.learn.patches import PatchSource
from evenslice.options import TrainOptions
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation

RAW = np.random.default_rng(0).integers(0, 255, (6, 40, 48)).astype(np.uint8)


class Net(nn.Module):
    """Two convolutions, and a layer that is never used."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.unused = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(4, 1, 1),
            nn.Linear(2, 2),
        )

    def forward(self, x):
        return self.last(self.first(x).relu())


def broken(training, batch, batch_idx):
    raise RuntimeError("no memory left")


@dataclass(frozen=True)
class Toy:
    """Trains a small network on one of several devices."""

    folder: Path
    recipe: TrainOptions
    broken: str = ""

    def __call__(self, ranks):
        if self.broken == "at first":
            raise RuntimeError("no memory left")
        return partial(self.train, ranks)

    def train(self, ranks=None, look=lambda *_: Seen(0.5)):
        recipe = self.recipe
        source = PatchSource(
            Volume(RAW),
            Volume((RAW > 100).astype(np.uint8)),
            (0, 1, 2, 3),
            3,
            (32, 32),
            Target("foreground", 1),
            Normalisation((127.0,), (70.0,)),
            em=recipe.em if recipe.augment == "em" else None,
        )
        torch.manual_seed(
            0 if ranks is None else ranks.rank
        )  # the weights of the first device are those that count
        if self.broken == "later" and ranks is not None and ranks.rank == 1:
            Training.training_step = broken
        network, rank = Net(), 0 if ranks is None else ranks.rank
        training = Training(network, 1, Mixture((source,)), recipe, 3, rank)
        fit(training, torch.device("cpu"), "fp32", self.folder, look, ranks)
        return network.state_dict()
