"""A study in words: its claims as answers that need no statistics, verdicts as badges, numbers with their signs."""

from collections.abc import Mapping
from typing import Any

from evenslice.report.study_cells import ALL, Row, slices_of
from evenslice.report.verdict import DASH, Badge, fixed, is_number

QUESTIONS = {
    "persists": "Does the lean persist after fine-tuning?",
    "restores": "Does uniform initialisation restore symmetry?",
    "keeps accuracy": "Is accuracy kept?",
}
ANSWERS = {
    "persists": {
        "yes": "Yes: after training, networks that start as pretrained ({control}) still trust one neighbour slice more than the other.",
        "no": "No: after training, networks that start as pretrained ({control}) use both neighbour slices alike.",
        "undecided": "Undecided: these cells do not tell whether networks that start as pretrained ({control}) lean after training.",
    },
    "restores": {
        "yes": "Yes: networks that start with equal channels use the previous and the next slice alike after training.",
        "no": "No: networks that start with equal channels trust one neighbour slice more than the other after training.",
        "undecided": "Undecided: these cells do not tell whether networks that start with equal channels are even after training.",
    },
    "keeps accuracy": {
        "yes": "Yes: starting with equal channels segments no worse than starting as pretrained ({control}), within the margin.",
        "no": "No: starting with equal channels segments worse than starting as pretrained ({control}).",
        "undecided": "Undecided: these cells do not tell whether starting with equal channels costs accuracy.",
    },
}
SIGNS = {"yes": Badge("✓", "yes", "symmetric"), "no": Badge("✗", "no", "asymmetric")}
OUTCOMES = {
    "lean": ("Size of the lean after training", "|mirror index|", "leans less", "leans more"),
    "dice": ("Dice", "Dice", "less accurate", "more accurate"),
    "iou": ("IoU", "IoU", "less accurate", "more accurate"),
}


def question(claim: Row) -> str:
    """Return the question that a claim answers."""
    name = str(claim.get("name"))
    return QUESTIONS.get(name, name)


def answer(claim: Row, control: str) -> str:
    """Answer a claim's question in one sentence without numbers, the verdict first; empty for a claim that is not known."""
    words = ANSWERS.get(str(claim.get("name")), {}).get(str(claim.get("verdict")), "")
    return words.replace("{control}", control)


def sign(claim: Row) -> Badge:
    """Return the badge of a claim."""
    return SIGNS.get(str(claim.get("verdict")), Badge("?", "undecided", "inconclusive"))


def lean_badge(found: Row | None) -> Badge:
    """Return the badge of a pooled lean."""
    kind = "" if found is None else str(found.get("verdict"))
    if found is None or kind not in ("leans", "even"):
        return (
            Badge("?", "undecided", "inconclusive")
            if kind == "undecided"
            else Badge(DASH, "no cells", "none")
        )
    if kind == "even":
        return Badge("=", "even", "symmetric")
    value = found.get("value")
    return Badge("→" if is_number(value) and value > 0 else "←", "leans", "asymmetric")


def cell_badge(row: Row, margin: Any, end: str = "") -> Badge:
    """Return the badge of one cell's audit, ``end`` being ``_before`` for that before training."""
    if row.get("failure"):
        return Badge("✗", "failed", "none")
    kind = str(row.get(f"verdict{end}") or "none").split(":")[0]
    if kind != "asymmetric":
        known = {
            "symmetric": ("=", "even"),
            "inconclusive": ("?", "inconclusive"),
            "abstained": (DASH, "abstained"),
        }
        symbol, word = known.get(kind, (DASH, "no verdict"))
        return Badge(symbol, word, kind if kind in known else "none")
    low, high = row.get(f"mirror_low{end}"), row.get(f"mirror_high{end}")
    before, after = (
        ("previous", "next") if slices_of(row) == 3 else ("earlier slices", "later slices")
    )
    if is_number(margin) and is_number(low) and low > margin:
        return Badge("→", f"leans to {after}", kind)
    if is_number(margin) and is_number(high) and high < -margin:
        return Badge("←", f"leans to {before}", kind)
    return Badge("≠", "leans", kind)


def comparison_badge(found: Row) -> Badge:
    """Return the badge of a comparison; less lean and more accuracy are good."""
    kind, outcome = str(found.get("verdict")), str(found.get("outcome"))
    _, _, lower, higher = OUTCOMES.get(outcome, ("", "", "lower", "higher"))
    if kind in ("lower", "higher"):
        good = (kind == "lower") == (outcome == "lean")
        word = lower if kind == "lower" else higher
        return Badge("↓" if kind == "lower" else "↑", word, "symmetric" if good else "asymmetric")
    if kind == "equivalent":
        return Badge("=", f"equivalent, within {found.get('margin')}", "symmetric")
    return Badge("?", "undecided", "inconclusive")


def named(found: Row) -> str:
    """Name a lean or a comparison by its treatment, and its network unless that is all of them."""
    network = found.get("network")
    return str(found.get("treatment")) + (f", {network}" if network not in (None, ALL) else "")


def signed(value: Any) -> str:
    """Write an index or a difference with three decimals and its sign; an en dash when there is none."""
    text = fixed(value)
    return f"+{text}" if is_number(value) and float(text) > 0 else text


def signed_interval(low: Any, high: Any) -> str:
    """Write an interval of indices or differences; words when there is none."""
    return (
        f"{signed(low)} to {signed(high)}" if is_number(low) and is_number(high) else "no interval"
    )


def p_words(value: Any) -> str:
    """Write a p value."""
    if not is_number(value):
        return DASH
    return "<\u00a00.001" if value < 0.001 else f"{value:.3f}"


def spread(values: list[Any]) -> str:
    """Write the lowest and the highest of several scores; one when they agree."""
    numbers = [value for value in values if is_number(value)]
    if not numbers:
        return DASH
    low, high = fixed(min(numbers)), fixed(max(numbers))
    return low if low == high else f"{low} to {high}"


def progress(study: Mapping[str, Any]) -> str:
    """Say what is not finished, and what failed; empty when all cells were measured."""
    cells, done, failed = (int(study.get(key) or 0) for key in ("cells", "done", "failed"))
    told = []
    if cells > done:
        told.append(
            f"This study is not finished: {done} of {cells} cells are done, {cells - done} pending. "
            "All that follows is about the cells that are done, and may change."
        )
    if failed:
        told.append(f"{failed} of {done} cells that were run failed; nothing below counts them.")
    return " ".join(told)
