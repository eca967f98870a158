"""Export: a model as other programs take it, checked in their runtime against torch, with what evenslice knows inside."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from evenslice.errors import BadInputError
from evenslice.evidence.certificate import Certificate, certify
from evenslice.model.checkpoint import model_metadata, normalisation_record, stem_record
from evenslice.model.export import AXES, OPSET, Trace, add_metadata, graph_of, traces
from evenslice.model.exported import archive_of
from evenslice.model.inputs import ModelLike, check_apart, check_segments, model_of
from evenslice.model.provenance import provenance_of
from evenslice.model.spec import ExternalSpec, Model
from evenslice.options import Format
from evenslice.verbs.export_options import (
    TOLERANCE,
    Label,
    check_installed,
    check_options,
    difference,
    format_of,
    run_archive,
    run_graph,
)
from evenslice.volume.atomic import check_writable, written_beside

TILE = 256


@dataclass(frozen=True)
class Exported:
    """What ``export`` wrote.

    Attributes
    ----------
    path, format
        The file and its format.
    model
        The exported network as evenslice reads it again, with what the file says of it.
    shape
        (B, S, y, x) of the input, None for what may differ.
    step
        Height and width are multiples of it where they may differ.
    opset
        Of ONNX; None for torch.export.
    difference
        The largest difference from torch on windows of noise, relative to the largest logit of the window.
    certificate
        The largest response of the exported network to the reversal.
    tta
        ``reversal`` if the graph itself averages over the reversal.
    warnings
        What the user should know.
    """

    path: Path
    format: Format
    model: Model
    shape: tuple[int | None, ...]
    step: int
    opset: int | None
    difference: float
    certificate: Certificate
    tta: str
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
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


def export(
    model: ModelLike,
    out: str | Path,
    *,
    format: Format | None = None,
    opset: int | None = None,
    tile: int = TILE,
    slices: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    trust: bool = False,
    authors: Sequence[str] = (),
    license: str | None = None,
    seed: int = 0,
    force: bool = False,
) -> Exported:
    """Write a model in a form that other programs run; the model given is left as it is.

    Parameters
    ----------
    model
        A model of ours, ``package.module:callable``, or a ``.pt2``.
    out
        Name ending in ``.onnx``, ``.pt2``, or ``.zip`` for a package of bioimage.io.
    format
        ``onnx``, ``torch-export`` or ``bioimageio``; by the ending of ``out`` when None.
    opset
        Of ONNX, 16 to 23; 18 when None.
    tile
        Height and width where the network takes one size only; where it takes any, one of the sizes that are checked.
    slices, mean, std
        Of a foreign model, as ``audit`` takes them; mean and std in raw intensity units.
    trust
        Whether a ``.pt2``, which can run code when it is opened, may be opened.
    authors, license
        Names, and the SPDX identifier of a licence, for a package of bioimage.io.
    seed
        Of the noise.
    force
        Whether to overwrite.

    Returns
    -------
    Exported
        What was written, and how far it is from the original.

    Raises
    ------
    BadInputError
        If something given cannot be used, or what was written answers differently from torch; nothing is left then.

    Notes
    -----
    The graph takes slices normalised by the mean and std in the file and answers with logits, in float32. A package of
    bioimage.io normalises and ends in probabilities by its own steps. A model that answers as the mean over the reversal
    (``fix --tta reversal``) has that mean in its graph.
    """
    out = Path(out)
    chosen = format_of(model, out, format)
    check_options(chosen, opset, tile, authors, license)
    check_writable(out, force)
    check_apart(out, model)
    check_installed(chosen)
    given = model_of(model, slices, mean, std, trust)
    check_segments(given)
    if given.normalisation is None:
        raise BadInputError(
            "the model has no normalisation, expected a mean and a std in raw intensities for other programs to use; give --mean and --std"
        )
    opset = None if chosen == "torch-export" else opset or OPSET
    trace, data, found = _traced(given, tile, opset, seed)
    with tempfile.TemporaryDirectory() as folder, written_beside(out, force) as part:
        file = Path(folder) / ("model.pt2" if opset is None else "weights.onnx")
        about = _about(given, trace, chosen, opset, found) | {
            "provenance": provenance_of(seed, model=given)
        }
        _write(file, trace, data, about, opset)
        certificate = certify(model_of(file, trust=True), seed=seed)
        about["certificate"] = certificate.to_dict()
        _write(file, trace, data, about, opset)
        read = model_of(file, trust=True)
        if chosen == "bioimageio":
            from evenslice.verbs.export_bioimageio import write_package

            write_package(
                part,
                file,
                given,
                trace,
                about,
                opset or OPSET,
                Label(out.stem, tuple(authors), license),
            )
        else:
            shutil.copyfile(file, part)
    assert isinstance(read.spec, ExternalSpec)
    read = read.with_facts(
        spec=replace(read.spec, source=str(out)), file=out, provenance=about["provenance"]
    )
    notes = (*_sizes(trace), *_evenness(given, certificate), *_names(chosen, authors, license))
    return Exported(
        out, chosen, read, shape_of(trace), trace.step, opset, found, certificate, given.tta, notes
    )


def _traced(model: Model, tile: int, opset: int | None, seed: int) -> tuple[Trace, bytes, float]:
    """Return the first trace that answers like torch, as a file holds it, and how far it is from torch."""
    worst = float("inf")
    for trace in traces(model, tile):
        data = archive_of(trace.program) if opset is None else graph_of(trace, opset)
        run = run_archive(data) if opset is None else run_graph(data)
        found = difference(model.module, run, trace.shapes, seed)
        if found <= TOLERANCE:
            return trace, data, found
        worst = min(worst, found)
    raise BadInputError(
        f"the exported network differs from torch by {worst:.2g} of its largest logit, expected at most {TOLERANCE:g}; nothing was "
        "written; try another --opset or --format"
    )


def _write(file: Path, trace: Trace, data: bytes, about: dict[str, Any], opset: int | None) -> None:
    file.write_bytes(
        archive_of(trace.program, about) if opset is None else add_metadata(data, about)
    )


def _about(
    model: Model, trace: Trace, format: Format, opset: int | None, found: float
) -> dict[str, Any]:
    """Return what the file says of itself, as JSON has it: what model files say, and how it was exported."""
    about = model_metadata(model)
    if isinstance(model.spec, ExternalSpec):
        about["spec"]["source"] = Path(model.spec.source).name
    exported = {
        "format": format,
        "shape": shape_of(trace),
        "step": trace.step,
        "opset": opset,
        "difference": found,
        "tta_in_graph": model.tta,
        "evenslice": version("evenslice"),
        "torch": torch.__version__,
    }
    about |= {"certificate": None, "tta": "none", "export": exported}
    plain: dict[str, Any] = json.loads(json.dumps(about))
    return plain


def shape_of(trace: Trace) -> tuple[int | None, ...]:
    """Return the shape (B, S, y, x) of the input of a trace, None for what may differ."""
    return tuple(
        None if axis in trace.dynamic else side
        for axis, side in zip(AXES, trace.shapes[0], strict=True)
    )


def _sizes(trace: Trace) -> Iterator[str]:
    batch, _, height, width = trace.shapes[0]
    if "y" not in trace.dynamic:
        yield f"the exported network takes windows of {height} x {width} only; --tile chooses the size where the network leaves it open"
    if "batch" not in trace.dynamic:
        yield f"the exported network takes batches of {batch} only"


def _evenness(model: Model, certificate: Certificate) -> Iterator[str]:
    before = (model.certificate or {}).get("symmetric", False)
    if before and not certificate.symmetric:
        yield (
            f"the model was certified even, but the exported network responds to the reversal by {certificate.float32:.2g}, above its "
            "tolerance; see the certificate"
        )


def _names(format: Format, authors: Sequence[str], license: str | None) -> Iterator[str]:
    missing = {"author": "--author"} if not authors else {}
    missing |= {"licence": "--license"} if license is None else {}
    if format == "bioimageio" and missing:
        yield f"the package names no {' and no '.join(missing)}; give {' and '.join(missing.values())} before you pass it on"
