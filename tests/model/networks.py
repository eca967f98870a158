"""Small networks whose first layer is no plain first layer."""

import torch
from torch import nn


def conv(inputs=3, outputs=2, size=3, **options):
    return nn.Conv2d(inputs, outputs, size, **options)


class Before(nn.Module):
    """A network that does something to its input before its first layer."""

    def __init__(self, do, layer=None, **buffers):
        super().__init__()
        self.do = do
        self.layer = conv(3, 4) if layer is None else layer
        for name, value in buffers.items():
            self.register_buffer(name, torch.tensor(value).view(1, -1, 1, 1))

    def forward(self, x):
        out = self.layer(self.do(self, x)).tanh()
        return out * torch.linspace(0.5, 1.5, out.shape[-1], dtype=out.dtype)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = conv(3, 3, padding=1)

    def forward(self, x):
        return self.conv(self.conv(x).tanh())
