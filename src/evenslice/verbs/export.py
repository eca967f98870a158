"""Export: a model as other programs take it, checked in their runtime against torch."""

import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evenslice.errors import BadInputError, keeps_warnings
from evenslice.evidence.certificate import Certificate, certify
from evenslice.model.checkpoint import model_metadata, normalisation_record, stem_record
from evenslice.model.export import ANSWER, AXES, IMAGE, OPSET, Trace, archive_of, example, traces
from evenslice.model.opening import ModelLike, check_segments, model_of
from evenslice.model.provenance import provenance_of
from evenslice.model.source import form_of
from evenslice.model.spec import ExternalSpec, Model
from evenslice.options import ExportOptions, Format, JsonObject
from evenslice.volume.atomic import check_writable, written_beside
from evenslice.volume.inputs import check_apart

TOLERANCE = 1e-4
ENDINGS: dict[str, Format] = {".onnx": "onnx", ".pt2": "torch-export", ".zip": "bioimageio"}
ONNX = ("onnx", "onnxruntime", "onnxscript")
NEEDED: dict[Format, tuple[str, ...]] = {
    "onnx": ONNX,
    "torch-export": (),
    "bioimageio": (*ONNX, "bioimageio", "bioimageio.core"),
}
Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Exported:
    """What ``export`` wrote."""

    path: Path
    format: Format
    model: Model  # the exported network as evenslice reads it again, with its metadata
    shape: tuple[int | None, ...]  # (B, S, y, x) of the input, None for what may differ
    step: int  # then height and width are multiples of it
    opset: int | None  # None for torch.export
    difference: float  # the largest from torch on noise, relative to the largest logit
    certificate: Certificate  # the largest response of the exported network to the reversal
    tta: str  # ``reversal`` if the graph itself averages over the reversal
    warnings: tuple[str, ...]

    def to_dict(self) -> JsonObject:
        """Return it as JSON can hold it (schema evenslice.export/1)."""
        return {
            "schema": "evenslice.export/1",
            "path": str(self.path),
            "format": self.format,
            "bytes": self.path.stat().st_size,
            "slices": self.model.slices,
            "classes": self.model.spec.classes,
            "inputs": [{"axes": list(AXES), "shape": list(self.shape), "step": self.step}],
            "dynamic": [axis for axis, side in zip(AXES, self.shape, strict=True) if side is None],
            "answers": "probabilities" if self.format == "bioimageio" else "logits",
            "opset": self.opset,
            "difference": self.difference,
            "tolerance": TOLERANCE,
            "normalisation": normalisation_record(self.model.normalisation),
            "stems": stem_record(self.model),
            "certificate": self.certificate.to_dict(),
            "tta": self.tta,
            "warnings": list(self.warnings),
            "provenance": self.model.provenance,
        }


@keeps_warnings
def export(
    model: ModelLike,
    out: str | Path,
    options: ExportOptions | None = None,
    *,
    force: bool = False,
    **changes: Any,
) -> Exported:
    """Write a model in a form that other programs run; the model given is left as it is.

    The graph takes slices normalised by the mean and std in the file and answers with logits, in
    float32. A package of bioimage.io normalises and ends in probabilities by its own steps. A model
    that answers as the mean over the reversal (``fix --tta reversal``) has that mean in its graph.

    Parameters
    ----------
    model
        A model of ours, ``package.module:callable``, or a ``.pt2``.
    out
        Name ending in ``.onnx``, ``.pt2``, or ``.zip`` for a package of bioimage.io.
    options, changes
        The options of ``ExportOptions``, as an object, as keyword arguments, or both. Where the
        network takes any size, ``tile`` is one of those that are checked.
    force
        Whether to overwrite.

    Raises
    ------
    BadInputError
        If something given cannot be used, or what was written answers differently from torch;
        nothing is left then.
    """
    out, options = Path(out), ExportOptions.of(options, changes)
    format = _format_of(model, out, options)
    check_writable(out, force)
    check_apart(out, model)
    for name in NEEDED[format]:
        if find_spec(name) is None:
            extra = "onnx" if format == "onnx" else "bioimageio"
            raise BadInputError(
                f"{name} is not installed, expected it for --format {format}; "
                f"pip install evenslice[{extra}]"
            )
    given = model_of(model, options)
    check_segments(given)
    if given.normalisation is None:
        raise BadInputError(
            "the model has no normalisation, expected a mean and a std in raw intensities for "
            "other programs to use; give --mean and --std"
        )
    opset = None if format == "torch-export" else options.opset or OPSET
    trace, data, difference = _traced(given, options.tile, opset, options.seed)
    metadata = _metadata(given, trace, format, opset, difference)
    metadata["provenance"] = provenance_of(options.seed, model=given)

    def write(file: Path) -> Model:
        if opset is None:
            file.write_bytes(archive_of(trace.program, metadata))
        else:
            from evenslice.model.onnx_file import add_metadata

            file.write_bytes(add_metadata(data, metadata))
        return model_of(file, trust=True)

    with tempfile.TemporaryDirectory() as folder, written_beside(out, force) as part:
        file = Path(folder) / ("model.pt2" if opset is None else "weights.onnx")
        certificate = certify(write(file), seed=options.seed)
        metadata["certificate"] = certificate.to_dict()
        read = write(file)
        if format == "bioimageio":
            with _quiet_bioimageio():
                from evenslice.verbs.export_bioimageio import write_package

                write_package(part, file, given, trace, metadata, out.stem, options)
        else:
            shutil.copyfile(file, part)
    assert isinstance(read.spec, ExternalSpec)
    spec = replace(read.spec, source=str(out))
    read = replace(read, spec=spec, file=out, provenance=metadata["provenance"])
    return Exported(
        out,
        format,
        read,
        _shape_of(trace),
        trace.step,
        opset,
        difference,
        certificate,
        given.tta,
        tuple(_warnings(given, trace, certificate, format, options)),
    )


