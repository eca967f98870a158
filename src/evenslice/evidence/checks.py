"""Controls of the instrument: models that must come out even, and numbers to compare the audit with."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evenslice.errors import BadInputError
from evenslice.evidence.attribution import explaining, gradient
from evenslice.evidence.measure import Scene, pair_of, slot_importance
from evenslice.evidence.result import Check
from evenslice.evidence.shares import index_parts, pair_parts, ratio, shares_of
from evenslice.model.discovery import find_stems
from evenslice.model.stem import mirror_stem, norms_per_slot
from evenslice.model.wrapping import plain
from evenslice.volume.normalisation import Normalisation

TOLERANCE = 1e-3
Windows = Sequence[NDArray[np.generic]]


def run_checks(scene: Scene, windows: Windows) -> dict[str, Check]:
    """Run every control on a few raw windows (S, y, x); the even twins get one mean and std for all slots."""
    norm = scene.normalisation
    return {
        **_twins(scene, windows),
        "identical_slices": _identical(scene, windows),
        "stem_norms": _norms(scene),
        "uniform_normalisation": Check(
            float(np.ptp(norm.mean) + np.ptp(norm.std)),
            0.0,
            norm.uniform,
            "every slot must be normalised alike, or an even stem leans again",
        ),
    }


def _twins(scene: Scene, windows: Windows) -> dict[str, Check]:
    """Check the model's two even twins; a stem that cannot be made even leaves both unmeasured, with the reason."""
    names = ("mirror_twin", "random_weights")
    try:
        twin = copy.deepcopy(scene.module)
        mirror_stem(plain(twin), scene.slices)
    except BadInputError as error:
        return dict.fromkeys(names, Check(None, TOLERANCE, None, f"no even twin: {error}"))
    norm = scene.normalisation
    even = replace(scene, module=twin, normalisation=Normalisation(norm.mean[:1], norm.std[:1]))
    stirred = replace(even, module=randomised(twin, scene.slices))
    return {
        names[0]: _even_check(even, windows, "the same model with a mirror-averaged stem must come out even"),
        names[1]: _even_check(stirred, windows, "a mirror-averaged stem before random weights must come out even"),
    }


def randomised(module: nn.Module, slices: int, seed: int = 0) -> nn.Module:
    """Return a copy whose weights behind the stem are drawn anew, each tensor with the spread it had."""
    stirred = copy.deepcopy(module)
    stems = {id(parameter) for stem in find_stems(plain(stirred), slices) for parameter in stem.layer.parameters()}
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in stirred.parameters():
            if id(parameter) not in stems and parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * parameter.std().cpu())
    return stirred


def _shares(scene: Scene, windows: Windows) -> NDArray[np.float64]:
    """Measure shares (windows, S) by gradient; windows without any importance are left out."""
    found = []
    with explaining(scene.module):
        for raw in windows:
            slots, _ = gradient(scene.module, pair_of(scene, raw), scene.stride)
            found.append(slot_importance(scene, slots))
    shares = shares_of(np.stack(found))
    return np.asarray(shares[np.isfinite(shares).all(axis=1)])


def _even_check(scene: Scene, windows: Windows, reason: str) -> Check:
    if scene.slices == 1:
        return Check(None, TOLERANCE, None, "one slice has no pairs")
    shares = _shares(scene, windows)
    if not len(shares):
        return Check(None, TOLERANCE, None, "no window has any importance")
    top, bottom = pair_parts(shares)
    worst = float(np.abs(ratio(top, bottom)).max())
    return Check(worst, TOLERANCE, worst <= TOLERANCE, reason)


def _identical(scene: Scene, windows: Windows) -> Check:
    if scene.slices == 1:
        return Check(None, None, None, "one slice has no pairs")
    shares = _shares(scene, [np.repeat(raw[len(raw) // 2][None], len(raw), axis=0) for raw in windows])
    if not len(shares):
        return Check(None, None, None, "no window has any importance")
    top, bottom = index_parts(shares)
    reason = (
        "mirror index with the centre slice in every slot: what remains comes from the weights alone (for comparison)"
    )
    return Check(float(ratio(top.sum(), bottom.sum())), None, None, reason)


def _norms(scene: Scene) -> Check:
    norms = np.array([norms_per_slot(stem) for stem in find_stems(plain(scene.module), scene.slices)])
    spread = float((np.ptp(norms, axis=1) / norms.mean(axis=1)).max())
    return Check(
        spread, None, None, "spread of the stem's norms over the slots, relative to their mean (for comparison)"
    )
