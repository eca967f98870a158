"""Assert in a test that a model uses the previous and the next slice alike."""

from typing import Any

from torch import nn

from evenslice.evidence.result import Audit
from evenslice.evidence.stats import TOO_FEW, Interval
from evenslice.model.opening import ModelLike
from evenslice.options import AuditOptions
from evenslice.verbs.audit import audit
from evenslice.volume.inputs import VolumeLike

HOW_TO_FIX = (
    "make the stem symmetric with uniform_stem before training, train with tie='mirror', or repair "
    "the file with evenslice fix"
)


def assert_symmetric(
    model: ModelLike | nn.Module,
    volume: VolumeLike,
    options: AuditOptions | None = None,
    *,
    allow_inconclusive: bool = False,
    **changes: Any,
) -> Audit:
    """Audit a model and raise unless it is symmetric: for tests and continuous integration.

    Parameters
    ----------
    model
        A model, a file, ``package.module:callable``, or a network that takes (B, S, y, x).
    volume
        A volume, an array (z, y, x) or a path; a verdict needs at least six blocks of
        S x tile x tile.
    options, changes
        As for ``evenslice.audit``. Give ``mean`` and ``std`` as the model was trained with; without
        them those of the volume are used.
    allow_inconclusive
        Let pass what is not shown to be asymmetric: verdicts ``inconclusive`` and ``abstained``,
        and audits whose sanity checks failed.

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
    found = audit(model, volume, options, **changes)
    message = failure_message(found)
    if message is not None and not (allow_inconclusive and found.verdict != "asymmetric"):
        raise AssertionError(message)
    return found


def failure_message(found: Audit) -> str | None:
    """Say why an audit does not show a symmetric model, and what to do; None if it does."""
    failed = ", ".join(found.believed["failed"])
    unreliable = f"the sanity checks {failed} failed, so the result is unreliable"
    if found.verdict == "symmetric":
        return f"the model looks symmetric, but {unreliable}; see the audit" if failed else None
    if found.verdict == "asymmetric":
        doubt = f" (but {unreliable})" if failed else ""
        return f"the model is asymmetric{doubt}: {_widest(found, 'asymmetric')}; {HOW_TO_FIX}"
    if found.verdict == "abstained":
        why = "the neighbour slices together hold under 2 % of the importance"
        if found.slices == 1:
            why = "it sees one slice"
        reason = f"the model was not judged (abstained): {why}"
        advice = "assert on a model that uses its neighbours"
    elif found.verdict == TOO_FEW:
        reason = f"the audit is {found.verdict} ({found.clusters}), expected six or more"
        advice = "give a larger volume, a smaller tile or more windows"
    elif not found.normalisation.uniform:
        reason = "the audit is inconclusive: the slots are normalised by different numbers"
        advice = "give one mean and one std for all slots"
    else:
        reason = f"the audit is inconclusive: {_widest(found, 'inconclusive')}"
        advice = f"give more than {found.windows} windows or a larger volume"
    return f"{reason}; {advice}, or allow_inconclusive=True"


def _widest(found: Audit, verdict: str) -> str:
    """Describe the pair with this verdict farthest from 0: if asymmetric, by its nearer end."""

    def distance(one: tuple[str, int, Interval]) -> float:
        low, high = one[2].low, one[2].high
        return max(low, -high) if verdict == "asymmetric" else max(high, -low)

    pairs = [
        (name, number, pair)
        for name, method in found.methods.items()
        if method.verdict == verdict
        for number, pair in enumerate(method.pairs, 1)
    ]
    name, number, pair = max(pairs, key=distance)
    sides = (f"slice -{number}", f"slice +{number}")
    if found.slices == 3:
        sides = ("the previous slice", "the next slice")
    weak, strong = sides if pair.value > 0 else sides[::-1]
    place = "beyond" if verdict == "asymmetric" else "neither inside nor beyond"
    return (
        f"by {name} mirror pair {number} is {pair.value:+.3f} ({100 * found.confidence:g} % "
        f"interval {pair.low:+.3f} to {pair.high:+.3f}), {place} the margin of {found.margin:g}: "
        f"{strong} counts more than {weak}"
    )
