"""Small scenes: networks whose importance can be worked out by hand."""

import torch
from torch import nn

from evenslice.evidence.network import ModelOnVolume
from evenslice.evidence.target import decision
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation


def linear(weights, bias=0.0, classes=1):
    """Make a network whose logit of class c is (1 - 2c / (classes - 1)) times the weighted sum of the slots."""
    conv = nn.Conv2d(len(weights), classes, 1)
    conv.weight.data = torch.tensor(weights).view(1, -1, 1, 1) * torch.linspace(
        1, -1, classes
    ).view(-1, 1, 1, 1)
    conv.bias.data.fill_(bias)
    return conv.eval()


def bent(slices=3, classes=1, seed=0):
    """Make a network that is not linear."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(slices, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, classes, 3, padding=1)
    ).eval()


def scene_of(module, slices=3, norm=None, baseline=0.0, at_once=3, volume=None):
    """Put a network into a scene."""
    empty = torch.zeros(9, 32, 32).numpy()
    return ModelOnVolume(
        module.eval().requires_grad_(False),
        1,
        slices,
        Volume(empty if volume is None else volume),
        norm or Normalisation((0.0,), (1.0,)),
        baseline,
        torch.device("cpu"),
        at_once,
    )


def asked(scene, x):
    """Return the coefficients and the margins of windows (N, S, y, x), each with a decision of its own."""
    logits = scene.logits(x)
    coefficients = decision(logits)
    return coefficients, (coefficients.double() * logits.double()).sum(1)
