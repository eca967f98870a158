"""A model on a volume: how its windows are run, and the one number per window that is explained."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from evenslice.evidence.sampling import Raw, SampledWindow
from evenslice.labels.targets import Target
from evenslice.model.logits import duplicate, plain
from evenslice.model.predict import logits_of
from evenslice.model.spec import Model
from evenslice.model.stem.probe import evaluating
from evenslice.options import Region
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation, estimate

Floats = NDArray[np.float64]
BATCH_PIXELS = 4 * 256 * 256
LARGEST_BATCH = 64
FREE_MEMORY_USED = 0.5
BOUNDARY_PIXELS = 3


@dataclass(frozen=True)
class ModelOnVolume:
    """A network on a volume: windows are arranged raw, then normalised, then run."""

    module: nn.Module  # on ``device``, in eval mode, frozen
    stride: int  # height and width are multiples of it
    slices: int
    volume: Volume
    normalisation: Normalisation
    baseline: float  # raw intensity in place of an ablated slice: the mean of the volume
    device: torch.device
    batch: int = 4  # windows that go through the network together
    labels: Volume | None = None  # ground truth
    target: Target | None = None  # what it means
    label: str = "model"  # name of the model on what is shown

    @property
    def differentiable(self) -> bool:
        """Whether there are gradients: not of a file that another engine runs."""
        return bool(getattr(plain(self.module), "differentiable", True))

    def normalised(self, arranged: Raw) -> Tensor:
        """Normalise raw windows (..., S, y, x), arranged already, to float32 on the device."""
        return torch.from_numpy(self.normalisation.apply(arranged)).to(self.device)

    def absent(self, like: Tensor) -> Tensor:
        """Return what an ablated slot holds, normalised, of the type of ``like``: (S, 1, 1)."""
        mean, std = (
            np.broadcast_to(np.asarray(v), (self.slices,))
            for v in (self.normalisation.mean, self.normalisation.std)
        )
        slots = torch.tensor((self.baseline - mean) / std, dtype=like.dtype, device=like.device)
        return slots[:, None, None]

    def per_grey_level(self, slots: Tensor) -> Floats:
        """Sum importance (..., S, y, x) of normalised input over pixels: of raw intensity (..., S).

        A slot normalised with a smaller std counts more per grey level; with one std for all slots
        it cancels in the shares.
        """
        sums: Floats = slots.double().sum(dim=(-2, -1)).cpu().numpy()
        return np.asarray(sums / np.asarray(self.normalisation.std))

    def logits(self, x: Tensor) -> Tensor:
        """Run windows (N, S, y, x) through the network, without gradients: (N, C, y, x)."""
        with torch.inference_mode():
            return torch.cat(
                [logits_of(self.module, part, self.stride) for part in torch.split(x, self.batch)]
            )

    def margins(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """Return the margin at every pixel of windows (N, S, y, x): float64 (N, y, x)."""
        return (coefficients.double() * self.logits(x).double()).sum(dim=1)

    def baseline_margins(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """Return the margins (N, y, x) of windows like ``x`` with every slot ablated."""
        logits = self.logits(self.absent(x).expand(1, *x.shape[1:])).double()
        return (coefficients.double() * logits).sum(dim=1)

    def gradients(self, x: Tensor, coefficients: Tensor) -> Iterator[Tensor]:
        """Yield the gradients of the number explained, a batch (n, S, y, x) at a time."""
        for part, fixed in zip(
            torch.split(x, self.batch), torch.split(coefficients, self.batch), strict=True
        ):
            leaf = part.detach().requires_grad_(True)
            logits = logits_of(self.module, leaf, self.stride)
            yield torch.autograd.grad((fixed * logits).sum(), leaf)[0]


def model_on_volume(
    model: Model,
    volume: Volume,
    window: SampledWindow,
    device: torch.device,
    seed: int,
    labels: Volume | None = None,
    label: str = "model",
) -> ModelOnVolume:
    """Put a float32 copy of a model on a device, with a batch size for windows like ``window``."""
    assert model.normalisation is not None
    module = duplicate(model.module).float().to(device)
    shape = (model.slices, window.y.stop - window.y.start, window.x.stop - window.x.start)
    with explaining(module):
        batch = batch_size_for(module, device, shape, model.stride)
    return ModelOnVolume(
        module=module,
        stride=model.stride,
        slices=model.slices,
        volume=volume,
        normalisation=model.normalisation,
        baseline=estimate(volume, seed).mean[0],
        device=device,
        batch=batch,
        labels=labels,
        target=None if labels is None else target_of(model),
        label=label,
    )


def target_of(model: Model) -> Target:
    """Return what labels mean to a model: as in training, else the foreground, or classes."""
    classes, training = model.spec.classes, model.training
    kind = training.get("target", "classes" if classes > 1 else "foreground")
    return Target(kind, classes, training.get("recipe", {}).get("ignore_label"))


def batch_size_for(
    module: nn.Module, device: torch.device, shape: tuple[int, int, int], stride: int
) -> int:
    """Choose how many windows (S, y, x) go through a network together, by the memory there is.

    On a GPU one window is explained and the peak measured; half of what is free is used. On a CPU
    larger batches are not faster: four windows of 256 x 256, fewer of larger ones.
    """
    if device.type != "cuda":
        return max(2, min(LARGEST_BATCH, BATCH_PIXELS // (shape[1] * shape[2])))
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    x = torch.zeros(1, *shape, device=device, requires_grad=True)
    logits_of(module, x, stride).sum().backward()  # type: ignore[no-untyped-call]
    module.zero_grad(set_to_none=True)
    needed = max(1, torch.cuda.max_memory_allocated(device) - before)
    free, _ = torch.cuda.mem_get_info(device)
    return int(max(2, min(LARGEST_BATCH, FREE_MEMORY_USED * free // needed)))


@contextmanager
def explaining(module: nn.Module) -> Iterator[None]:
    """Put a network into eval mode, its parameters frozen, and back afterwards."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        with evaluating(module):
            yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


