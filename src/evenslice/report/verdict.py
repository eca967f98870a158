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
    "abstained": Badge(DASH, "too little importance", "abstained"),
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
    quantity: str
    sides: tuple[str, str]
    found: "Interval"

    @property
    def later(self) -> bool:
        """Whether the later slice counts more."""
        return self.found.value > 0

    def direction(self) -> str:
        """Say which side counts more."""
        weak, strong = self.sides if self.later else self.sides[::-1]
        return f"{strong} more than {weak}"

    def figures(self, audit: "Audit", extra: str = "") -> str:
        """Give the value with its interval in brackets."""
        spread = interval(self.found.low, self.found.high)
        return (
            f"({self.quantity} {fixed(self.found.value)}, "
            f"{confidence(audit.confidence)} interval {spread}{extra})"
        )


def findings(audit: "Audit", method: str) -> list[Finding]:
    """List what one method measured between the two sides: the mirror index, or every mirror pair.

    What has no interval is left out.
    """
    result = audit.methods[method]
    if audit.slices == 3 and result.index is not None:
        names = "the previous slice", "the next slice"
        listed = [Finding(method, "mirror index", names, result.index)]
    else:
        listed = [
            Finding(method, f"mirror pair {j}:", (f"slice -{j}", f"slice +{j}"), pair)
            for j, pair in enumerate(result.pairs, start=1)
        ]
    return [one for one in listed if is_number(one.found.low) and is_number(one.found.high)]


def headline(audit: "Audit") -> str:
    """Choose the method to show first: gradient, else the first that was measured."""
    return HEADLINE if HEADLINE in audit.methods else next(iter(audit.methods), "")


def _names(audit: "Audit") -> list[str]:
    """List the methods, the headline first."""
    first = headline(audit)
    return sorted(audit.methods, key=lambda name: name != first)


def _asymmetric(audit: "Audit", methods: Sequence[str]) -> list[Finding]:
    """Collect the findings of asymmetric methods that lie entirely beyond the margin."""
    return [
        one
        for name in methods
        if audit.methods[name].verdict == "asymmetric"
        for one in findings(audit, name)
        if one.found.low > audit.margin or one.found.high < -audit.margin
    ]


def badge(audit: "Audit", method: str | None = None) -> Badge:
    """Give the badge of one method, or of the whole audit."""
    verdict = audit.verdict if method is None else audit.methods[method].verdict
    kind = verdict.split(":")[0]
    if kind != "asymmetric":
        return BADGES.get(kind, NO_VERDICT)
    found = _asymmetric(audit, _names(audit) if method is None else [method])
    later = {one.later for one in found}
    if len(later) == 2:
        return Badge("↔", "asymmetric both ways", kind)
    return _leaning(audit.slices, later.pop()) if later else BADGES[kind]


def _leaning(slices: int, later: bool) -> Badge:
    before, after = sides(slices)
    return Badge("→" if later else "←", f"leans to {after if later else before}", "asymmetric")


def sentence(audit: "Audit") -> str:
    """Say the verdict of an audit in one sentence of plain text, the verdict first."""
    verdicts = [method.verdict for method in audit.methods.values()]
    if audit.slices == 1:
        return "No verdict: this model sees a single slice and has no neighbours to compare."
    if audit.verdict == "abstained" or (verdicts and set(verdicts) == {"abstained"}):
        name = headline(audit)
        shares = audit.methods[name].shares if name else ()
        centre = fixed(shares[len(shares) // 2].value if shares else None)
        return (
            "No verdict: the slices around the centre hold too little of the importance "
            f"(under 2 %; centre share {centre}) to compare the two sides."
        )
    words = {"asymmetric": _asymmetric_sentence, "symmetric": _symmetric_sentence}
    return words.get(audit.verdict, _inconclusive_sentence)(audit)


def _agreeing(audit: "Audit", verdict: str) -> str:
    """Say how many of the methods with a verdict agree; nothing when there is only one."""
    found = [one.verdict for one in audit.methods.values() if one.verdict != "abstained"]
    return f"; {found.count(verdict)} of {len(found)} methods" if len(found) > 1 else ""


def _asymmetric_sentence(audit: "Audit") -> str:
    found = _asymmetric(audit, _names(audit))
    if not found:
        return "Asymmetric: the slices before and after the centre do not count the same."
    first = found[0]
    against = next((other for other in found if other.later != first.later), None)
    if against is None:
        own = [one for one in found if one.method == first.method]
        strongest = max(own, key=lambda one: abs(one.found.value))
        figures = strongest.figures(audit, _agreeing(audit, "asymmetric"))
        return f"Asymmetric: this model uses {strongest.direction()} {figures}."
    one, two = (
        f"by {found.method} " if against.method != first.method else ""
        for found in (first, against)
    )
    return (
        "Asymmetric, but not to one side: "
        f"{one}this model uses {first.direction()} {first.figures(audit)}, "
        f"and {two}{against.direction()} {against.figures(audit)}."
    )


def _symmetric_sentence(audit: "Audit") -> str:
    name = headline(audit)
    measured = findings(audit, name) if name else []
    who = "slices equally far before and after"
    if audit.slices == 3:
        who = "the previous and the next slice"
    text = f"Symmetric: {who} count the same, within a margin of {short(audit.margin)}"
    if not measured:
        return f"{text}."
    widest = max(measured, key=lambda one: max(abs(one.found.low), abs(one.found.high)))
    return f"{text} {widest.figures(audit, _agreeing(audit, 'symmetric'))}."


def _inconclusive_sentence(audit: "Audit") -> str:
    names = _names(audit)
    verdicts = [audit.verdict, *(audit.methods[name].verdict for name in names)]
    if any("too few" in verdict for verdict in verdicts):
        return (
            f"Inconclusive: too few blocks ({audit.clusters}) to tell how sure the measurement is; "
            "audit a larger part of the volume."
        )
    undecided = [name for name in names if audit.methods[name].verdict == "inconclusive"]
    measured = [one for name in undecided for one in findings(audit, name)]
    if not measured:
        return "Inconclusive: no method measured how the two sides compare."
    own = [one for one in measured if one.method == measured[0].method]
    widest = max(own, key=lambda one: one.found.high - one.found.low)
    extra = f"; by {widest.method}" if len(names) > 1 else ""
    return (
        "Inconclusive: the measurement is not precise enough to call this model symmetric or "
        f"asymmetric at a margin of {short(audit.margin)} {widest.figures(audit, extra)}."
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
            return _leaning(cell.slices, is_number(low) and low > margin)
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
