"""Controls of the instrument: models that must come out even, and numbers to compare the audit with."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evenslice.errors import BadInputError
from evenslice.evidence.gradients import explaining
from evenslice.evidence.measure import Question, examine
from evenslice.evidence.network import ModelOnVolume, Raw
from evenslice.evidence.result import Check, MethodResult
from evenslice.evidence.sampling import SampledWindow
from evenslice.evidence.shares import index_parts, pair_parts, ratio, shares_of
from evenslice.model.logits import plain
from evenslice.model.stem.adapt import mirror_stem
from evenslice.model.stem.find import find_stems
from evenslice.model.stem.slots import norms_per_slot
from evenslice.volume.normalisation import Normalisation

TOLERANCE = 1e-3
INCOMPLETE = {"shapley": 1e-6, "integrated-gradients": 0.01}
Windows = Sequence[Raw]


def run_checks(scene: ModelOnVolume, windows: Windows) -> dict[str, Check]:
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


def completeness_checks(incompleteness: Mapping[str, Sequence[float]]) -> dict[str, Check]:
    """Check that attributions add up to the change they explain, from the relative error of each window, by method."""
    checks = {}
    for name, tolerance in INCOMPLETE.items():
        key = f"completeness_{name.replace('-', '_')}"
        errors = [e for e in incompleteness.get(name, ()) if np.isfinite(e)]
        if not errors:
            checks[key] = Check(None, tolerance, None, f"{name} was not measured")
            continue
        middle = float(np.median(errors))
        reason = "attributions must add up to the change they explain; error relative to their sizes, median over the windows"
        checks[key] = Check(middle, tolerance, middle <= tolerance, reason)
    return checks


def agreement_check(methods: Mapping[str, MethodResult]) -> Check:
    """Check that no two families of evidence say the opposite; how far their mirror indices lie apart is for comparison."""
    found = {
        name: method
        for name, method in methods.items()
        if method.index is not None and method.verdict != "abstained"
    }
    if len(found) < 2:
        return Check(None, None, None, "fewer than two families of evidence spoke")
    values = [method.index.value for method in found.values() if method.index is not None]
    leaning = {
        name: m for name, m in found.items() if m.verdict == "asymmetric" and m.index is not None
    }
    sides = {name: m.index.value > 0 for name, m in leaning.items() if m.index is not None}
    opposed = len(set(sides.values())) > 1
    even = [name for name, method in found.items() if method.verdict == "symmetric"]
    reason = "range of the mirror index over the families of evidence"
    if opposed:
        reason += f"; {', '.join(sorted(sides))} lean to different sides"
    elif leaning and even:
        reason += f"; {', '.join(leaning)} lean, {', '.join(even)} do not: they answer different questions, read both"
    return Check(max(values) - min(values), None, not opposed, reason)


def _twins(scene: ModelOnVolume, windows: Windows) -> dict[str, Check]:
    """Check the model's two even twins; a stem that cannot be made even leaves both unmeasured, with the reason."""
    names = ("mirror_twin", "random_weights")
    try:
        twin = copy.deepcopy(scene.module)
        mirror_stem(plain(twin), scene.slices)
    except BadInputError as error:
        return dict.fromkeys(names, Check(None, TOLERANCE, None, f"no even twin: {error}"))
    norm = scene.normalisation
    even = replace(scene, module=twin, normalisation=Normalisation(norm.mean[:1], norm.std[:1]))
    reason = "the same model with a mirror-averaged stem must come out even"
    checks = {names[0]: _even_check(even, windows, reason)}
    if not scene.differentiable:
        checks[names[1]] = Check(
            None,
            TOLERANCE,
            None,
            "the weights behind the stem of an .onnx file cannot be drawn anew",
        )
        return checks
    shuffled = replace(even, module=randomised(twin, scene.slices))
    checks[names[1]] = _even_check(
        shuffled, windows, "a mirror-averaged stem before random weights must come out even"
    )
    return checks


def randomised(module: nn.Module, slices: int, seed: int = 0) -> nn.Module:
    """Return a copy whose weights behind the stem are drawn anew, each tensor with the spread it had."""
    randomised = copy.deepcopy(module)
    stems = {
        id(parameter)
        for stem in find_stems(plain(randomised), slices)
        for parameter in stem.layer.parameters()
    }
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in randomised.parameters():
            if id(parameter) not in stems and parameter.ndim > 1:
                parameter.copy_(
                    torch.randn(parameter.shape, generator=draw) * parameter.std().cpu()
                )
    return randomised


def _shares(scene: ModelOnVolume, windows: Windows) -> NDArray[np.float64]:
    """Measure shares (windows, S) by gradient, or by ablation where there is none; those without importance are left out."""
    method = "gradient" if scene.differentiable else "ablation"
    found = []
    with explaining(scene.module):
        for raw in windows:
            site = SampledWindow(0, slice(0, raw.shape[1]), slice(0, raw.shape[2]), 0)
            (one,) = examine(scene, Question((method,)), [(site, raw)])
            found.append(one.importance[method])
    shares = shares_of(np.stack(found))
    return np.asarray(shares[np.isfinite(shares).all(axis=1)])


def _even_check(scene: ModelOnVolume, windows: Windows, reason: str) -> Check:
    if scene.slices == 1:
        return Check(None, TOLERANCE, None, "one slice has no pairs")
    shares = _shares(scene, windows)
    if not len(shares):
        return Check(None, TOLERANCE, None, "no window has any importance")
    top, bottom = pair_parts(shares)
    worst = float(np.abs(ratio(top, bottom)).max())
    return Check(worst, TOLERANCE, worst <= TOLERANCE, reason)


def _identical(scene: ModelOnVolume, windows: Windows) -> Check:
    if scene.slices == 1:
        return Check(None, None, None, "one slice has no pairs")
    shares = _shares(
        scene, [np.repeat(raw[len(raw) // 2][None], len(raw), axis=0) for raw in windows]
    )
    if not len(shares):
        return Check(None, None, None, "no window has any importance")
    top, bottom = index_parts(shares)
    reason = "mirror index with the centre slice in every slot: what remains comes from the weights alone (for comparison)"
    return Check(float(ratio(top.sum(), bottom.sum())), None, None, reason)


def _norms(scene: ModelOnVolume) -> Check:
    reason = "spread of the stem's norms over the slots, relative to their mean (for comparison)"
    try:
        norms = np.array(
            [norms_per_slot(stem) for stem in find_stems(plain(scene.module), scene.slices)]
        )
    except BadInputError as error:
        return Check(None, None, None, f"no stem is found: {error}")
    return Check(float((np.ptp(norms, axis=1) / norms.mean(axis=1)).max()), None, None, reason)
