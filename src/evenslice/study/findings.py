"""Findings of a study: asymmetries, comparisons with the control, the paper's claims."""

import math
from collections.abc import Sequence
from statistics import stdev
from typing import NamedTuple

from evenslice.evidence.stats import Mean, blocked_mean, holm, sign_flip
from evenslice.options import JsonObject
from evenslice.study.plan import METHOD, REVERSED, StudyTable
from evenslice.study.results import ALL, Claim, Comparison, Estimate, Parts, PooledIndex, unique

DEFAULT = "green"
Row = JsonObject


class Findings(NamedTuple):
    """All that is concluded."""

    lean: tuple[PooledIndex, ...]
    comparisons: tuple[Comparison, ...]
    claims: tuple[Claim, ...]
    causes: tuple[Parts, ...]


def findings_of(rows: Sequence[Row], table: StudyTable) -> Findings:
    """Compare the rows that did not fail, by the study's control, margins and confidence."""
    good = [row for row in rows if not row["failure"]]
    lean = _pooled([row for row in good if row.get("mirror_index") is not None], table)
    outcomes = {"lean": None, "dice": table.dice_margin, "iou": None}
    compared = [
        one for name, margin in outcomes.items() for one in _compared(good, table, name, margin)
    ]
    claims, causes = claims_of(lean, compared, table), tuple(causes_of(good, table.confidence))
    return Findings(tuple(lean), tuple(compared), claims, causes)


def causes_of(rows: Sequence[Row], confidence: float) -> list[Parts]:
    """Take the mirror index apart where a training was done in both orders of z."""
    pairs: dict[tuple[str, ...], dict[str, dict[str, float]]] = {}
    for row in rows:
        treatment = row["treatment"].removesuffix(f", {REVERSED}")
        order = "forward" if treatment == row["treatment"] else "reversed"
        for key, value in row.items():
            method = key.removeprefix(METHOD)
            if method != key and not key.endswith("_before") and value is not None:
                group = method, treatment, row["network"], row["dataset"]
                own = pairs.setdefault(group, {}).setdefault(row["context"], {})
                own[order] = value
    found = []
    for (method, treatment, network, dataset), cells in pairs.items():
        both = [(one["forward"], one["reversed"]) for one in cells.values() if len(one) == 2]
        if not both:
            continue
        halves = {"data": [(f - r) / 2 for f, r in both], "slots": [(f + r) / 2 for f, r in both]}
        estimates = {}
        for name, values in halves.items():
            mean = blocked_mean(values, [dataset] * len(values))
            low, high = mean.interval(confidence)
            estimates[name] = Estimate(value=mean.value, low=low, high=high)
        found.append(
            Parts(
                method=method,
                treatment=treatment,
                network=network,
                dataset=dataset,
                seeds=len(both),
                spread=stdev(halves["slots"]) if len(both) > 1 else None,
                **estimates,
            )
        )
    return found


def _pooled(rows: Sequence[Row], table: StudyTable) -> list[PooledIndex]:
    """Pool the mirror index by treatment; p values are adjusted over the treatments."""
    found = []
    for when, key in (("before", "mirror_index_before"), ("after", "mirror_index")):
        treatments = _groups(rows, "treatment")
        means = {name: _mean(own, key) for name, own in treatments.items()}
        adjusted = holm([mean.p_zero() for mean in means.values()])
        for (name, mean), p_holm in zip(means.items(), adjusted, strict=True):
            found.append(_pooled_index(name, ALL, when, mean, p_holm, table))
            for network, own in _groups(treatments[name], "network").items():
                part = _mean(own, key)
                found.append(_pooled_index(name, network, when, part, math.nan, table))
    return found


def _pooled_index(
    name: str, network: str, when: str, mean: Mean, p_holm: float, table: StudyTable
) -> PooledIndex:
    low, high = mean.interval(table.confidence)
    low, high, margin = max(low, -1.0), min(high, 1.0), table.audit.margin  # NaN stays
    verdict = "undecided"
    if low > margin or high < -margin:
        verdict = "asymmetric"
    elif -margin <= low and high <= margin:
        verdict = "symmetric"
    return PooledIndex(
        treatment=name,
        network=network,
        when=when,
        cells=mean.cells,
        datasets=mean.blocks,
        value=mean.value,
        low=low,
        high=high,
        p=mean.p_zero(),
        p_holm=p_holm,
        verdict=verdict,
    )


