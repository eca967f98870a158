"""Findings of a study: asymmetries, comparisons with the control, the paper's claims."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from evenslice.evidence.stats import Mean, blocked_mean, holm, sign_flip
from evenslice.options import JsonObject
from evenslice.study.plan import StudyTable

ALL = "all"
DEFAULT = "green"
Row = JsonObject


@dataclass(frozen=True)
class Asymmetry:
    """Mean signed mirror index of a treatment over cells; its verdict, by the margin."""

    treatment: str
    network: str
    when: str
    cells: int
    datasets: int
    value: float
    low: float
    high: float
    p: float
    p_holm: float
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Mean paired difference, treatment less control; datasets are blocks.

    ``p`` and ``p_holm``: against no difference. ``p_equivalence``: against a difference of the
    margin or more, by two one-sided tests. ``p_not_worse``: against being worse by the margin or
    more. ``verdict``: ``lower`` or ``higher`` where ``p_holm`` is small, ``equivalent`` where the
    adjusted ``p_equivalence`` is, else ``undecided``.
    """

    treatment: str
    control: str
    network: str
    outcome: str
    cells: int
    datasets: int
    value: float
    low: float
    high: float
    p: float
    p_holm: float
    p_signflip: float
    margin: float | None
    p_equivalence: float
    p_equivalence_holm: float
    p_not_worse: float
    verdict: str


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and whether this study supports it: yes, no or undecided."""

    name: str
    verdict: str
    sentence: str


@dataclass(frozen=True)
class Findings:
    """All that is concluded."""

    lean: tuple[Asymmetry, ...]
    comparisons: tuple[Comparison, ...]
    claims: tuple[Claim, ...]

    def to_dict(self) -> JsonObject:
        """Return it as JSON can hold it; NaN becomes None."""
        return {
            "lean": [_plain(asdict(one)) for one in self.lean],
            "comparisons": [_plain(asdict(one)) for one in self.comparisons],
            "claims": [_plain(asdict(one)) for one in self.claims],
        }


def findings_of(rows: Sequence[Row], table: StudyTable) -> Findings:
    """Compare the rows that did not fail.

    Parameters
    ----------
    rows
        Of the cells that are done.
    table
        The study: its control, margins and confidence.
    """
    good = [row for row in rows if not row["failure"] and row.get("mirror_index") is not None]
    lean = _asymmetries(good, table)
    comparisons = [
        *_compared(good, table, "lean", None),
        *_compared(good, table, "dice", table.dice_margin),
    ]
    comparisons += _compared(good, table, "iou", None)
    return Findings(tuple(lean), tuple(comparisons), claims_of(lean, comparisons, table))


def _asymmetries(rows: Sequence[Row], table: StudyTable) -> list[Asymmetry]:
    found = []
    for when, key in (("before", "mirror_index_before"), ("after", "mirror_index")):
        means = {
            name: _mean([r for r in rows if r["treatment"] == name], key)
            for name in _names(rows, "treatment")
        }
        adjusted = dict(zip(means, holm([mean.p_zero() for mean in means.values()]), strict=True))
        for name, mean in means.items():
            found.append(_asymmetry(name, ALL, when, mean, adjusted[name], table))
            own = [row for row in rows if row["treatment"] == name]
            for network in _names(own, "network"):
                part = _mean([row for row in own if row["network"] == network], key)
                found.append(_asymmetry(name, network, when, part, math.nan, table))
    return found


def _asymmetry(
    name: str, network: str, when: str, mean: Mean, p_holm: float, table: StudyTable
) -> Asymmetry:
    low, high = mean.interval(table.confidence)
    low, high, margin = (
        max(low, -1.0),
        min(high, 1.0),
        table.audit.margin,
    )  # an index lies there; NaN stays
    verdict = "undecided"
    if low > margin or high < -margin:
        verdict = "asymmetric"
    elif -margin <= low and high <= margin:
        verdict = "symmetric"
    return Asymmetry(
        name,
        network,
        when,
        mean.cells,
        mean.blocks,
        mean.value,
        low,
        high,
        mean.p_zero(),
        p_holm,
        verdict,
    )


def _compared(
    rows: Sequence[Row], table: StudyTable, outcome: str, margin: float | None
) -> list[Comparison]:
    """Compare each treatment with the control; p values are adjusted over the treatments."""
    of: Callable[[Row], float | None] = (
        (lambda row: abs(row["mirror_index"])) if outcome == "lean" else (lambda row: row[outcome])
    )
    control = {row["context"]: row for row in rows if row["treatment"] == table.control}
    differences: dict[str, list[float]] = {}
    blocks: dict[str, list[str]] = {}
    for row in rows:
        other = control.get(row["context"])
        if row["treatment"] == table.control or other is None:
            continue
        value, against = of(row), of(other)
        if value is not None and against is not None:
            differences.setdefault(row["treatment"], []).append(value - against)
            blocks.setdefault(row["treatment"], []).append(row["dataset"])
    means = {name: blocked_mean(values, blocks[name]) for name, values in differences.items()}
    adjusted = holm([mean.p_zero() for mean in means.values()])
    same = [math.nan if margin is None else mean.p_equivalent(margin) for mean in means.values()]
    found = zip(means.items(), adjusted, same, holm(same), strict=True)
    return [
        _comparison(
            name, mean, outcome, sign_flip(differences[name], blocks[name]), ps, margin, table
        )
        for (name, mean), *ps in found
    ]


def _comparison(
    name: str,
    mean: Mean,
    outcome: str,
    flipped: float,
    ps: Sequence[float],
    margin: float | None,
    table: StudyTable,
) -> Comparison:
    adjusted, same, same_adjusted = ps
    low, high = mean.interval(table.confidence)
    level = 1 - table.confidence
    verdict = "undecided"
    if same_adjusted < level:
        verdict = "equivalent"
    elif adjusted < level:
        verdict = "higher" if mean.value > 0 else "lower"
    return Comparison(
        treatment=name,
        control=table.control,
        network=ALL,
        outcome=outcome,
        cells=mean.cells,
        datasets=mean.blocks,
        value=mean.value,
        low=low,
        high=high,
        p=mean.p_zero(),
        p_holm=adjusted,
        p_signflip=flipped,
        margin=margin,
        p_equivalence=same,
        p_equivalence_holm=same_adjusted,
        p_not_worse=math.nan if margin is None else mean.p_above(-margin),
        verdict=verdict,
    )


def claims_of(
    lean: Sequence[Asymmetry], comparisons: Sequence[Comparison], table: StudyTable
) -> tuple[Claim, ...]:
    """Judge the paper's three claims, for the control and the ``green`` init."""
    pooled = {(one.treatment, one.when): one for one in lean if one.network == ALL}
    against = {(one.treatment, one.outcome): one for one in comparisons}
    control, level = table.control, 1 - table.confidence
    return (
        _persists(pooled.get((control, "before")), pooled.get((control, "after")), control),
        _restores(pooled.get((DEFAULT, "after")), against.get((DEFAULT, "lean")), control),
        _keeps(against.get((DEFAULT, "dice")), control, level),
    )


