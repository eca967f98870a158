"""What is measured: a network on a volume, and the two things done with it: arranging windows and running them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evenslice.evidence.sampling import SampledWindow
from evenslice.model.logits import plain
from evenslice.model.predict import logits_of
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation, check_finite
from evenslice.volume.windows import read_window

Raw = NDArray[np.generic]
PIXELS_AT_ONCE = 4 * 256 * 256
MOST_AT_ONCE = 64
SHARE_OF_FREE = 0.5


@dataclass(frozen=True)
class ModelOnVolume:
    """A network on a volume.

    Attributes
    ----------
    module
        On ``device``, in eval mode, frozen.
    stride
        What its height and width are multiples of.
    slices
        S.
    volume
        Raw voxels.
    normalisation
        Applied after the slices are arranged.
    baseline
        Raw intensity of a slice that is not there: the mean of the volume.
    device
        Where to run.
    at_once
        How many windows go through the network together.
    """

    module: nn.Module
    stride: int
    slices: int
    volume: Volume
    normalisation: Normalisation
    baseline: float
    device: torch.device
    at_once: int = 4

    @property
    def differentiable(self) -> bool:
        """Whether gradients can be had: not from a file that is run by another engine."""
        return bool(getattr(plain(self.module), "differentiable", True))

    def normalised(self, arranged: Raw) -> Tensor:
        """Normalise raw windows (..., S, y, x) whose slices are arranged already, to float32 on the device."""
        return torch.from_numpy(self.normalisation.apply(arranged)).to(self.device)

    def absent(self, like: Tensor) -> Tensor:
        """Return what a slot holds when its slice is not there, normalised, of the type of other windows: (S, 1, 1)."""
        mean, std = (
            np.broadcast_to(np.asarray(v), (self.slices,))
            for v in (self.normalisation.mean, self.normalisation.std)
        )
        return torch.tensor((self.baseline - mean) / std, dtype=like.dtype, device=like.device)[
            :, None, None
        ]

    def per_grey_level(self, slots: Tensor) -> NDArray[np.float64]:
        """Sum the importance (..., S, y, x) of normalised input over pixels, to that of raw intensity (..., S).

        A slot that is normalised with a smaller std counts more per grey level; with one std for all it cancels in shares.
        """
        found: NDArray[np.float64] = slots.double().sum(dim=(-2, -1)).cpu().numpy()
        return np.asarray(found / np.asarray(self.normalisation.std))

    def logits(self, x: Tensor) -> Tensor:
        """Run windows (N, S, y, x) through the network in parts, without gradients: (N, C, y, x)."""
        with torch.inference_mode():
            return torch.cat(
                [logits_of(self.module, part, self.stride) for part in torch.split(x, self.at_once)]
            )

    def margins(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """Return the margin at every pixel for windows (N, S, y, x), coefficients (N, C, y, x): float64 (N, y, x)."""
        return (coefficients.double() * self.logits(x).double()).sum(dim=1)

    def margins_of_nothing(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """Return the margins (N, y, x) of windows like ``x`` with no slice there: one run of the network serves them all."""
        logits = self.logits(self.absent(x).expand(1, *x.shape[1:])).double()
        return (coefficients.double() * logits).sum(dim=1)

    def gradients(self, x: Tensor, coefficients: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield, in parts, the gradients of the number explained (n, S, y, x), and the logits (n, C, y, x)."""
        for start in range(0, len(x), self.at_once):
            part = x[start : start + self.at_once].detach().requires_grad_(True)
            logits = logits_of(self.module, part, self.stride)
            fixed = coefficients[start : start + self.at_once]
            (found,) = torch.autograd.grad((fixed * logits).sum(), part)
            yield found, logits.detach()


def read_sites(
    volume: Volume, slices: int, sites: Sequence[SampledWindow]
) -> Iterator[tuple[SampledWindow, Raw]]:
    """Read the raw windows (S, y, x) of some sites, one after the other."""
    for site in sites:
        raw = read_window(volume, site.z, slices, site.y, site.x)
        check_finite(raw, f"{volume.source} around slice {site.z}")
        yield site, raw


def at_once_for(
    module: nn.Module, device: torch.device, shape: tuple[int, int, int], stride: int
) -> int:
    """Choose how many windows (S, y, x) go through a network together, from the memory that there is.

    On a GPU one window is explained and the peak measured; half of what is free is used. On a CPU larger batches are not
    faster: four windows of 256 x 256, fewer of larger ones.
    """
    pixels = shape[1] * shape[2]
    if device.type != "cuda":
        return max(2, min(MOST_AT_ONCE, PIXELS_AT_ONCE // pixels))
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    x = torch.zeros(1, *shape, device=device, requires_grad=True)
    logits_of(module, x, stride).sum().backward()  # type: ignore[no-untyped-call]
    module.zero_grad(set_to_none=True)
    needed = max(1, torch.cuda.max_memory_allocated(device) - before)
    free, _ = torch.cuda.mem_get_info(device)
    return int(max(2, min(MOST_AT_ONCE, SHARE_OF_FREE * free // needed)))