def _compared(
    rows: Sequence[Row], table: StudyTable, outcome: str, margin: float | None
) -> list[Comparison]:
    """Compare each treatment with the control; p values are adjusted over the treatments."""
    key = "mirror_index" if outcome == "lean" else outcome
    control = {row["context"]: row.get(key) for row in rows if row["treatment"] == table.control}
    differences: dict[str, list[float]] = {}
    blocks: dict[str, list[str]] = {}
    for row in rows:
        name, value, against = row["treatment"], row.get(key), control.get(row["context"])
        if name != table.control and value is not None and against is not None:
            differences.setdefault(name, []).append(abs(value) - abs(against))
            blocks.setdefault(name, []).append(row["dataset"])
    means = {name: blocked_mean(values, blocks[name]) for name, values in differences.items()}
    adjusted = holm([mean.p_zero() for mean in means.values()])
    same = [math.nan if margin is None else mean.p_equivalent(margin) for mean in means.values()]
    level, found = 1 - table.confidence, []
    for (name, mean), p_holm, p_same, p_same_holm in zip(
        means.items(), adjusted, same, holm(same), strict=True
    ):
        verdict = "undecided"
        if p_same_holm < level:
            verdict = "equivalent"
        elif p_holm < level:
            verdict = "higher" if mean.value > 0 else "lower"
        low, high = mean.interval(table.confidence)
        found.append(
            Comparison(
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
                p_holm=p_holm,
                p_signflip=sign_flip(differences[name], blocks[name]),
                margin=margin,
                p_equivalence=p_same,
                p_equivalence_holm=p_same_holm,
                p_not_worse=None if margin is None else mean.p_above(-margin),
                verdict=verdict,
            )
        )
    return found


def claims_of(
    lean: Sequence[PooledIndex], comparisons: Sequence[Comparison], table: StudyTable
) -> tuple[Claim, ...]:
    """Judge the paper's three claims, for the control and the ``green`` init."""
    pooled = {(one.treatment, one.when): one for one in lean if one.network == ALL}
    against = {(one.treatment, one.outcome): one for one in comparisons}
    control = table.control
    before, change = pooled.get((control, "before")), against.get((DEFAULT, "lean"))
    started = f", {_figures(before)} before" if before else ""
    less = f"; the size of the index changes by {_figures(change)} against {control}"
    return (
        _symmetry_claim("persists", control, pooled.get((control, "after")), started),
        _symmetry_claim(
            "restores", DEFAULT, pooled.get((DEFAULT, "after")), less if change else ""
        ),
        _accuracy_claim(against.get((DEFAULT, "dice")), control, 1 - table.confidence),
    )


SYMMETRY = {  # by claim: its verdict and sentence by that of the pooled index
    "persists": {
        "asymmetric": ("yes", "The asymmetry of {} is still there after fine-tuning"),
        "symmetric": ("no", "{} is symmetric after fine-tuning"),
        "undecided": ("undecided", "Whether {} is asymmetric after fine-tuning is not decided"),
    },
    "restores": {
        "symmetric": ("yes", "Uniform initialisation ({}) restores symmetry"),
        "asymmetric": ("no", "{} is asymmetric after training"),
        "undecided": ("undecided", "Whether {} is symmetric after training is not decided"),
    },
}


def _symmetry_claim(claim: str, name: str, after: PooledIndex | None, more: str) -> Claim:
    verdict, sentence = "undecided", f"No cells with {name} are done: nothing is known of it yet."
    if after is not None:
        verdict, words = SYMMETRY[claim][after.verdict]
        index = f"mean mirror index {_figures(after)} after training{more}"
        sentence = f"{words.format(name)}: {index} ({_cells(after)})."
    return Claim(name=claim, verdict=verdict, sentence=sentence)


def _accuracy_claim(change: Comparison | None, control: str, level: float) -> Claim:
    verdict = "undecided"
    sentence = f"No pairs of {DEFAULT} and {control} are done: nothing is known of accuracy yet."
    if change is not None and change.margin is not None:
        near = f"within {change.margin:g} Dice of {control}"
        words = f"Whether {DEFAULT} is {near} is not decided"
        not_worse = change.p_not_worse is not None and change.p_not_worse < level / 2
        if change.verdict == "equivalent":
            verdict, words = "yes", f"Accuracy is kept: {DEFAULT} is {near}"
        elif change.verdict == "higher" or not_worse:
            worse = f"not worse than {control} by {change.margin:g} Dice"
            verdict, words = "yes", f"Accuracy is kept or better: {DEFAULT} is {worse}"
        elif change.verdict == "lower":
            verdict, words = "no", f"{DEFAULT} is less accurate than {control}"
        sentence = f"{words}: Dice differs by {_figures(change)} ({_cells(change)})."
    return Claim(name="keeps accuracy", verdict=verdict, sentence=sentence)


def _figures(found: PooledIndex | Comparison | None) -> str:
    if found is None or found.value is None:
        return "not known"
    if found.low is None or found.high is None:
        return f"{found.value:+.3f} (no interval: too few cells)"
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _cells(found: PooledIndex | Comparison) -> str:
    what = "pairs" if isinstance(found, Comparison) else "cells"
    one = found.datasets == 1
    return f"{found.cells} {what}, {found.datasets} dataset{'' if one else 's'}"


def _mean(rows: Sequence[Row], key: str) -> Mean:
    return blocked_mean([row[key] for row in rows], [row["dataset"] for row in rows])


def _groups(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    names = unique(row[key] for row in rows)
    return {name: [row for row in rows if row[key] == name] for name in names}