def _persists(before: Asymmetry | None, after: Asymmetry | None, control: str) -> Claim:
    name = "persists"
    if before is None or after is None:
        return Claim(
            name, "undecided", f"No cells with {control} are done: the asymmetry is not known yet."
        )
    verdict = {"asymmetric": "yes", "symmetric": "no"}.get(after.verdict, "undecided")
    words = {
        "yes": f"The asymmetry of {control} is still there after fine-tuning",
        "no": f"{control} is symmetric after fine-tuning",
        "undecided": f"Whether {control} is asymmetric after fine-tuning is not decided",
    }
    return Claim(
        name,
        verdict,
        f"{words[verdict]}: mean mirror index {_figures(after)} after training, "
        f"{_figures(before)} before ({_cells(after)}).",
    )


def _restores(after: Asymmetry | None, change: Comparison | None, control: str) -> Claim:
    name = "restores"
    if after is None:
        return Claim(
            name, "undecided", f"No cells with {DEFAULT} are done: nothing can be said of it yet."
        )
    verdict = {"symmetric": "yes", "asymmetric": "no"}.get(after.verdict, "undecided")
    words = {
        "yes": f"Uniform initialisation ({DEFAULT}) restores symmetry",
        "no": f"{DEFAULT} is asymmetric after training",
        "undecided": f"Whether {DEFAULT} is symmetric after training is not decided",
    }
    less = (
        ""
        if change is None
        else f"; the size of the index changes by {_figures(change)} against {control}"
    )
    return Claim(
        name,
        verdict,
        f"{words[verdict]}: mean mirror index {_figures(after)} after training{less} "
        f"({_cells(after)}).",
    )


def _keeps(change: Comparison | None, control: str, level: float) -> Claim:
    name = "keeps accuracy"
    if change is None or change.margin is None:
        return Claim(
            name,
            "undecided",
            f"No pairs of {DEFAULT} and {control} are done: nothing can be said of accuracy yet.",
        )
    near = f"within {change.margin:g} Dice of {control}"
    verdict, words = "undecided", f"Whether {DEFAULT} is {near} is not decided"
    if change.verdict == "equivalent":
        verdict, words = "yes", f"Accuracy is kept: {DEFAULT} is {near}"
    elif change.verdict == "higher" or change.p_not_worse < level / 2:
        verdict, words = (
            "yes",
            f"Accuracy is kept or better: {DEFAULT} is not worse than {control} by "
            f"{change.margin:g} Dice",
        )
    elif change.verdict == "lower":
        verdict, words = "no", f"{DEFAULT} is less accurate than {control}"
    return Claim(name, verdict, f"{words}: Dice differs by {_figures(change)} ({_cells(change)}).")


def _figures(found: Asymmetry | Comparison) -> str:
    if math.isnan(found.low):
        return f"{found.value:+.3f} (no interval: too few cells)"
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _cells(found: Asymmetry | Comparison) -> str:
    what = "pairs" if isinstance(found, Comparison) else "cells"
    return f"{found.cells} {what}, {found.datasets} dataset{'s' if found.datasets > 1 else ''}"


def _mean(rows: Sequence[Row], key: str) -> Mean:
    return blocked_mean([row[key] for row in rows], [row["dataset"] for row in rows])


def _names(rows: Sequence[Row], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def _plain(values: JsonObject) -> JsonObject:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
