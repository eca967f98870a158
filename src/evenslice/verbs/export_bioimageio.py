"""A package of bioimage.io: ONNX weights and the steps around them, tested by bioimageio.core."""

import re
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bioimageio.core import predict, test_description
from bioimageio.spec import save_bioimageio_package
from bioimageio.spec.model import v0_5 as spec
from jinja2 import Template
from numpy.typing import NDArray
from PIL import Image

from evenslice.data.phantom import phantom
from evenslice.errors import BadInputError, one_line
from evenslice.model.export import Trace
from evenslice.model.predict import probabilities_of
from evenslice.model.spec import Model
from evenslice.options import ExportOptions, JsonObject
from evenslice.volume.normalisation import Normalisation

PAPER = (
    "Molnár, Szabó, Horváth: Mitigating Pretraining-Induced Attention Asymmetry in 2D+ Electron "
    "Microscopy Image Segmentation. arXiv:2505.14105 (2025)"
)
PAPER_DOI = "10.48550/arXiv.2505.14105"
TAGS = ["2.5D", "2d-plus", "electron-microscopy", "segmentation", "semantic-segmentation"]
TOLERANCE = 1e-4
COVER_SIDE = 256
SMALLEST_PHANTOM = 32
Floats = NDArray[np.float32]


def write_package(
    path: Path,
    weights: Path,
    model: Model,
    trace: Trace,
    metadata: JsonObject,
    name: str,
    options: ExportOptions,
) -> None:
    """Write a package with the ONNX file ``weights``, beside which its other parts are made.

    Raises ``BadInputError`` unless bioimageio.core finds it valid, and gives the probabilities of
    evenslice for raw slices.
    """
    folder, (_, _, height, width) = weights.parent, trace.shapes[0]
    raw = _example(model, height, width)
    answer = _probabilities(model, raw)
    np.save(folder / "test_input.npy", raw)
    np.save(folder / "test_output.npy", answer)
    _draw_cover(folder / "cover.png", raw, answer)
    (folder / "README.md").write_text(_readme(model, metadata, name), encoding="utf-8")
    description = _description(folder, model, trace, metadata, name, options)
    save_bioimageio_package(description, output_path=path, local_files_only=True)
    _check_valid(path)
    tensor = next(iter(predict(model=path, inputs={"slices": raw}).members.values()))
    found = np.asarray(tensor.data.transpose("batch", "channel", "y", "x"), np.float32)
    far = float(np.abs(found - answer).max()) if found.shape == answer.shape else float("inf")
    if not far <= TOLERANCE:
        raise BadInputError(
            f"bioimageio.core predicts probabilities {far:.2g} away from those of evenslice, "
            f"expected at most {TOLERANCE:g}; nothing was written; use --format onnx, and report it"
        )


def _slot_names(slices: int) -> list[str]:
    """Name the slots: previous, centre, next, or minus_2 to plus_2 around the centre."""
    if slices == 3:
        return ["previous", "centre", "next"]
    half = (slices - 1) // 2
    names = {n: f"{'minus' if n < 0 else 'plus'}_{abs(n)}" for n in range(-half, half + 1)}
    return list((names | {0: "centre"}).values())


def _readme(model: Model, metadata: JsonObject, name: str) -> str:
    """Write the README of a package, in Markdown."""
    training, scores = model.training, model.scores.get("validation") or {}

    def spans(key: str) -> str | None:
        found = training.get(key)
        return None if found is None else ", ".join(f"{low}:{high}" for low, high in found)

    known = {
        "volume": training.get("volume"),
        "slices trained on": spans("slices"),
        "slices held out": spans("validation"),
        "voxel size in nm (z, y, x)": training.get("voxel_nm"),
        "Dice on the slices held out": scores.get("dice"),
        "IoU on the slices held out": scores.get("iou"),
    }
    lines = {key: v if v is None else escape(one_line(str(v))) for key, v in known.items()}
    template = Template(Path(__file__).with_name("bioimageio_readme.md").read_text("utf-8"))
    text: str = template.render(
        metadata,
        name=name,
        model=model,
        norm=model.normalisation,
        slots=_slot_names(model.slices),
        training=lines,
        paper=PAPER,
    )
    return text


def _example(model: Model, height: int, width: int) -> Floats:
    """Make raw slices (1, S, y, x) of the phantom with the mean and std that the model expects."""
    norm = model.normalisation
    assert norm is not None
    sides = max(height, SMALLEST_PHANTOM), max(width, SMALLEST_PHANTOM)
    grey = phantom((model.slices, *sides)).raw[:, :height, :width].astype(np.float64)
    scaled = (grey - grey.mean()) / grey.std() * norm.std[0] + norm.mean[0]
    # grey values of 0..1 have no whole numbers to show
    return np.asarray((scaled if norm.std[0] < 8 else scaled.round())[None], np.float32)


def _probabilities(model: Model, raw: Floats) -> Floats:
    assert model.normalisation is not None
    with torch.inference_mode():
        logits = model.module(torch.from_numpy(model.normalisation.apply(raw)))
        return np.asarray(probabilities_of(logits).numpy())


