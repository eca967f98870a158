"""Batch-norm recalibration: running statistics measured anew on the user's volume after the stem has changed."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evenslice.model.predict import device_of, logits_of
from evenslice.model.stem.probe import evaluating
from evenslice.volume.normalisation import Normalisation
from evenslice.volume.windows import reverse

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def recalibrate(
    module: nn.Module,
    stride: int,
    normalisation: Normalisation,
    windows: Sequence[NDArray[np.generic]],
) -> int:
    """Measure the running mean and variance of every batch norm anew, in place, on windows and their reversals.

    The statistics are plain averages over the batches, one of a window and its reversal each, so that the two
    directions weigh alike. Weights stay as they are.

    Parameters
    ----------
    module
        The network.
    stride
        What its height and width are multiples of.
    normalisation
        Applied after the slices are arranged.
    windows
        Raw windows (S, y, x).

    Returns
    -------
    int
        How many batch norms were measured; 0 leaves the network as it is.
    """
    norms = [
        m
        for m in module.modules()
        if isinstance(m, _NORMS) and m.track_running_stats and m.running_mean is not None
    ]
    if not norms or not windows:
        return 0
    momenta = [norm.momentum for norm in norms]
    device = device_of(module)
    with evaluating(module), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch: a plain average over all batches
            norm.train()
        for raw in windows:
            pair = normalisation.apply(np.stack([raw, reverse(raw)]))
            logits_of(module, torch.from_numpy(pair).to(device), stride)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return len(norms)
