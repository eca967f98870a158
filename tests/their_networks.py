"""Source of a module with small networks, as a user may have one."""

NETWORKS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, slots=3, scores=False):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(slots, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.scores = scores
        self.last = nn.Conv2d(6, 1, 3, padding=1)

    def forward(self, x):
        out = self.last(self.norm(self.first(x)).relu())
        return out.mean((2, 3)) if self.scores else {"out": out}


def make():
    return Net()


def seven():
    return Net(7)


def scores():
    return Net(scores=True)


def tied():
    made = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1))
    made.add_module("again", made[1])
    return made


def timid():
    # Fresh, it answers 0.5 almost everywhere, like probabilities.
    made = nn.Conv2d(3, 1, 1)
    nn.init.normal_(made.weight, std=1e-4)
    nn.init.constant_(made.bias, 0.5)
    return made


def classes():
    torch.manual_seed(0)
    return nn.Conv2d(3, 3, 3, padding=1)
"""