def _draw_cover(path: Path, raw: Floats, answer: Floats) -> None:
    """Draw the centre slice beside the most probable foreground, twice as wide as high."""
    centre = raw[0, raw.shape[1] // 2]
    grey = (centre - centre.min()) / max(float(np.ptp(centre)), 1e-12)
    foreground = answer[0, 0] if answer.shape[1] == 1 else 1 - answer[0, 0]
    cover = Image.new("L", (2 * COVER_SIDE, COVER_SIDE))
    for turn, part in enumerate((grey, foreground)):
        picture = Image.fromarray(np.uint8(255 * np.clip(part, 0, 1)))
        cover.paste(picture.resize((COVER_SIDE, COVER_SIDE)), (turn * COVER_SIDE, 0))
    cover.save(path)


def _description(
    folder: Path,
    model: Model,
    trace: Trace,
    metadata: JsonObject,
    name: str,
    options: ExportOptions,
) -> spec.ModelDescr:
    exported = metadata["export"]
    weights = spec.OnnxWeightsDescr(
        source=folder / "weights.onnx",
        opset_version=exported["opset"],
        comment=f"Exported by evenslice {exported['evenslice']} from torch {exported['torch']}.",
    )
    plain = re.sub(r"[^A-Za-z0-9_ -]", "-", name)[:64].strip()
    licence: Any = options.license
    try:
        return spec.ModelDescr(
            name=plain if len(plain) >= 5 else f"evenslice {plain}".strip(),
            description="2D+ segmentation of electron microscopy from "
            f"{model.slices} consecutive slices, exported by evenslice.",
            authors=[spec.Author(name=author) for author in options.authors],
            license=licence,
            cite=[spec.CiteEntry(text=PAPER, doi=spec.Doi(PAPER_DOI))],
            documentation=spec.FileDescr(source=folder / "README.md"),
            covers=[spec.FileDescr(source=folder / "cover.png")],
            tags=[*TAGS, "evenslice"],
            inputs=[_input(model, trace, folder / "test_input.npy")],
            outputs=[_output(model, trace, folder / "test_output.npy")],
            weights=spec.WeightsDescr(onnx=weights),
            config=spec.Config(evenslice=metadata),  # type: ignore[call-arg]
        )
    except ValueError as error:  # of pydantic, one paragraph for each field
        if "license" in str(error):
            raise BadInputError(
                f"--license is {options.license!r}, expected an SPDX identifier such as "
                "BSD-3-Clause or CC-BY-4.0; see spdx.org/licenses"
            ) from error
        raise BadInputError(
            f"bioimageio.spec refuses the description ({' '.join(str(error).split())[:300]}), "
            "expected a valid one; report it"
        ) from error


def _input(model: Model, trace: Trace, test: Path) -> spec.InputTensorDescr:
    assert model.normalisation is not None
    smallest = min(shape[2] for shape in trace.shapes)
    sizes = [
        spec.ParameterizedSize(min=smallest, step=trace.step) if axis in trace.dynamic else length
        for axis, length in zip("yx", trace.shapes[0][2:], strict=True)
    ]
    plane = [
        spec.SpaceInputAxis(id=spec.AxisId(axis), size=size, **_pixel(model, axis))
        for axis, size in zip("yx", sizes, strict=True)
    ]
    channels = spec.ChannelAxis(
        channel_names=_slot_names(model.slices),
        description="the slices of the window, lowest z first",
    )
    return spec.InputTensorDescr(
        id=spec.TensorId("slices"),
        description="raw grey values of consecutive slices, in the order of the stack",
        axes=[_batch(trace), channels, *plane],
        data=spec.IntervalOrRatioDataDescr(type="float32"),
        test_tensor=spec.FileDescr(source=test),
        preprocessing=[_normalising(model.normalisation)],
    )


def _normalising(norm: Normalisation) -> spec.FixedZeroMeanUnitVarianceDescr:
    if norm.uniform:
        one = spec.FixedZeroMeanUnitVarianceKwargs(mean=norm.mean[0], std=norm.std[0])
        return spec.FixedZeroMeanUnitVarianceDescr(kwargs=one)
    each = spec.FixedZeroMeanUnitVarianceAlongAxisKwargs(
        mean=list(norm.mean), std=list(norm.std), axis=spec.AxisId("channel")
    )
    return spec.FixedZeroMeanUnitVarianceDescr(kwargs=each)


def _output(model: Model, trace: Trace, test: Path) -> spec.OutputTensorDescr:
    last: Any = spec.SigmoidDescr()
    names = ["foreground"]
    if model.spec.classes > 1:
        last = spec.SoftmaxDescr(kwargs=spec.SoftmaxKwargs(axis=spec.AxisId("channel")))
        names = ["background", *(f"class_{n}" for n in range(1, model.spec.classes))]
    slices = spec.TensorId("slices")
    plane = [
        spec.SpaceOutputAxis(
            id=spec.AxisId(axis),
            size=spec.SizeReference(tensor_id=slices, axis_id=spec.AxisId(axis)),
            **_pixel(model, axis),
        )
        for axis in "yx"
    ]
    return spec.OutputTensorDescr(
        id=spec.TensorId("probabilities"),
        description="probabilities for the centre slice",
        axes=[_batch(trace), spec.ChannelAxis(channel_names=names), *plane],
        data=spec.IntervalOrRatioDataDescr(type="float32", range=(0.0, 1.0)),
        test_tensor=spec.FileDescr(source=test),
        postprocessing=[last],
    )


def _batch(trace: Trace) -> spec.BatchAxis:
    return spec.BatchAxis() if "batch" in trace.dynamic else spec.BatchAxis(size=1)


def _pixel(model: Model, axis: str) -> JsonObject:
    """Return the size of a pixel, where the model says on what it was trained."""
    voxel = model.training.get("voxel_nm")
    return {} if voxel is None else {"scale": float(voxel["zyx".index(axis)]), "unit": "nanometer"}


def _check_valid(path: Path) -> None:
    """Raise ``BadInputError`` unless the package is valid and its example answered as it says."""
    summary = test_description(path, expected_type="model")
    if summary.status != "passed":
        errors = [entry.msg for detail in summary.details for entry in detail.errors]
        raise BadInputError(
            f"bioimageio.core finds the package {summary.status} "
            f"({' '.join('; '.join(errors).split())[:300]}), expected passed; nothing was written; "
            "report it"
        )
