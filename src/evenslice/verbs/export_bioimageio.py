"""A package of bioimage.io: ONNX weights, the steps around them, an example, a cover and a text, tested by bioimageio.core."""

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from evenslice.data.phantom import phantom
from evenslice.errors import BadInputError, one_line
from evenslice.model.export import Trace
from evenslice.model.predict import probabilities_of
from evenslice.model.spec import Model
from evenslice.verbs.export_options import TOLERANCE, Label
from evenslice.volume.normalisation import Normalisation

if TYPE_CHECKING:
    from bioimageio.spec.model import v0_5


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
    return [
        f"{'minus' if n < 0 else 'plus'}_{abs(n)}" if n else "centre"
        for n in range(-half, half + 1)
    ]


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
    lines = [
        f"- {name}: {escape(one_line(str(value)))}"
        for name, value in known.items()
        if value is not None
    ]
    return "\n".join(lines) if lines else "Nothing was recorded."


def _spans(spans: Sequence[Sequence[int]] | None) -> str | None:
    return None if spans is None else ", ".join(f"{low}:{high}" for low, high in spans)


COVER_SIDE = 256
Floats = NDArray[np.float32]


def write_package(
    path: Path,
    weights: Path,
    model: Model,
    trace: Trace,
    about: dict[str, Any],
    opset: int,
    label: Label,
) -> None:
    """Write a package and test it: bioimageio.core must find it valid, and give the probabilities of evenslice for raw slices.

    Parameters
    ----------
    path
        The ``.zip`` to write.
    weights
        The ONNX file, in a folder of its own, where the other parts are written beside it.
    model, trace, about, opset
        The model, what was exported, and what the file says of it.
    label
        Name, authors and licence.

    Raises
    ------
    BadInputError
        If the package is not valid, or predicts something else.
    """
    folder = weights.parent
    _, _, height, width = trace.shapes[0]
    raw = _example(model, (height, width))
    answer = _probabilities(model, raw)
    np.save(folder / "test_input.npy", raw)
    np.save(folder / "test_output.npy", answer)
    _draw_cover(folder / "cover.png", raw, answer)
    (folder / "README.md").write_text(readme(model, about, label), encoding="utf-8")
    with _quietly():
        from bioimageio.spec import save_bioimageio_package

        description = _description(folder, model, trace, about, opset, label)
        save_bioimageio_package(description, output_path=path, local_files_only=True)
        _test(path)
        found = _predicted(path, raw)
    far = float(np.abs(found - answer).max()) if found.shape == answer.shape else float("inf")
    if not far <= TOLERANCE:
        raise BadInputError(
            f"bioimageio.core predicts probabilities {far:.2g} away from those of evenslice, expected at most {TOLERANCE:g}; nothing was "
            "written; use --format onnx, and report it"
        )


def _example(model: Model, size: tuple[int, int]) -> Floats:
    """Make raw slices (1, S, y, x) of the phantom with the mean and std that the model expects, in whole grey values."""
    norm = model.normalisation
    assert norm is not None
    made = (
        phantom((model.slices, max(size[0], 32), max(size[1], 32)))
        .raw[:, : size[0], : size[1]]
        .astype(np.float64)
    )
    scaled = (made - made.mean()) / made.std() * norm.std[0] + norm.mean[0]
    whole = (
        scaled if norm.std[0] < 8 else scaled.round()
    )  # grey values of 0..1 have no whole numbers to show
    return np.asarray(whole[None], np.float32)


def _probabilities(model: Model, raw: Floats) -> Floats:
    assert model.normalisation is not None
    with torch.inference_mode():
        return np.asarray(
            probabilities_of(model.module(torch.from_numpy(model.normalisation.apply(raw)))).numpy()
        )


