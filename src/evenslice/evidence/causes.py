"""Which causes of an asymmetry a model file leaves possible: its weights before training, its data.

One trained model cannot tell the two apart: no more is said than was recorded when it was trained.
"""

from evenslice.options import JsonObject

SAME = 1e-6  # kernels of mirrored slots that are apart by less are equal
BOTH = (
    "One model does not tell them apart: train a second with the same seed and --z-order reversed; "
    "half of the difference of the two indices comes from the data, half of their sum does not."
)


def causes_of(training: JsonObject, verdict: str) -> JsonObject | None:
    """Return what a training record says of the causes; None without one, or no asymmetry.

    ``before_training``: whether the stem was asymmetric before training, None if not recorded;
    ``kernels``: how far mirrored kernels were apart at most; ``labels``: verdicts on the labels of
    each volume (``label_asymmetry``); ``text``: the same in sentences.
    """
    if verdict != "asymmetric" or not training:
        return None
    stems = training.get("stem_before") or []
    known = None not in stems
    apart = [value for one in stems for value in one["kernels"]] if known else []
    before = None if not apart else max(apart) > SAME
    fits = [one.get("label_asymmetry") for one in training.get("volumes", [training])]
    labels = [one["verdict"] for one in fits if one]
    lagging = [one["text"] for one in fits if one and one["verdict"].startswith("asymmetric")]
    most = max(apart, default=0.0)
    words = {
        True: f"Present before training: mirrored kernels of the stem were {most:.2f} apart.",
        False: "Not present before training: the stem was symmetric, so it was learned.",
        None: "Whether it was present before training is not recorded.",
    }
    text = [words[before]]
    if lagging:
        text += ["Taught by the data, possibly:", *lagging]
    elif labels and set(labels) == {"symmetric"}:
        text.append("The labels trained on fit both neighbours alike; the images may still not.")
    elif labels:
        text.append("Whether the labels trained on fit one neighbour better is not decided.")
    else:
        text.append("How the labels trained on fit the neighbours is not recorded.")
    text.append(
        "Other seeds tell what the data taught from the chance of one training."
        if before is False
        else BOTH
    )
    return {
        "before_training": before,
        "kernels": max(apart, default=None),
        "labels": labels,
        "text": " ".join(text),
    }
