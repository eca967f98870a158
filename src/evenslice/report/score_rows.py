"""Scores as rows of words, for the terminal and for a notebook."""

from evenslice.labels.metrics import Scores

OBJECT_SCORES = {
    "adapted_rand_error": "adapted Rand error",
    "adapted_rand_precision": "  precision (low: merges)",
    "adapted_rand_recall": "  recall (low: splits)",
    "voi_split": "VOI split, H(prediction | truth), bits",
    "voi_merge": "VOI merge, H(truth | prediction), bits",
    "panoptic_quality": "panoptic quality",
    "dice": "Dice of the foreground",
    "iou": "IoU of the foreground",
}
SHOWN_LEVELS = ("0.50", "0.75", "0.90")
Rows = list[tuple[str, ...]]


def score_rows(scores: Scores) -> tuple[tuple[str, ...], Rows]:
    """Return the head and the rows of a table: a row a class, or for objects a row a score."""
    return _classes(scores) if scores.matching is None else _objects(scores)


def _classes(scores: Scores) -> tuple[tuple[str, ...], Rows]:
    found = scores.boundary
    outlines = () if found is None else (f"boundary F ({found.tolerance:g} px)",)
    rows = []
    for label, values in scores.per_class.items():
        outline = () if found is None else (number(found.per_class.get(label)),)
        rows.append((str(label), number(values["dice"]), number(values["iou"]), *outline))
    if len(scores.per_class) != 1:
        outline = () if found is None else (number(found.mean),)
        rows.append(("mean", number(scores.dice), number(scores.iou), *outline))
    return ("class", "Dice", "IoU", *outlines), rows


def _objects(scores: Scores) -> tuple[tuple[str, ...], Rows]:
    found = scores.to_dict()
    rows: Rows = [(name, number(found[key])) for key, name in OBJECT_SCORES.items()]
    for level, matched in found["matching"].items():
        if level in SHOWN_LEVELS:
            rows.append((f"F1 of objects, IoU above {level}", number(matched["f1"])))
    objects = found["objects"]
    rows.append(("objects (truth, prediction)", f"{objects['truth']}, {objects['prediction']}"))
    return ("score", ""), rows


def number(value: float | None) -> str:
    """Write a score with three decimals; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"
