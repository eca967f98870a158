"""Words and numbers: an audit as one sentence that needs no statistics to read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeGuard

DASH = "–"
HEADLINE = "gradient"


@dataclass(frozen=True)
class Badge:
    """A verdict as a symbol, a word and a kind; never told by colour alone."""

    symbol: str
    word: str
    kind: str


@dataclass(frozen=True)
class Finding:
    """One measured difference between the two sides, ready to be put in words."""

    method: str
    quantity: str
    before: str
    after: str
    value: float
    low: float
    high: float

    def beyond(self, margin: float) -> bool:
        """Whether the interval lies entirely outside the margin."""
        return self.low > margin or self.high < -margin

    def direction(self) -> str:
        """Say which side weighs more."""
        strong, weak = (self.after, self.before) if self.value > 0 else (self.before, self.after)
        return f"{strong} more than {weak}"

    def figures(self, audit: Mapping[str, Any], extra: str = "") -> str:
        """Give the value with its interval in brackets."""
        spread = f"{confidence(audit)} interval {interval(self.low, self.high)}"
        return f"({self.quantity} {fixed(self.value)}, {spread}{extra})"


def is_number(value: Any) -> TypeGuard[float]:
    """Tell a finite number from None, NaN, infinity and everything else."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def fixed(value: Any) -> str:
    """Write a share, an index or a score with three decimals; an en dash when there is none."""
    if not is_number(value):
        return DASH
    text = f"{value:.3f}"
    return text.lstrip("-") if float(text) == 0 else text


def short(value: Any) -> str:
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


def interval(low: Any, high: Any) -> str:
    """Write an interval; an en dash when either end is missing."""
    return f"{fixed(low)} to {fixed(high)}" if is_number(low) and is_number(high) else DASH


def confidence(audit: Mapping[str, Any]) -> str:
    """Write the confidence of the intervals, for example ``95 %``."""
    value = audit.get("confidence")
    return f"{100 * value:g} %" if is_number(value) else "stated"


def slot_names(slices: int) -> list[str]:
    """Name the slots of a window: previous, centre, next, or -2 to +2 around the centre."""
    if slices == 3:
        return ["previous", "centre", "next"]
    half = (slices - 1) // 2
    return [f"{offset:+d}" if offset else "centre" for offset in range(-half, half + 1)]


