"""The text that goes with a package: what the slices are, what normalises them, and what is known of its evenness."""

from collections.abc import Sequence
from html import escape
from typing import Any

from evenslice.model.spec import Model
from evenslice.printable import one_line
from evenslice.verbs.export_options import Label

PAPER = (
    "Molnár, Szabó, Horváth: Mitigating Pretraining-Induced Attention Asymmetry in 2D+ Electron Microscopy Image "
    "Segmentation. arXiv:2505.14105 (2025)"
)
PAPER_DOI = "10.48550/arXiv.2505.14105"


def slot_names(slices: int) -> list[str]:
    """Name the slots of a window: previous, centre, next, or minus_2 to plus_2 around the centre."""
    if slices == 3:
        return ["previous", "centre", "next"]
    half = (slices - 1) // 2
    return [f"{'minus' if n < 0 else 'plus'}_{abs(n)}" if n else "centre" for n in range(-half, half + 1)]


def readme(model: Model, about: dict[str, Any], label: Label) -> str:
    """Write the README of a package, in Markdown."""
    parts = [
        f"# {label.name}",
        f"A 2D+ (2.5D) network that segments the centre slice of {model.slices} consecutive slices of a volume.",
        "## Input and output",
        _slices(model),
        _normalisation(model),
        _answer(model),
        "## Evenness",
        _evenness(about),
        "## Training",
        _training(model),
        "## Validation",
        "Compare its segmentation of slices it was not trained on with their truth, and measure whether it looks at the slices "
        "before and after the centre alike:\n\n```\nunzip PACKAGE.zip weights.onnx\nevenslice audit weights.onnx VOLUME\n```",
        "## Citation",
        f"{PAPER}. And evenslice {about['export']['evenslice']}, which exported this package.",
    ]
    return "\n\n".join(parts) + "\n"


def _slices(model: Model) -> str:
    names = ", ".join(slot_names(model.slices))
    return (
        f"The channels of the input are slices of the volume in the order of z, lowest first: {names}. At the first and last slices "
        "reflect the volume in z, so that the slice before the first is the second."
    )


def _normalisation(model: Model) -> str:
    norm = model.normalisation
    assert norm is not None
    if norm.uniform:
        how = f"by one mean, {norm.mean[0]:g}, and one standard deviation, {norm.std[0]:g}, for all slices"
    else:
        how = f"slice by slice by the means {list(norm.mean)} and standard deviations {list(norm.std)}"
    return (
        f"Give raw grey values. The package normalises them {how}. The weights alone (`weights.onnx`) take normalised "
        "slices and answer with logits."
    )


def _answer(model: Model) -> str:
    if model.spec.classes == 1:
        return "The output is the probability of the foreground for each pixel of the centre slice."
    return f"The output is the probability of each of {model.spec.classes} classes, the first being the background, for each pixel of the centre slice."


def _evenness(about: dict[str, Any]) -> str:
    found, stem = about["certificate"], about["stem"]
    limit = found["tolerance"]["float32"]
    verdict = "it is even" if found["symmetric"] else "it is not even"
    text = (
        f"Certificate: given the slices in opposite order, the output changes by at most {found['float32']:.2g} of its largest logit on "
        f"{found['random_windows']} windows of noise (tolerance {limit:g}): {verdict}. Initialisation of the stem: {stem['init']}; "
        f"tie: {stem['tie']}."
    )
    if about["export"]["tta_in_graph"] == "reversal":
        text += " The network answers as the mean over each window and its reversal; that mean is in the graph."
    return text


def _training(model: Model) -> str:
    facts, scores = model.training, model.scores.get("validation") or {}
    known = {
        "volume": facts.get("volume"),
        "slices trained on": _spans(facts.get("slices")),
        "slices held out": _spans(facts.get("validation")),
        "voxel size in nm (z, y, x)": facts.get("voxel_nm"),
        "Dice on the slices held out": scores.get("dice"),
        "IoU on the slices held out": scores.get("iou"),
    }
    lines = [f"- {name}: {escape(one_line(str(value)))}" for name, value in known.items() if value is not None]
    return "\n".join(lines) if lines else "Nothing was recorded."


def _spans(spans: Sequence[Sequence[int]] | None) -> str | None:
    return None if spans is None else ", ".join(f"{low}:{high}" for low, high in spans)
