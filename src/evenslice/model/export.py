"""Writing a network for other programs: one trace by torch.export, as it is or as ONNX."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from evenslice.errors import BadInputError
from evenslice.model.exported import image_shape, quiet_torch
from evenslice.model.logits import LogitsAdapter
from evenslice.model.metadata import dump_metadata
from evenslice.model.onnx_file import serialised
from evenslice.model.onnx_graph import KEY, SCOPES
from evenslice.model.spec import Model
from evenslice.options import JsonObject

AXES = ("batch", "channel", "y", "x")
OPSET = 18  # what torch writes by itself
SMALLEST = 64
IMAGE, ANSWER = "slices", "logits"


@dataclass(frozen=True)
class Trace:
    """A network as torch.export traced it.

    Attributes
    ----------
    program
        From normalised slices (B, S, y, x) to logits (B, classes, y, x), both float32.
    dynamic
        The axes whose length may differ: of ``batch``, ``y``, ``x``, or none.
    shapes
        Shapes (B, S, y, x) it has to run on: the tile, and the smallest window where sizes may
        differ.
    step
        Height and width are multiples of it where they may differ.
    """

    program: ExportedProgram
    dynamic: tuple[str, ...]
    shapes: tuple[tuple[int, int, int, int], ...]
    step: int


def traces(model: Model, tile: int) -> Iterator[Trace]:
    """Yield traces of a network, from the one with the most free axes to the one with none.

    Parameters
    ----------
    model
        The model; what it answers with, the mean over the reversal included, is what is traced.
    tile
        Height and width where they are fixed, rounded up to what the network takes.

    Raises
    ------
    BadInputError
        If it cannot be traced even with all sizes fixed.
    """
    module = copy.deepcopy(model.module).float().cpu().eval()
    stated = image_shape(model.network)
    # an adapter of one batch size fills up and cuts off by itself
    one_batch = isinstance(module, LogitsAdapter) and module.batch is not None
    step = model.stride
    full = -(-tile // step) * step
    size = model.size or (full, full)
    least = max(2 * step, -(-SMALLEST // step) * step)
    free: list[tuple[str, ...]] = [()]
    if not one_batch and stated[0] is None:
        free.insert(0, ("batch",))
        if model.size is None and stated[2] is None and stated[3] is None:
            free.insert(0, ("batch", "y", "x"))
    reason = ""
    for dynamic in free:
        shapes = [(2 if dynamic else 1, model.slices, *size)]
        if "y" in dynamic:
            shapes.append((1, model.slices, least, least + step))
        elif dynamic:
            shapes.append((1, model.slices, *size))
        try:
            program = _traced(module, dynamic, shapes[0], step)
        except Exception as error:  # networks refuse to be traced in ways of their own
            reason = _first_line(error)
            continue
        yield Trace(program, dynamic, tuple(shapes), step)
    if reason:
        raise BadInputError(
            f"torch.export cannot trace the network ({reason}), expected one without branches on "
            "the pixels; give a plain network"
        )


def _traced(
    module: nn.Module, dynamic: tuple[str, ...], shape: tuple[int, ...], step: int
) -> ExportedProgram:
    sides: dict[int, Any] = {0: Dim("batch", min=1)} if dynamic else {}
    if "y" in dynamic:
        # not square, or the trace would take height and width for one number
        shape = (*shape[:2], 4 * step, 5 * step) if step > 8 else (*shape[:2], 64, 80)
        for axis, name in ((2, "height"), (3, "width")):
            sides[axis] = Dim(name, min=1) if step == 1 else step * Dim(name, min=1)
    with torch.no_grad(), quiet_torch():
        program = torch.export.export(
            module, (torch.zeros(shape),), dynamic_shapes=(sides,) if sides else None
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names files of this machine
    return program


def graph_of(trace: Trace, opset: int) -> bytes:
    """Return an ONNX model of a trace, its axes named, without what names files of this machine.

    Raises
    ------
    BadInputError
        If torch cannot write it, not in this opset, or it is larger than such a file can be.
    """
    try:
        with quiet_torch():
            model = torch.onnx.export(  # type: ignore[union-attr]
                trace.program,
                dynamo=True,
                verbose=False,
                external_data=False,
                opset_version=opset,
                input_names=[IMAGE],
                output_names=[ANSWER],
            ).model_proto
    except Exception as error:  # the exporter fails in ways of its own
        raise BadInputError(
            f"torch cannot write the network as ONNX ({_first_line(error)}), expected operations "
            "that ONNX has; use --format torch-export"
        ) from error
    written = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if written != opset:
        raise BadInputError(
            f"torch wrote the network in opset {written}, expected {opset} as asked for; "
            f"leave --opset out, or give {OPSET} or more"
        )
    for value in (*model.graph.input, *model.graph.output):
        for axis, side in zip(AXES, value.type.tensor_type.shape.dim, strict=True):
            if axis in trace.dynamic:
                side.dim_param = axis
    del model.graph.value_info[:]
    for graph in (model.graph, *model.functions):
        for node in graph.node:
            for entry in [entry for entry in node.metadata_props if entry.key != SCOPES]:
                node.metadata_props.remove(entry)
            node.doc_string = ""
    return serialised(model)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def add_metadata(data: bytes, metadata: JsonObject) -> bytes:
    """Return an ONNX model with evenslice's metadata in it."""
    import onnx

    model = onnx.load_model_from_string(data)
    model.metadata_props.add(key=KEY, value=dump_metadata(metadata))
    return serialised(model)


def example(shape: tuple[int, ...], seed: int) -> Tensor:
    """Draw normalised slices of a shape: noise of mean 0 and std 1."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