def _format_of(model: ModelLike, out: Path, options: ExportOptions) -> Format:
    """Choose the format; refuse a model, an ending or an option that does not fit it."""
    if not isinstance(model, Model) and form_of(model) == "onnx":
        raise BadInputError(
            f"{model} is an ONNX model already, expected a .safetensors of evenslice, "
            "package.module:callable or .pt2; export the model that it was made from"
        )
    found = ENDINGS.get(out.suffix)
    if found is None or options.format not in (None, found):
        wanted = [end for end, name in ENDINGS.items() if options.format in (None, name)]
        what = "" if options.format is None else f" for {options.format}"
        raise BadInputError(
            f"{out} has the ending {out.suffix or '(none)'!r}, expected {', '.join(wanted)}{what}; "
            "rename it"
        )
    if options.opset is not None and found == "torch-export":
        raise BadInputError(
            f"--opset {options.opset} was given for {found}, expected it for onnx; leave it out"
        )
    if (options.authors or options.license is not None) and found != "bioimageio":
        raise BadInputError(
            f"--author or --license was given for {found}, expected them for bioimageio; "
            "leave them out"
        )
    return found


def _traced(model: Model, tile: int, opset: int | None, seed: int) -> tuple[Trace, bytes, float]:
    """Return the first trace that answers like torch, as a file, and how far it is from torch."""
    worst = float("inf")
    for trace in traces(model, tile):
        if opset is None:
            data = archive_of(trace.program)
        else:
            from evenslice.model.onnx_file import graph_of

            data = graph_of(trace, opset)
        found = _difference(model.module, _ready(data, opset), trace.shapes, seed)
        if found <= TOLERANCE:
            return trace, data, found
        worst = min(worst, found)
    raise BadInputError(
        f"the exported network differs from torch by {worst:.2g} of its largest logit, expected at "
        f"most {TOLERANCE:g}; nothing was written; try another --opset or --format"
    )


def _difference(module: nn.Module, run: Run, shapes: Sequence[tuple[int, ...]], seed: int) -> float:
    """Return max |exported - torch| / max |torch| of logits, the largest over windows of noise.

    It is infinite where the exported network fails, or answers in another shape or without numbers.
    """
    worst = 0.0
    for turn, shape in enumerate(shapes):
        x = example(shape, seed + turn)
        with torch.inference_mode():
            expected = module(x).numpy()
            try:
                found = run(x.numpy())
            except Exception:  # each runtime refuses a size that was traced as fixed in its own way
                return float("inf")
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        largest = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
        worst = max(worst, float(np.abs(found - expected).max()) / largest)
    return worst


def _ready(data: bytes, opset: int | None) -> Run:
    """Make what was exported ready: in onnxruntime on the CPU, an archive of our own in torch."""
    if opset is None:
        module = torch.export.load(io.BytesIO(data)).module()
        return lambda x: np.asarray(module(torch.from_numpy(x)).numpy())
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda x: np.asarray(session.run([ANSWER], {IMAGE: x})[0])


def _metadata(
    model: Model, trace: Trace, format: Format, opset: int | None, difference: float
) -> JsonObject:
    """Return what the file says of itself, as JSON has it: like a model file, and its export."""
    metadata = model_metadata(model)
    if isinstance(model.spec, ExternalSpec):
        metadata["spec"]["source"] = Path(model.spec.source).name
    exported = {
        "format": format,
        "shape": _shape_of(trace),
        "step": trace.step,
        "opset": opset,
        "difference": difference,
        "tta_in_graph": model.tta,
        "evenslice": version("evenslice"),
        "torch": torch.__version__,
    }
    metadata |= {"certificate": None, "tta": "none", "export": exported}
    plain: JsonObject = json.loads(json.dumps(metadata))
    return plain


def _shape_of(trace: Trace) -> tuple[int | None, ...]:
    """Return the shape (B, S, y, x) of the input of a trace, None for what may differ."""
    sides = zip(AXES, trace.shapes[0], strict=True)
    return tuple(None if axis in trace.dynamic else side for axis, side in sides)


@contextmanager
def _quiet_bioimageio() -> Iterator[None]:
    """Silence what bioimageio logs and warns of: what matters is raised or checked."""
    from loguru import logger

    names = ("bioimageio.spec", "bioimageio.core")
    for name in names:
        logger.disable(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in names:
            logger.enable(name)


def _warnings(
    model: Model, trace: Trace, certificate: Certificate, format: Format, options: ExportOptions
) -> Iterator[str]:
    batch, _, height, width = trace.shapes[0]
    if "y" not in trace.dynamic:
        yield (
            f"the exported network takes windows of {height} x {width} only; --tile chooses the "
            "size where the network leaves it open"
        )
    if "batch" not in trace.dynamic:
        yield f"the exported network takes batches of {batch} only"
    before = (model.certificate or {}).get("symmetric", False)
    if before and not certificate.symmetric:
        yield (
            "the model was certified symmetric, but the exported network responds to the reversal "
            f"by {certificate.float32:.2g}, above its tolerance; see the certificate"
        )
    missing = {} if options.authors else {"author": "--author"}
    missing |= {} if options.license else {"licence": "--license"}
    if format == "bioimageio" and missing:
        yield (
            f"the package names no {' and no '.join(missing)}; give "
            f"{' and '.join(missing.values())} before you pass it on"
        )
