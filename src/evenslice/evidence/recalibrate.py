"""After a fix: BatchNorm statistics recalibrated, and the change of the output measured."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from evenslice.evidence.sampling import Raw
from evenslice.labels.metrics import Scores, confusion, scores_of
from evenslice.labels.targets import Target
from evenslice.model.predict import classes_of, device_of, logits_of, probabilities_of
from evenslice.model.spec import Model
from evenslice.model.stem.probe import evaluating
from evenslice.volume.normalisation import Normalisation
from evenslice.volume.windows import reverse

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def recalibrate(
    module: nn.Module, stride: int, normalisation: Normalisation, windows: Sequence[Raw]
) -> int:
    """Recalibrate the running mean and variance of every BatchNorm, in place; weights stay.

    The statistics are plain averages over the batches, one of a raw window (S, y, x) and its
    reversal each, so that the two directions weigh alike. Return how many were recalibrated.
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


def predict_windows(
    model: Model, normalisation: Normalisation, windows: Sequence[Raw]
) -> list[Tensor]:
    """Return the probabilities (C, y, x) of raw windows (S, y, x), run on the model's device."""
    device = device_of(model.module)
    found = []
    with evaluating(model.module), torch.inference_mode():
        for raw in windows:
            x = torch.from_numpy(normalisation.apply(raw[None])).to(device)
            found.append(probabilities_of(logits_of(model.module, x, model.stride))[0].cpu())
    return found


def output_change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Return the mean absolute change of probability between predictions of the same windows."""
    changes = [float((a - b).abs().double().mean()) for a, b in zip(before, after, strict=True)]
    return float(np.mean(changes))


def window_scores(predictions: Sequence[Tensor], truths: Sequence[Raw], target: Target) -> Scores:
    """Compare predictions (C, y, x) with the labels (y, x) of their centre slices."""
    size = max(2, target.classes)
    table = np.zeros((size, size), np.int64)
    for probability, labels in zip(predictions, truths, strict=True):
        table += confusion(classes_of(probability[None])[0].numpy(), target.apply(labels), size)
    return scores_of(table)
