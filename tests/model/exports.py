"""Networks to export, small ones and a U-Net, and how they are compared with the exported."""

import functools
import warnings
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional


class Scaled(nn.Module):
    """A network that normalises by itself and has a second convolution behind the stem."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = (
            nn.Conv2d(3, 6, 5, 2, 2),
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 2, 1),
        )

    def forward(self, x):
        out = self.second(self.norm(self.first((x - 0.45) / 0.225)).relu())
        return functional.interpolate(out, size=x.shape[-2:], mode="bilinear")


class SpaceToDepth(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(12, 6, 3, padding=1)

    def forward(self, x):
        return self.conv(functional.pixel_unshuffle(x, 2)).tanh()


class Tokens(nn.Module):
    """A patch embedding by linear layer, channels slowest or fastest within a token."""

    def __init__(self, bias=True, last=False, channels=3):
        super().__init__()
        self.order = (0, 2, 4, 3, 5, 1) if last else (0, 2, 4, 1, 3, 5)
        self.embed, self.head = nn.Linear(16 * channels, 8, bias=bias), nn.Linear(8, 2)

    def forward(self, x):
        b, c, h, w = x.shape
        x = x.reshape(b, c, h // 4, 4, w // 4, 4).permute(*self.order)
        return self.head(self.embed(x.reshape(b, (h // 4) * (w // 4), 16 * c)).tanh())


class TwoBranches(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.coarse = nn.Conv2d(channels, 4, 4, 2, 1)
        self.fine = nn.Conv2d(channels, 4, 3, padding=1)
        self.mix = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        up = functional.interpolate(self.coarse(x), scale_factor=2)
        return self.mix(torch.cat([up, self.fine(x)], 1).tanh())


def unet():
    made = smp.Unet("resnet18", encoder_weights=None, encoder_depth=3, decoder_channels=(32, 16, 8))
    made.encoder.layer3 = made.encoder.layer4 = (
        nn.Identity()
    )  # not used at this depth, and most of the file
    return made


NETWORKS = {
    "scaled": (Scaled, ["first"]),
    "space to depth": (SpaceToDepth, ["conv"]),
    "tokens": (Tokens, ["embed"]),
    "tokens without bias": (functools.partial(Tokens, False), ["embed"]),
    "two branches": (TwoBranches, ["coarse", "fine"]),
    "unet": (unet, ["encoder.conv1"]),
}


@functools.cache
def network(case):
    """One of the networks, with weights and statistics that are not those of its making."""
    from moved import perturb

    torch.manual_seed(0)
    return perturb(NETWORKS[case][0]()).eval()


def call(dynamic, height=32, width=48):
    """An example input, and the shapes that may differ."""
    if not dynamic:
        return torch.zeros(1, 3, height, width), None
    sides = {
        0: Dim("b", min=1, max=8),
        2: 8 * Dim("h", min=2, max=40),
        3: 8 * Dim("w", min=2, max=40),
    }
    return torch.zeros(2, 3, height, width), (sides,)


def as_pt2(module, path, dynamic, **options):
    example, shapes = call(dynamic)
    program = torch.export.export(module, (example,), dynamic_shapes=shapes)
    torch.export.save(program, path, **options)
    return path


def as_onnx(module, path, dynamic, dynamo=True):
    example, shapes = call(dynamic)
    options = {"dynamic_shapes": shapes} if dynamo else {"input_names": ["x"]}
    if dynamic and not dynamo:
        options["dynamic_axes"] = {"x": {0: "b", 2: "h", 3: "w"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (example,), str(path), dynamo=dynamo, verbose=False, **options)
    return Path(path)


def image(dynamic, seed=0):
    shape = (2, 3, 48, 64) if dynamic else (1, 3, 32, 48)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def far(found, expected):
    """The largest difference, relative to the largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()
