"""Networks whose importance can be worked out by hand."""

import torch
from torch import nn

from evenslice.evidence.model_on_volume import ModelOnVolume, explained_target
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation

NORM = Normalisation((0.0,), (1.0,))


def linear(weights, bias=0.0, classes=1):
    """A network whose logit of class c is (1 - 2c / (classes - 1)) times a sum of the slots."""
    conv = nn.Conv2d(len(weights), classes, 1)
    signs = torch.linspace(1, -1, classes).view(-1, 1, 1, 1)
    conv.weight.data = torch.tensor(weights).view(1, -1, 1, 1) * signs
    conv.bias.data.fill_(bias)
    return conv.eval()


def curved(slices=3, classes=1, seed=0):
    """A network that is not linear."""
    torch.manual_seed(seed)
    first, last = nn.Conv2d(slices, 6, 3, padding=1), nn.Conv2d(6, classes, 3, padding=1)
    return nn.Sequential(first, nn.Tanh(), last).eval()


def on_volume(module, slices=3, norm=NORM, baseline=0.0, batch=3):
    """A network on an empty volume."""
    module = module.eval().requires_grad_(False)
    volume, device = Volume(torch.zeros(9, 32, 32).numpy()), torch.device("cpu")
    return ModelOnVolume(module, 1, slices, volume, norm, baseline, device, batch)


def explained(subject, x):
    """The coefficients and margins of windows (N, S, y, x), each with a target of its own."""
    logits = subject.logits(x)
    coefficients = explained_target(logits)
    return coefficients, (coefficients.double() * logits.double()).sum(1)
