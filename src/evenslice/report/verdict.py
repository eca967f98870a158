"""Verdicts and numbers in words: an audit as one sentence, the claims of a study as answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

if TYPE_CHECKING:
    from evenslice.evidence.result import Audit
    from evenslice.evidence.stats import Interval
    from evenslice.study.results import CellResult, Claim, Comparison, PooledIndex, Study

DASH = "–"
HEADLINE = "gradient"


class Badge(NamedTuple):
    """A verdict as a symbol, a word and a kind; never shown by colour alone."""

    symbol: str
    word: str
    kind: str


SYMMETRIC = Badge("=", "symmetric", "symmetric")
UNDECIDED = Badge("?", "undecided", "inconclusive")
BADGES = {
    "symmetric": SYMMETRIC,
    "inconclusive": Badge("?", "inconclusive", "inconclusive"),
    "abstained": Badge(DASH, "abstained", "abstained"),
    "asymmetric": Badge("≠", "asymmetric", "asymmetric"),
}
NO_VERDICT = Badge(DASH, "no verdict", "none")


def is_number(value: object) -> TypeGuard[float]:
    """Tell a finite number from None, NaN, infinity and everything else."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def fixed(value: float | None) -> str:
    """Write a share, an index or a score with three decimals; an en dash when there is none."""
    if not is_number(value):
        return DASH
    text = f"{value:.3f}"
    return text.lstrip("-") if float(text) == 0 else text


def signed(value: float | None) -> str:
    """Write an index or a difference with three decimals and its sign."""
    text = fixed(value)
    return f"+{text}" if is_number(value) and float(text) > 0 else text


