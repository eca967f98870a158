"""Sanity checks of an audit: models that must be symmetric, and numbers to compare it with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from evenslice.errors import BadInputError
from evenslice.evidence.measure import importance_by
from evenslice.evidence.model_on_volume import Floats, ModelOnVolume, explaining
from evenslice.evidence.result import Check, MethodResult
from evenslice.evidence.sampling import Raw, SampledWindow
from evenslice.evidence.shares import index_parts, pair_parts, ratio, shares_of
from evenslice.model.logits import duplicate, plain
from evenslice.model.stem.adapt import mirror_stem
from evenslice.model.stem.find import find_stems
from evenslice.model.stem.slots import norms_per_slot
from evenslice.volume.normalisation import Normalisation

TOLERANCE = 1e-3
INCOMPLETE = {"shapley": 1e-6, "integrated-gradients": 0.01}


def run_checks(subject: ModelOnVolume, windows: Sequence[Raw]) -> dict[str, Check]:
    """Run every check that needs the network, on a few raw windows (S, y, x)."""
    norm = subject.normalisation
    subject = replace(subject, labels=None, target=None)
    return {
        **_symmetric_copies(subject, windows),
        "identical_slices": _identical_slices(subject, windows),
        "stem_norms": _stem_norms(subject),
        "uniform_normalisation": Check(
            float(np.ptp(norm.mean) + np.ptp(norm.std)),
            0.0,
            norm.uniform,
            "every slot must be normalised alike, or a symmetric stem is asymmetric again",
        ),
    }


def completeness_checks(incompleteness: Mapping[str, Sequence[float]]) -> dict[str, Check]:
    """Check that attributions add up to the change they explain, by the errors of the windows."""
    checks = {}
    for name, tolerance in INCOMPLETE.items():
        key = f"completeness_{name.replace('-', '_')}"
        errors = [e for e in incompleteness.get(name, ()) if np.isfinite(e)]
        if not errors:
            checks[key] = Check(None, tolerance, None, f"{name} was not measured")
            continue
        median = float(np.median(errors))
        reason = (
            "attributions must add up to the change they explain; error relative to their sizes, "
            "median over the windows"
        )
        checks[key] = Check(median, tolerance, median <= tolerance, reason)
    return checks


def agreement_check(methods: Mapping[str, MethodResult]) -> Check:
    """Say whether the methods have one verdict and one direction; the value is the index's range.

    It does not fail: methods that split answer different questions.
    """
    found = {
        name: (method.index.value, method.verdict)
        for name, method in methods.items()
        if method.index is not None and method.verdict != "abstained"
    }
    if len(found) < 2:
        return Check(None, None, None, "fewer than two attribution methods gave a verdict")
    values = [value for value, _ in found.values()]
    asymmetric = [name for name, (_, verdict) in found.items() if verdict == "asymmetric"]
    symmetric = [name for name, (_, verdict) in found.items() if verdict == "symmetric"]
    reason = "range of the mirror index over the attribution methods"
    if asymmetric and symmetric:
        reason = (
            f"methods split: asymmetric by {', '.join(asymmetric)}, symmetric by "
            f"{', '.join(symmetric)}. Gradients ask for the detail of a slice, perturbations for "
            "its level; only a tie removes both: evenslice fix MODEL OUT --tie mirror, or train "
            "with --tie mirror"
        )
    elif len({found[name][0] > 0 for name in asymmetric}) > 1:
        reason += f"; {', '.join(sorted(asymmetric))} find asymmetry to different sides"
    else:
        return Check(max(values) - min(values), None, True, reason)
    return Check(max(values) - min(values), None, None, reason)


def _symmetric_copies(subject: ModelOnVolume, windows: Sequence[Raw]) -> dict[str, Check]:
    """Check two copies with a symmetric stem and one mean and std for all slots."""
    try:
        module = duplicate(subject.module)
        mirror_stem(plain(module), subject.slices)
    except BadInputError as error:
        check = Check(None, TOLERANCE, None, f"no symmetric copy: {error}")
        return {"mirror_twin": check, "random_weights": check}
    norm = Normalisation(subject.normalisation.mean[:1], subject.normalisation.std[:1])
    mirrored = replace(subject, module=module, normalisation=norm)
    checks = {
        "mirror_twin": _symmetry_check(
            mirrored, windows, "the same model with a mirror-averaged stem must be symmetric"
        )
    }
    if subject.differentiable:
        drawn = replace(mirrored, module=randomised(module, subject.slices))
        checks["random_weights"] = _symmetry_check(
            drawn, windows, "a mirror-averaged stem before random weights must be symmetric"
        )
    else:
        reason = "the weights behind the stem of an .onnx file cannot be drawn again"
        checks["random_weights"] = Check(None, TOLERANCE, None, reason)
    return checks


def randomised(module: nn.Module, slices: int, seed: int = 0) -> nn.Module:
    """Return a copy with random weights behind the stem, each tensor with the spread it had."""
    drawn = duplicate(module)
    stems = find_stems(plain(drawn), slices)
    kept = {id(parameter) for stem in stems for parameter in stem.layer.parameters()}
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in drawn.parameters():
            if id(parameter) not in kept and parameter.ndim > 1:
                noise = torch.randn(parameter.shape, generator=draw)
                parameter.copy_(noise * parameter.std().cpu())
    return drawn


def _shares(subject: ModelOnVolume, windows: Sequence[Raw]) -> Floats:
    """Measure shares (windows, S), by ablation where there is no gradient; only finite ones."""
    method = "gradient" if subject.differentiable else "ablation"
    side = slice(0, windows[0].shape[1]), slice(0, windows[0].shape[2])
    parts = [(SampledWindow(0, *side, 0), raw) for raw in windows]
    with explaining(subject.module):
        shares = shares_of(importance_by(subject, method, parts, seed=0))
    return np.asarray(shares[np.isfinite(shares).all(axis=1)])


def _symmetry_check(subject: ModelOnVolume, windows: Sequence[Raw], reason: str) -> Check:
    if subject.slices == 1:
        return Check(None, TOLERANCE, None, "one slice has no pairs")
    shares = _shares(subject, windows)
    if not len(shares):
        return Check(None, TOLERANCE, None, "no window has any importance")
    worst = float(np.abs(ratio(*pair_parts(shares))).max())
    return Check(worst, TOLERANCE, worst <= TOLERANCE, reason)


def _identical_slices(subject: ModelOnVolume, windows: Sequence[Raw]) -> Check:
    if subject.slices == 1:
        return Check(None, None, None, "one slice has no pairs")
    repeated = [np.repeat(raw[len(raw) // 2][None], len(raw), axis=0) for raw in windows]
    shares = _shares(subject, repeated)
    if not len(shares):
        return Check(None, None, None, "no window has any importance")
    top, bottom = index_parts(shares)
    reason = (
        "mirror index with the centre slice in every slot: what remains comes from the weights "
        "alone (for comparison)"
    )
    return Check(float(ratio(top.sum(), bottom.sum())), None, None, reason)


def _stem_norms(subject: ModelOnVolume) -> Check:
    try:
        stems = find_stems(plain(subject.module), subject.slices)
    except BadInputError as error:
        return Check(None, None, None, f"no stem is found: {error}")
    norms = np.array([norms_per_slot(stem) for stem in stems])
    spread = float((np.ptp(norms, axis=1) / norms.mean(axis=1)).max())
    reason = "spread of the stem's norms over the slots, relative to their mean (for comparison)"
    return Check(spread, None, None, reason)
