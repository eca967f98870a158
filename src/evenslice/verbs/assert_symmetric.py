"""Assert in a test that a model looks at the previous slice and the next slice alike."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from evenslice.evidence.result import Audit
from evenslice.evidence.stats import TOO_FEW, Interval
from evenslice.model.inputs import ModelLike, VolumeLike
from evenslice.verbs.audit import AUTO, audit

HOW_TO_FIX = "make the stem even with uniform_stem before training, train with tie='mirror', or repair the file with evenslice fix"


def assert_symmetric(
    model: ModelLike | nn.Module,
    volume: VolumeLike,
    *,
    margin: float = 0.05,
    windows: int | Literal["auto"] = AUTO,
    tile: int = 256,
    methods: Sequence[str] | None = None,
    slices: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    roi: str | None = None,
    seed: int = 0,
    device: str = "auto",
    allow_inconclusive: bool = False,
) -> Audit:
    """Audit a model and raise unless it is symmetric: for tests and continuous integration.

    Parameters
    ----------
    model
        A model, a file, ``package.module:callable``, or a ``torch.nn.Module`` that takes (B, S, y, x).
    volume
        A volume, an array (z, y, x) or a path; at least six blocks of S x tile x tile are needed for a verdict.
    margin, windows, tile, methods, slices, mean, std, roi, seed, device
        See ``evenslice.audit``. Give mean and std as the model was trained with; without them those of the volume are used.
    allow_inconclusive
        Let pass what is not shown to lean: verdicts ``inconclusive`` and ``abstained``, and audits whose controls failed.

    Returns
    -------
    Audit
        The audit, for further assertions.

    Raises
    ------
    AssertionError
        With the method, the mirror pair, its interval and the margin, and what to do.
    BadInputError
        If something given cannot be used.
    """
    __tracebackhide__ = True  # pytest then points at the test, not in here
    found = audit(
        model,
        volume,
        margin=margin,
        windows=windows,
        tile=tile,
        methods=methods,
        slices=slices,
        mean=mean,
        std=std,
        roi=roi,
        seed=seed,
        device=device,
    )
    complaint = failure_message(found)
    if complaint is not None and not (allow_inconclusive and found.verdict != "asymmetric"):
        raise AssertionError(complaint)
    return found


def failure_message(found: Audit) -> str | None:
    """Say why an audit does not show a symmetric model, and what to do; None if it does."""
    failed = ", ".join(found.believed["failed"])
    if found.verdict == "symmetric":
        return (
            None
            if not failed
            else f"the model looks symmetric, but do not believe it: {failed} failed; look at the audit"
        )
    if found.verdict == "asymmetric":
        doubt = f" (but do not believe it: {failed} failed)" if failed else ""
        return f"the model is asymmetric{doubt}: {_widest(found, 'asymmetric')}; {HOW_TO_FIX}"
    if found.verdict == "abstained":
        why = (
            "it sees one slice"
            if found.slices == 1
            else "the neighbour slices together hold under 2 % of the importance"
        )
        return f"the model was not judged (abstained): {why}; {_or_allow('assert on a model that uses its neighbours')}"
    if found.verdict == TOO_FEW:
        advice = "give a larger volume, a smaller tile or more windows"
        return f"the audit is {found.verdict} ({found.clusters}), expected six or more; {_or_allow(advice)}"
    if not found.normalisation.uniform:
        advice = "give one mean and one std for all slots"
        return f"the audit is inconclusive: the slots are normalised by different numbers; {_or_allow(advice)}"
    advice = f"give more than {found.windows} windows or a larger volume"
    return f"the audit is inconclusive: {_widest(found, 'inconclusive')}; {_or_allow(advice)}"


def _or_allow(advice: str) -> str:
    return f"{advice}, or allow_inconclusive=True"


def _widest(found: Audit, verdict: str) -> str:
    """Describe the mirror pair with this verdict that reaches farthest from 0: for a lean, the one that surely does."""
    pairs = [
        (name, number, pair)
        for name, method in found.methods.items()
        if method.verdict == verdict
        for number, pair in enumerate(method.pairs, 1)
    ]
    reach = _sure if verdict == "asymmetric" else _possible
    name, number, pair = max(pairs, key=lambda one: reach(one[2]))
    sides = (
        ("the previous slice", "the next slice")
        if found.slices == 3
        else (f"slice -{number}", f"slice +{number}")
    )
    weak, strong = sides if pair.value > 0 else sides[::-1]
    word = "beyond" if verdict == "asymmetric" else "neither inside nor beyond"
    return (
        f"by {name} mirror pair {number} is {pair.value:+.3f} ({100 * found.confidence:g} % interval {pair.low:+.3f} to "
        f"{pair.high:+.3f}), {word} the margin of {found.margin:g}: {strong} counts more than {weak}"
    )


def _sure(pair: Interval) -> float:
    return max(pair.low, -pair.high)


def _possible(pair: Interval) -> float:
    return max(pair.high, -pair.low)