def short(value: object) -> str:
    """Write any other number, or several of them, with up to five figures; text stays as it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return ", ".join(short(item) for item in value) or DASH
    if not is_number(value):
        return DASH
    if isinstance(value, Integral):
        return str(value)
    if value == 0 or 1000 <= abs(value) < 1e6:
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.5g}" if 1e-4 <= abs(value) < 1e6 else f"{value:.3g}"


def interval(low: float | None, high: float | None) -> str:
    """Write an interval; an en dash when either end is missing."""
    return f"{fixed(low)} to {fixed(high)}" if is_number(low) and is_number(high) else DASH


def signed_interval(low: float | None, high: float | None) -> str:
    """Write an interval of indices or differences; words when there is none."""
    if is_number(low) and is_number(high):
        return f"{signed(low)} to {signed(high)}"
    return "no interval"


def confidence(value: float | None) -> str:
    """Write the confidence of intervals, for example ``95 %``."""
    return f"{100 * value:g} %" if is_number(value) else "stated"


def p_value(value: float | None) -> str:
    """Write a p value."""
    if not is_number(value):
        return DASH
    return "<\u00a00.001" if value < 0.001 else f"{value:.3f}"


def slot_names(slices: int) -> list[str]:
    """Name the slots of a window: previous, centre, next, or -2 to +2 around the centre."""
    if slices == 3:
        return ["previous", "centre", "next"]
    half = (slices - 1) // 2
    return [f"{offset:+d}" if offset else "centre" for offset in range(-half, half + 1)]


def sides(slices: int) -> tuple[str, str]:
    """Name the two sides of the centre."""
    return ("previous", "next") if slices == 3 else ("earlier slices", "later slices")


@dataclass(frozen=True)
class Finding:
    """One measured difference between the two sides, ready to be put in words."""

    method: str
    quantity: str  # mirror index, or mirror pair j:
    before: str
    after: str
    found: "Interval"

    @property
    def later(self) -> bool:
        """Whether the later slice counts more."""
        return self.found.value > 0

    def direction(self) -> str:
        """Say which side counts more."""
        strong, weak = (self.after, self.before) if self.later else (self.before, self.after)
        return f"{strong} counts more than {weak}"

    def figures(self, audit: "Audit") -> str:
        """Give the value with its interval."""
        return (
            f"{self.quantity} {fixed(self.found.value)}, {confidence(audit.confidence)} interval "
            f"{interval(self.found.low, self.found.high)}"
        )


def findings(audit: "Audit", method: str) -> list[Finding]:
    """List what one method measured between the two sides: the mirror index, or every mirror pair.

    What has no interval is left out.
    """
    result = audit.methods[method]
    if audit.slices == 3 and result.index is not None:
        names = "the previous slice", "the next slice"
        every = [Finding(method, "mirror index", *names, result.index)]
    else:
        every = [
            Finding(method, f"mirror pair {j}:", f"slice -{j}", f"slice +{j}", pair)
            for j, pair in enumerate(result.pairs, start=1)
        ]
    return [one for one in every if is_number(one.found.low) and is_number(one.found.high)]


def headline(audit: "Audit") -> str:
    """Choose the method to show first: the first that has the verdict of the whole audit."""
    names = sorted(audit.methods, key=lambda name: name != HEADLINE)
    kind = audit.verdict.split(":")[0]
    with_it = [name for name in names if audit.methods[name].verdict.split(":")[0] == kind]
    return next(iter((*with_it, *names)), "")


def _beyond(audit: "Audit", method: str) -> list[Finding]:
    """Return the findings of an asymmetric method that lie beyond the margin, strongest first."""
    if audit.methods[method].verdict != "asymmetric":
        return []
    found = [
        one
        for one in findings(audit, method)
        if one.found.low > audit.margin or one.found.high < -audit.margin
    ]
    return sorted(found, key=lambda one: -abs(one.found.value))


def badge(audit: "Audit", method: str | None = None) -> Badge:
    """Give the badge of one method, or of the whole audit."""
    verdict = audit.verdict if method is None else audit.methods[method].verdict
    kind = verdict.split(":")[0]
    if kind != "asymmetric":
        return BADGES.get(kind, NO_VERDICT)
    names = audit.methods if method is None else [method]
    return _towards({one.later for name in names for one in _beyond(audit, name)})


def _towards(later: set[bool]) -> Badge:
    """Give the badge of asymmetry to the later side (True), the earlier, both or unknown sides."""
    symbols = {(True,): "→", (False,): "←", (False, True): "↔"}
    return Badge(symbols.get(tuple(sorted(later)), "≠"), "asymmetric", "asymmetric")


def sentence(audit: "Audit") -> str:
    """Say the verdict of an audit in one sentence of plain text, with the methods that found it."""
    if audit.slices == 1:
        return "Abstained: this model sees a single slice and has no neighbours to compare."
    by = {
        kind: [name for name, one in audit.methods.items() if one.verdict.split(":")[0] == kind]
        for kind in BADGES
    }
    if audit.verdict == "abstained" or (
        by["abstained"] and len(by["abstained"]) == len(audit.methods)
    ):
        name = headline(audit)
        shares = audit.methods[name].shares if name else ()
        centre = fixed(shares[len(shares) // 2].value if shares else None)
        return (
            "Abstained: the slices around the centre hold under 2 % of the importance (centre "
            f"share {centre}), too little to compare the two sides."
        )
    if audit.verdict == "asymmetric":
        return _asymmetric_sentence(audit, by)
    if audit.verdict == "symmetric":
        return _symmetric_sentence(audit, by["symmetric"])
    return _inconclusive_sentence(audit, by)


def listed(names: Sequence[str]) -> str:
    """Write names as people do: a, b and c."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _asymmetric_sentence(audit: "Audit", by: dict[str, list[str]]) -> str:
    """Name every asymmetric method, and give the figures of the first to each side."""
    parts, towards = [], set()
    for name in sorted(by["asymmetric"], key=lambda name: name != HEADLINE):
        first = next(iter(_beyond(audit, name)), None)
        if first is None or first.later in towards:
            parts.append(name)
            continue
        towards.add(first.later)
        parts.append(f"{name} ({first.figures(audit)}: {first.direction()})")
    text = f"Asymmetric by {listed(parts)}" if parts else "Asymmetric"
    others = ("symmetric", "inconclusive", "abstained")
    return (
        "; ".join([text, *(f"{kind} by {listed(by[kind])}" for kind in others if by[kind])]) + "."
    )


def _widest(audit: "Audit", names: Sequence[str]) -> Finding | None:
    """Return the finding whose interval reaches furthest from 0."""
    measured = [one for name in names for one in findings(audit, name)]
    return max(measured, key=lambda one: max(abs(one.found.low), abs(one.found.high)), default=None)


def _symmetric_sentence(audit: "Audit", names: Sequence[str]) -> str:
    who = "the previous and the next slice" if audit.slices == 3 else "slices equally far away"
    text = f"Symmetric by {listed(names)}: {who} count the same within a margin of "
    widest = _widest(audit, names)
    figures = "" if widest is None else f" ({widest.method}: {widest.figures(audit)})"
    return f"{text}{short(audit.margin)}{figures}."


