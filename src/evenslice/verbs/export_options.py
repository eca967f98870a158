"""Whether an exported network answers like torch: both run on the same windows of noise, each in its own runtime."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evenslice.errors import BadInputError
from evenslice.model.export import ANSWER, IMAGE, OPSETS, example
from evenslice.model.external import form_of
from evenslice.model.spec import Model
from evenslice.options import Format

ENDINGS: dict[Format, str] = {"onnx": ".onnx", "torch-export": ".pt2", "bioimageio": ".zip"}
ONNX = ("onnx", "onnxruntime", "onnxscript")
NEEDED: dict[Format, tuple[str, ...]] = {
    "onnx": ONNX,
    "torch-export": (),
    "bioimageio": (*ONNX, "bioimageio.core"),
}


@dataclass(frozen=True)
class Label:
    """What a package of bioimage.io is called, by whom it is, and its licence (an SPDX identifier)."""

    name: str
    authors: tuple[str, ...] = ()
    license: str | None = None


def format_of(model: Model | str | Path, out: Path, format: Format | None) -> Format:
    """Choose the format by name or by the ending of the file to write; refuse what is exported already.

    Raises
    ------
    BadInputError
        If they do not fit, or the model is an ONNX file.
    """
    if not isinstance(model, Model) and form_of(model) == "onnx":
        raise BadInputError(
            f"{model} is an ONNX model already, expected a .safetensors of evenslice, package.module:callable or .pt2; export the "
            "model that it was made from"
        )
    if format is not None and format not in ENDINGS:
        raise BadInputError(
            f"the format {format!r} is unknown, expected one of {', '.join(ENDINGS)}; choose one"
        )
    ending = out.suffix
    chosen = format or next((name for name, end in ENDINGS.items() if end == ending), None)
    if chosen is None:
        raise BadInputError(
            f"{out} has the ending {ending or '(none)'!r}, expected {', '.join(ENDINGS.values())}; rename it"
        )
    if ending != ENDINGS[chosen]:
        raise BadInputError(
            f"{out} has the ending {ending or '(none)'!r}, expected {ENDINGS[chosen]} for {chosen}; rename it"
        )
    return chosen


def check_options(
    format: Format, opset: int | None, tile: int, authors: Sequence[str], license: str | None
) -> None:
    """Raise ``BadInputError`` unless options are usable and fit the format."""
    low, high = OPSETS
    if opset is not None and format == "torch-export":
        raise BadInputError(
            f"--opset {opset} was given for {format}, expected it for onnx; leave it out"
        )
    if opset is not None and not low <= opset <= high:
        raise BadInputError(
            f"--opset is {opset}, expected {low} to {high}; leave it out for the default"
        )
    if tile < 1:
        raise BadInputError(
            f"--tile is {tile}, expected a size in pixels; leave it out for the default"
        )
    if (authors or license is not None) and format != "bioimageio":
        raise BadInputError(
            f"--author or --license was given for {format}, expected them for bioimageio; leave them out"
        )
    if any(not name.strip() or "/" in name or "\\" in name for name in authors):
        raise BadInputError(
            f"--author is {', '.join(map(repr, authors))}, expected names without slashes; write them so"
        )


def check_installed(format: Format) -> None:
    """Raise ``BadInputError`` unless the packages that a format needs are installed."""
    for name in NEEDED[format]:
        if not _is_there(name):
            extra = "onnx" if format == "onnx" else "bioimageio"
            raise BadInputError(
                f"{name} is not installed, expected it for --format {format}; pip install evenslice[{extra}]"
            )


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


TOLERANCE = 1e-4
Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def difference(module: nn.Module, run: Run, shapes: Sequence[tuple[int, ...]], seed: int) -> float:
    """Return the largest difference of logits, relative to the largest logit that torch gives for the same windows.

    Parameters
    ----------
    module
        The original, in eval mode.
    run
        The exported network.
    shapes
        Shapes (B, S, y, x) of normalised windows.
    seed
        Of the noise of mean 0 and std 1.

    Returns
    -------
    float
        max |exported - torch| / max |torch|, the largest over the shapes; infinite where the exported network fails, or
        answers in another shape or with anything but numbers.
    """
    worst = 0.0
    for turn, shape in enumerate(shapes):
        x = example(shape, seed + turn)
        with torch.inference_mode():
            expected = module(x).numpy()
        try:
            found = run(x.numpy())
        except (
            Exception
        ):  # a size that was traced as fixed is refused by each runtime in its own way
            return float("inf")
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        largest = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
        worst = max(worst, float(np.abs(found - expected).max()) / largest)
    return worst


def run_graph(data: bytes) -> Run:
    """Make an ONNX model ready in onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        answer: Any = session.run([ANSWER], {IMAGE: x})[0]
        return np.asarray(answer)

    return run


def run_archive(data: bytes) -> Run:
    """Make a ``.pt2`` archive of our own ready in torch."""
    module = torch.export.load(io.BytesIO(data)).module()

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(x)).numpy())

    return run
