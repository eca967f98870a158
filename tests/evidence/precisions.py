"""Shares and scores computed again with plain torch in a precision of choice."""

import copy

import numpy as np
import torch

from evenslice.evidence.sampling import draw_windows, read_windows

TILE, WINDOWS = 64, 6
TYPES = {"float64": torch.float64, "float32": torch.float32, "bf16": torch.bfloat16}


def windows_of(volume, model, seed=0):
    """Return the raw windows (S, y, x) that an audit of six windows of 64 pixels reads."""
    drawn = draw_windows(volume, model.slices, TILE, WINDOWS, seed, model.stride, model.size)
    return [raw for _, raw in read_windows(volume, model.slices, drawn)]


def shares_in(model, windows, precision, baseline):
    """Return by method the mean share of every slot, float64 (S,), computed in a precision."""
    kind, network = TYPES[precision], copy.deepcopy(model.module).to(TYPES[precision]).eval()
    mean, std = np.float64(model.normalisation.mean[0]), np.float64(model.normalisation.std[0])

    def ready(raw):
        return torch.from_numpy((raw.astype(np.float64) - mean) / std)[None].to(kind)

    grey = (baseline - mean) / std
    found = {"gradient": [], "ablation": []}
    for raw in windows:
        orders = [ready(raw), ready(raw[::-1].copy())]
        with torch.no_grad():
            signs = (sum(network(x).double() for x in orders) / 2).sign()
        for method, kept in found.items():
            each = [IMPORTANCE[method](network, x, signs, grey) for x in orders]
            kept.append(np.mean([one / one.sum() for one in each], axis=0))
    return {method: np.mean(one, axis=0) for method, one in found.items()}


def _gradient(network, x, signs, grey):
    x = x.clone().requires_grad_()
    (network(x).double() * signs).sum().backward()
    return x.grad.double().abs().sum((0, 2, 3)).numpy()


def _ablation(network, x, signs, grey):
    with torch.no_grad():
        full = network(x).double() * signs
        without = []
        for slot in range(x.shape[1]):
            y = x.clone()
            y[:, slot] = grey
            without.append(float((full - network(y).double() * signs).abs().sum()))
    return np.array(without)


IMPORTANCE = {"gradient": _gradient, "ablation": _ablation}


def probabilities_in(model, raw, precision):
    """Return the probability of the foreground for the middle slice of a window, float64 (y, x)."""
    network = copy.deepcopy(model.module).to(TYPES[precision]).eval()
    mean, std = np.float64(model.normalisation.mean[0]), np.float64(model.normalisation.std[0])
    x = torch.from_numpy((raw.astype(np.float64) - mean) / std)[None].to(TYPES[precision])
    with torch.no_grad():
        return network(x).double().sigmoid()[0, 0].numpy()