def headline(audit: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Choose the method to show first: gradient, else the first that was measured."""
    methods: Mapping[str, Any] = audit.get("methods") or {}
    name = HEADLINE if HEADLINE in methods else next(iter(methods), "")
    return name, methods.get(name, {})


def badge(audit: Mapping[str, Any], method: str | None = None) -> Badge:
    """Give the badge of one method, or of the whole audit."""
    verdict = audit.get("verdict") if method is None else audit["methods"][method].get("verdict")
    kind = str(verdict or "none").split(":")[0]
    if kind != "asymmetric":
        known = {
            "symmetric": ("=", "even"),
            "inconclusive": ("?", "inconclusive"),
            "abstained": (DASH, "abstained"),
        }
        symbol, word = known.get(kind, (DASH, "no verdict"))
        return Badge(symbol, word, kind if kind in known else "none")
    leans = _leaning(audit, method)
    before, after = (
        ("previous", "next") if audit.get("slices") == 3 else ("earlier slices", "later slices")
    )
    sides = {lean.value > 0 for lean in leans}
    if len(sides) != 1:
        return Badge("↔" if sides else "≠", "leans both ways" if sides else "leans", kind)
    return (
        Badge("→", f"leans to {after}", kind)
        if sides.pop()
        else Badge("←", f"leans to {before}", kind)
    )


def sentence(audit: Mapping[str, Any]) -> str:
    """Say the verdict of an audit in one sentence, the verdict first.

    Parameters
    ----------
    audit
        An audit as written to JSON (schema ``evenslice.audit/1``).

    Returns
    -------
    str
        Plain text. A positive mirror index is told as a lean to the later slice.
    """
    verdict = str(audit.get("verdict") or "")
    methods = audit.get("methods") or {}
    if audit.get("slices") == 1:
        return "Abstained: no verdict, because this model sees a single slice and has no neighbours to compare."
    verdicts = [str(entry.get("verdict") or "") for entry in methods.values()]
    if verdict.startswith("abstained") or (
        verdicts and all(each.startswith("abstained") for each in verdicts)
    ):
        centre = fixed(headline(audit)[1].get("centre_share"))
        return (
            "Abstained: no verdict, because the slices around the centre hold too little of the importance "
            f"(under 2 %; centre share {centre}) to compare the two sides."
        )
    if verdict == "asymmetric":
        return _leans(audit)
    if verdict == "symmetric":
        return _even(audit)
    return (
        _undecided(audit)
        if verdict.startswith("inconclusive")
        else "No verdict was recorded for this model."
    )


def findings(audit: Mapping[str, Any], method: str) -> list[Finding]:
    """List what one method measured between the two sides.

    Three slices give one finding, the mirror index; more give one for each mirror pair. What has no interval is left
    out.
    """
    entry = audit["methods"][method]
    if audit.get("slices") == 3:
        rows = [
            (
                "mirror index",
                "the previous slice",
                "the next slice",
                *_ends(entry, "mirror_index", "mirror"),
            )
        ]
    else:
        columns = [entry.get(f"mirror_pairs{end}") or [] for end in ("", "_low", "_high")]
        triples = enumerate(zip(*columns, strict=False), start=1)
        rows = [
            (f"mirror pair {j}:", f"slice -{j}", f"slice +{j}", *triple) for j, triple in triples
        ]
    return [Finding(method, *row) for row in rows if all(is_number(number) for number in row[3:])]


def _ends(entry: Mapping[str, Any], value: str, stem: str) -> tuple[Any, Any, Any]:
    """Read a value and its interval from a method's entry."""
    return entry.get(value), entry.get(f"{stem}_low"), entry.get(f"{stem}_high")


def _margin(audit: Mapping[str, Any]) -> float:
    value = audit.get("margin")
    return float(value) if is_number(value) else 0.0


def _leaning(audit: Mapping[str, Any], method: str | None = None) -> list[Finding]:
    """Collect the findings that lie beyond the margin, the headline method's first."""
    first = headline(audit)[0]
    names = (
        sorted(audit.get("methods") or {}, key=lambda name: name != first)
        if method is None
        else [method]
    )
    leaning = [name for name in names if audit["methods"][name].get("verdict") == "asymmetric"]
    return [
        found for name in leaning for found in findings(audit, name) if found.beyond(_margin(audit))
    ]


def _count(audit: Mapping[str, Any], verdict: str) -> str:
    """Say how many of the methods that did not abstain agree; nothing when there is only one."""
    verdicts = [str(entry.get("verdict") or "") for entry in (audit.get("methods") or {}).values()]
    voting = [each for each in verdicts if not each.startswith("abstained")]
    return f"; {voting.count(verdict)} of {len(voting)} methods" if len(voting) > 1 else ""


def _leans(audit: Mapping[str, Any]) -> str:
    leaning = _leaning(audit)
    if not leaning:
        return "This model leans: the slices before and after the centre do not count the same."
    first = leaning[0]
    against = next((other for other in leaning if (other.value > 0) != (first.value > 0)), None)
    if against is None:
        strongest = max(
            (one for one in leaning if one.method == first.method), key=lambda one: abs(one.value)
        )
        count = _count(audit, "asymmetric")
        return f"This model leans: it trusts {strongest.direction()} {strongest.figures(audit, count)}."
    one, two = (
        f"by {found.method} " if against.method != first.method else ""
        for found in (first, against)
    )
    return (
        f"This model leans, but not to one side: {one}it trusts {first.direction()} {first.figures(audit)}, "
        f"and {two}it trusts {against.direction()} {against.figures(audit)}."
    )


def _even(audit: Mapping[str, Any]) -> str:
    name = headline(audit)[0]
    measured = findings(audit, name) if name else []
    who = (
        "the previous and the next slice"
        if audit.get("slices") == 3
        else "slices equally far before and after"
    )
    text = f"Even: {who} count the same, within a margin of {short(audit.get('margin'))}"
    if not measured:
        return f"{text}."
    widest = max(measured, key=lambda one: max(abs(one.low), abs(one.high)))
    return f"{text} {widest.figures(audit, _count(audit, 'symmetric'))}."


def _undecided(audit: Mapping[str, Any]) -> str:
    methods = audit.get("methods") or {}
    first = headline(audit)[0]
    verdicts = {
        name: str(methods[name].get("verdict") or "")
        for name in sorted(methods, key=lambda name: name != first)
    }
    if "too few" in " ".join([str(audit.get("verdict")), *verdicts.values()]):
        return (
            f"Inconclusive: too few blocks ({short(audit.get('clusters'))}) to tell how sure the measurement is; "
            "audit a larger part of the volume."
        )
    open_ones = [name for name, verdict in verdicts.items() if verdict.startswith("inconclusive")]
    measured = [found for name in open_ones for found in findings(audit, name)]
    if not measured:
        return "Inconclusive: no method measured how the two sides compare."
    widest = max(
        (one for one in measured if one.method == measured[0].method),
        key=lambda one: one.high - one.low,
    )
    extra = f"; by {widest.method}" if len(verdicts) > 1 else ""
    return (
        "Inconclusive: the measurement is not sharp enough to call this model even or leaning at a margin of "
        f"{short(audit.get('margin'))} {widest.figures(audit, extra)}."
    )
