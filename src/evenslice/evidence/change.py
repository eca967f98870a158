"""What a change of the model does to its output: on the same windows, before and after."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from evenslice.labels.metrics import Scores, confusion, scores_of
from evenslice.labels.targets import Target
from evenslice.model.predict import classes_of, device_of, logits_of, probabilities_of
from evenslice.model.spec import Model
from evenslice.model.stem.probe import evaluating
from evenslice.volume.normalisation import Normalisation

Windows = Sequence[NDArray[np.generic]]


def predict_windows(
    model: Model, normalisation: Normalisation, windows: Windows
) -> list[torch.Tensor]:
    """Return the probabilities (C, y, x) of raw windows (S, y, x), on the model's own device."""
    device = device_of(model.module)
    found = []
    with evaluating(model.module), torch.inference_mode():
        for raw in windows:
            x = torch.from_numpy(normalisation.apply(raw[None])).to(device)
            found.append(probabilities_of(logits_of(model.module, x, model.stride))[0].cpu())
    return found


def output_change(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    """Return the mean absolute change of probability between two predictions of the same windows."""
    return float(
        np.mean([float((a - b).abs().double().mean()) for a, b in zip(before, after, strict=True)])
    )


def window_scores(predictions: Sequence[torch.Tensor], truths: Windows, target: Target) -> Scores:
    """Compare predictions (C, y, x) with the labels (y, x) of their centre slices."""
    size = max(2, target.classes)
    table = np.zeros((size, size), np.int64)
    for probability, labels in zip(predictions, truths, strict=True):
        table += confusion(classes_of(probability[None])[0].numpy(), target.apply(labels), size)
    return scores_of(table)
