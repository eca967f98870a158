"""Patch your own timm model for slices, train it a little, and check that it is symmetric.

python examples/patch_timm.py [--encoder resnet18] [--slices 5] [--steps 20] [--pretrained]
"""

import argparse

import timm
import torch
from torch.nn import LazyConv2d, Module, functional

from evenslice import mirror_stem, uniform_stem
from evenslice.data.phantom import phantom


class Segmenter(Module):
    """Any network of your own: here a coarse membrane segmentation."""

    def __init__(self, encoder: str, pretrained: bool) -> None:
        super().__init__()
        self.encoder = timm.create_model(
            encoder, pretrained=pretrained, features_only=True, out_indices=(0, 1)
        )
        self.head = LazyConv2d(1, 1)

    def forward(self, x):
        return functional.interpolate(self.head(self.encoder(x)[-1]), x.shape[-2:], mode="bilinear")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--slices", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pretrained", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(0)
    network = Segmenter(given.encoder, given.pretrained)
    network(torch.zeros(2, 3, 64, 64))  # gives the lazy layer its size
    uniform_stem(network, given.slices)
    mirror_stem(network, given.slices, tie="mirror")  # leave this out to let training move it

    made = phantom((given.slices, 96, 96))
    raw = torch.from_numpy(made.raw).float()[None]
    window = (raw - raw.mean()) / raw.std()  # one mean and one std for all slots
    target = torch.from_numpy(made.membranes[given.slices // 2]).float()[None, None]
    optimiser = torch.optim.AdamW(network.parameters())
    for _ in range(given.steps):
        loss = functional.binary_cross_entropy_with_logits(network(window), target)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    network.eval()
    with torch.inference_mode():
        change = (network(window) - network(window.flip(1))).abs().max() / network(
            window
        ).abs().max()
    print(
        f"loss {loss.item():.3f}; the output changes by {change:.1e} when the slices are reversed"
    )


if __name__ == "__main__":
    main()