def explained_target(
    logits: Tensor, region: Region = "predicted", truth: Tensor | None = None
) -> Tensor:
    """Return the coefficients of the number explained, ``(coefficients * logits).sum()``.

    They come from the mean logits of a window and its reversal and stay the same for every
    arrangement and perturbation, so they do not depend on which of the two is called the window.
    ``logits`` (B, C, y, x) are one mean for each window; ``truth`` (B, y, x) holds class numbers,
    -1 where unknown.

    ``predicted``: at each pixel the margin of the class predicted; binary: the logit times its
    sign, several classes: its logit minus the mean of the others. ``truth``: that of the true
    class. ``boundary``: as predicted, only within 3 pixels of where the predicted class changes.
    ``all``: the margin of the foreground whether it is predicted or not; several classes: the mean
    logit of the classes above 0 minus that of class 0.
    """
    logits = logits.detach()
    count = logits.shape[1]
    if region == "all":
        coefficients = torch.full_like(logits, 1.0 / max(1, count - 1))
        if count > 1:
            coefficients[:, 0] = -1.0
        return coefficients
    if region == "truth":
        assert truth is not None
        known = (truth >= 0)[:, None].to(logits)
        classes = truth.clamp(0, max(1, count - 1)).to(torch.int64)[:, None]
        return known * (2.0 * classes.to(logits) - 1.0 if count == 1 else _margin(logits, classes))
    classes = (logits > 0).to(torch.int64) if count == 1 else logits.argmax(1, keepdim=True)
    margin = logits.sign() if count == 1 else _margin(logits, classes)
    return margin if region == "predicted" else margin * near_boundary(classes).to(logits)


def _margin(logits: Tensor, classes: Tensor) -> Tensor:
    """1 for the class (B, 1, y, x), -1/(C-1) for the others: its logit minus their mean."""
    return torch.full_like(logits, -1.0 / (logits.shape[1] - 1)).scatter_(1, classes, 1.0)


def near_boundary(classes: Tensor, reach: int = BOUNDARY_PIXELS) -> Tensor:
    """Return where within ``reach`` pixels of a pixel (B, 1, y, x) another class lies."""
    values = functional.pad(classes.double(), (reach,) * 4, mode="replicate")
    side = 2 * reach + 1
    highest = functional.max_pool2d(values, side, 1)
    lowest = -functional.max_pool2d(-values, side, 1)
    return highest != lowest