def _draw_cover(path: Path, raw: Floats, answer: Floats) -> None:
    """Draw the centre slice beside the most probable foreground, twice as wide as high."""
    from PIL import Image

    slice_ = raw[0, raw.shape[1] // 2]
    grey = (slice_ - slice_.min()) / max(float(np.ptp(slice_)), 1e-12)
    shown = answer[0, 0] if answer.shape[1] == 1 else 1 - answer[0, 0]
    pair = [
        Image.fromarray(np.uint8(255 * np.clip(part, 0, 1))).resize((COVER_SIDE, COVER_SIDE))
        for part in (grey, shown)
    ]
    cover = Image.new("L", (2 * COVER_SIDE, COVER_SIDE))
    for turn, part in enumerate(pair):
        cover.paste(part, (turn * COVER_SIDE, 0))
    cover.save(path)


def _description(
    folder: Path, model: Model, trace: Trace, about: dict[str, Any], opset: int, label: Label
) -> "v0_5.ModelDescr":
    from bioimageio.spec.model import v0_5 as spec

    def file(name: str) -> Any:
        return spec.FileDescr(source=folder / name)

    facts: dict[str, Any] = {
        "name": _allowed(label.name),
        "description": f"2D+ segmentation of electron microscopy from {model.slices} consecutive slices, exported by evenslice.",
        "authors": [spec.Author(name=name) for name in label.authors],
        "license": label.license,
        "cite": [spec.CiteEntry(text=PAPER, doi=spec.Doi(PAPER_DOI))],
        "documentation": file("README.md"),
        "covers": [file("cover.png")],
        "tags": [
            "2.5D",
            "2d-plus",
            "electron-microscopy",
            "segmentation",
            "semantic-segmentation",
            "evenslice",
        ],
        "inputs": [_input(model, trace, file("test_input.npy"))],
        "outputs": [_output(model, trace, file("test_output.npy"))],
        "weights": spec.WeightsDescr(
            onnx=spec.OnnxWeightsDescr(
                source=folder / "weights.onnx",
                opset_version=opset,
                comment=f"Exported by evenslice {about['export']['evenslice']} from torch {about['export']['torch']}.",
            )
        ),
        "config": spec.Config(evenslice=about),  # type: ignore[call-arg]
    }
    try:
        return spec.ModelDescr(**facts)
    except ValueError as error:  # of pydantic, one paragraph for each field
        if "license" in str(error):
            raise BadInputError(
                f"--license is {label.license!r}, expected an SPDX identifier such as BSD-3-Clause or CC-BY-4.0; see spdx.org/licenses"
            ) from error
        raise BadInputError(
            f"bioimageio.spec refuses the description ({' '.join(str(error).split())[:300]}), expected a valid one; report it"
        ) from error


def _allowed(name: str) -> str:
    """Return a name of letters, digits, spaces, _ and -, of 5 to 64 characters, as the format wants it."""
    plain = re.sub(r"[^A-Za-z0-9_ -]", "-", name)[:64].strip()
    return plain if len(plain) >= 5 else f"evenslice {plain}".strip()


def _input(model: Model, trace: Trace, test: Any) -> "v0_5.InputTensorDescr":
    from bioimageio.spec.model import v0_5 as spec

    assert model.normalisation is not None
    sides = [
        _side(trace, axis, length) for axis, length in zip("yx", trace.shapes[0][2:], strict=True)
    ]
    return spec.InputTensorDescr(
        id=spec.TensorId("slices"),
        description="raw grey values of consecutive slices, in the order of the stack",
        axes=[
            _batch(trace),
            spec.ChannelAxis(
                channel_names=slot_names(model.slices),
                description="the slices of the window, lowest z first",
            ),
            *(
                spec.SpaceInputAxis(id=spec.AxisId(axis), size=side, **_pixel(model, axis))
                for axis, side in zip("yx", sides, strict=True)
            ),
        ],
        data=spec.IntervalOrRatioDataDescr(type="float32"),
        test_tensor=test,
        preprocessing=[_normalising(model.normalisation)],
    )


def _normalising(norm: Normalisation) -> Any:
    from bioimageio.spec.model import v0_5 as spec

    if norm.uniform:
        one = spec.FixedZeroMeanUnitVarianceKwargs(mean=norm.mean[0], std=norm.std[0])
        return spec.FixedZeroMeanUnitVarianceDescr(kwargs=one)
    each = spec.FixedZeroMeanUnitVarianceAlongAxisKwargs(
        mean=list(norm.mean), std=list(norm.std), axis=spec.AxisId("channel")
    )
    return spec.FixedZeroMeanUnitVarianceDescr(kwargs=each)


def _output(model: Model, trace: Trace, test: Any) -> "v0_5.OutputTensorDescr":
    from bioimageio.spec.model import v0_5 as spec

    classes = model.spec.classes
    last = (
        spec.SigmoidDescr()
        if classes == 1
        else spec.SoftmaxDescr(kwargs=spec.SoftmaxKwargs(axis=spec.AxisId("channel")))
    )
    names = (
        ["foreground"]
        if classes == 1
        else ["background", *(f"class_{n}" for n in range(1, classes))]
    )
    return spec.OutputTensorDescr(
        id=spec.TensorId("probabilities"),
        description="probabilities for the centre slice",
        axes=[
            _batch(trace),
            spec.ChannelAxis(channel_names=names),
            *(
                spec.SpaceOutputAxis(
                    id=spec.AxisId(axis),
                    size=spec.SizeReference(
                        tensor_id=spec.TensorId("slices"), axis_id=spec.AxisId(axis)
                    ),
                    **_pixel(model, axis),
                )
                for axis in "yx"
            ),
        ],
        data=spec.IntervalOrRatioDataDescr(type="float32", range=(0.0, 1.0)),
        test_tensor=test,
        postprocessing=[last],
    )


def _batch(trace: Trace) -> Any:
    from bioimageio.spec.model import v0_5 as spec

    return spec.BatchAxis() if "batch" in trace.dynamic else spec.BatchAxis(size=1)


def _side(trace: Trace, axis: str, length: int) -> Any:
    from bioimageio.spec.model import v0_5 as spec

    if axis not in trace.dynamic:
        return length
    return spec.ParameterizedSize(min=min(shape[2] for shape in trace.shapes), step=trace.step)


def _pixel(model: Model, axis: str) -> dict[str, Any]:
    """Return the size of a pixel, where the model says on what it was trained."""
    voxel = model.training.get("voxel_nm")
    return {} if voxel is None else {"scale": float(voxel["zyx".index(axis)]), "unit": "nanometer"}


def _test(path: Path) -> None:
    """Raise ``BadInputError`` unless bioimageio.core finds the package valid and its example answered as it says."""
    from bioimageio.core import test_description

    summary = test_description(path, expected_type="model")
    if summary.status != "passed":
        errors = [entry.msg for detail in summary.details for entry in detail.errors]
        raise BadInputError(
            f"bioimageio.core finds the package {summary.status} ({' '.join('; '.join(errors).split())[:300]}), expected passed; nothing was "
            "written; report it"
        )


def _predicted(path: Path, raw: Floats) -> Floats:
    from bioimageio.core import predict

    found = predict(model=path, inputs={"slices": raw})
    return np.asarray(
        next(iter(found.members.values())).data.transpose("batch", "channel", "y", "x"), np.float32
    )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep what bioimageio logs and warns of to itself: what matters is raised or checked."""
    from loguru import logger

    try:
        for name in ("bioimageio.spec", "bioimageio.core"):
            logger.disable(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in ("bioimageio.spec", "bioimageio.core"):
            logger.enable(name)