def _inconclusive_sentence(audit: "Audit", by: dict[str, list[str]]) -> str:
    names = by["inconclusive"]
    if any(
        "too few" in one for one in (audit.verdict, *(m.verdict for m in audit.methods.values()))
    ):
        return (
            f"Inconclusive: too few blocks ({audit.clusters}) to tell how sure the measurement is; "
            "audit a larger part of the volume."
        )
    if not names and by["symmetric"]:
        return (
            f"Inconclusive: symmetric by {listed(by['symmetric'])}, but the slots are normalised "
            "by different numbers, which makes a symmetric stem asymmetric."
        )
    widest = _widest(audit, names)
    if widest is None:
        return "Inconclusive: no method measured how the two sides compare."
    also = f"; symmetric by {listed(by['symmetric'])}" if by["symmetric"] else ""
    return (
        f"Inconclusive by {listed(names)}: not precise enough for a margin of "
        f"{short(audit.margin)} ({widest.method}: {widest.figures(audit)}){also}."
    )


def sanity_checks(audit: "Audit") -> str:
    """Say whether the sanity checks passed, and which failed or were not made."""
    found = audit.believed
    if not found["passed"]:
        return f"Sanity checks failed ({', '.join(found['failed'])}): the result is unreliable"
    missing = f" (not made: {', '.join(found['not_made'])})" if found["not_made"] else ""
    return f"Sanity checks passed{missing}"


QUESTIONS = {
    "persists": "Does the asymmetry persist after fine-tuning?",
    "restores": "Does uniform initialisation restore symmetry?",
    "keeps accuracy": "Is accuracy kept?",
}
CLAIM_BADGES = {"yes": Badge("✓", "yes", "symmetric"), "no": Badge("✗", "no", "asymmetric")}


class Outcome(NamedTuple):
    """What treatments are compared by: its title and short name, what lower and higher mean."""

    title: str
    short: str
    lower: str = "less accurate"
    higher: str = "more accurate"


OUTCOMES = {
    "lean": Outcome(
        "Asymmetry after training", "|mirror index|", "less asymmetric", "more asymmetric"
    ),
    "dice": Outcome("Dice", "Dice"),
    "iou": Outcome("IoU", "IoU"),
}


def claim_badge(claim: "Claim") -> Badge:
    """Return the badge of a claim."""
    return CLAIM_BADGES.get(claim.verdict, UNDECIDED)


def pooled_badge(found: "PooledIndex") -> Badge:
    """Return the badge of a pooled mirror index."""
    if found.verdict == "asymmetric":
        later = is_number(found.value) and found.value > 0
        return Badge("→" if later else "←", "asymmetric", "asymmetric")
    known = {"symmetric": SYMMETRIC, "undecided": UNDECIDED}
    return known.get(found.verdict, Badge(DASH, "no cells", "none"))


def cell_badge(cell: "CellResult", margin: float | None) -> Badge:
    """Return the badge of one cell's audit after training."""
    if cell.failure:
        return Badge("✗", "failed", "none")
    kind = cell.verdict.split(":")[0]
    if kind == "asymmetric" and is_number(margin):
        low, high = cell.index.low, cell.index.high
        if (is_number(low) and low > margin) or (is_number(high) and high < -margin):
            return _towards({is_number(low) and low > margin})
    return BADGES.get(kind, NO_VERDICT)


def comparison_badge(found: "Comparison") -> Badge:
    """Return the badge of a comparison; less asymmetry and more accuracy are good."""
    outcome = OUTCOMES[found.outcome]
    if found.verdict in ("lower", "higher"):
        lower = found.verdict == "lower"
        good = lower == (found.outcome == "lean")
        kind = "symmetric" if good else "asymmetric"
        return Badge("↓" if lower else "↑", outcome.lower if lower else outcome.higher, kind)
    if found.verdict == "equivalent":
        return Badge("=", f"equivalent, within {short(found.margin)}", "symmetric")
    return UNDECIDED


def score_range(values: Sequence[float | None]) -> str:
    """Write the lowest and the highest of several scores; one when they agree."""
    known = [value for value in values if is_number(value)]
    if not known:
        return DASH
    low, high = fixed(min(known)), fixed(max(known))
    return low if low == high else f"{low} to {high}"


def progress(study: "Study") -> str:
    """Say what is not finished, and what failed; empty when all cells were measured."""
    parts, done = [], f"{study.done} of {study.cells} cells are done"
    if study.cells > study.done:
        parts.append(
            f"This study is not finished: {done}, {study.cells - study.done} pending. "
            "All that follows is about the cells that are done, and may change."
        )
    if study.failed:
        ran = f"{study.failed} of {study.done} cells that were run failed"
        parts.append(f"{ran}; nothing below counts them.")
    return " ".join(parts)
