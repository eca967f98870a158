"""ONNX models: networks that run in onnxruntime, with their first weights as torch parameters.

Importing this takes onnx and onnxruntime.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto
from torch import Tensor, nn

from evenslice.errors import BadInputError
from evenslice.model.checkpoint import dump_metadata, parse_metadata
from evenslice.model.export import ANSWER, AXES, IMAGE, OPSET, Trace, first_line, quiet_torch
from evenslice.model.onnx_graph import (
    KEY,
    PRODUCTS,
    SCOPES,
    Entry,
    attribute,
    find_entries,
    with_entries_as_outputs,
    with_weights_as_inputs,
)
from evenslice.model.stem.find import convolution
from evenslice.model.stem.probe import Call, LayerInput, medians, shows_slots
from evenslice.options import JsonObject
from evenslice.volume.array import Voxels
from evenslice.volume.atomic import written_beside

SLICES = (1, 3, 5, 7, 9)


class OnnxNetwork(nn.Module):
    """A network of an ONNX file, run by onnxruntime.

    The weights of the operations through which the image enters are parameters, in float32 and in
    the layout of torch. They are handed over on every run, so what changes them in place changes
    the network. There are no gradients.
    """

    precisions: tuple[str, ...] = ("float32",)  # that it can be run in
    differentiable = False

    def __init__(self, model: ModelProto) -> None:
        super().__init__()
        _drop_weight_inputs(model)
        image, self.stated, self.channels_last = _image(model)
        self.image, self.outputs = image.name, [output.name for output in model.graph.output]
        self.entries = find_entries(model.graph, self.image)
        self.names = [entry.name_in(model.graph) for entry in self.entries]
        self.data = serialised(model)
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.layers, self.roots = nn.ModuleList(), dict[str, int]()
        for turn, entry in enumerate(self.entries):
            values = None if entry.refused else tensors.get(entry.root)
            layer = _layer(model.graph.node[entry.node], entry, values)
            if values is not None:
                first = self.roots.setdefault(entry.root, turn)
                if first < turn and layer.weight.shape == self.layers[first].weight.shape:
                    layer.weight = self.layers[first].weight
            self.layers.append(layer)
        kinds = {root: tensors[root].data_type for root in self.roots}
        kinds[self.image] = image.type.tensor_type.elem_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype
        self.types = {name: np.dtype(dtype(kind)) for name, kind in kinds.items()}
        half = any(self.types[root] == np.float16 for root in self.roots)
        self.computes_in = torch.float16 if half else torch.float32
        self._sessions: dict[tuple[str, bool, int], Any] = {}

    def __getstate__(self) -> JsonObject:
        """Return everything but the sessions, which are made again."""
        return self.__dict__ | {"_sessions": {}}

    def image_shape(self) -> tuple[int | None, ...]:
        """Return the shape of the image, (B, S, y, x), None for what may differ."""
        return self.stated

    def forward(self, x: Tensor) -> Any:
        """Run on an image (B, S, y, x): the output in float32, or several of them by name."""
        outputs = [torch.from_numpy(out).to(x.device) for out in self.run("network", x)]
        outputs = [out.float() if out.is_floating_point() else out for out in outputs]
        return outputs[0] if len(outputs) == 1 else dict(zip(self.outputs, outputs, strict=True))

    def watch(self, call: Call, probes: Tensor) -> list[LayerInput]:
        """Run once for each row of ``probes`` (runs, S); return what the first operations receive.

        ``BadInputError`` if one of these operations is quantised.
        """
        for name, entry in zip(self.names, self.entries, strict=True):
            if entry.refused.startswith("quantised"):
                raise BadInputError(
                    f"the weight of the stem {name!r} is {entry.refused}, expected floating-point "
                    "weights; give the model as it was before, and quantise afterwards"
                )
        watcher = _Watcher(self)
        runs: list[list[tuple[Tensor, ...]]] = []
        for constants in probes if self.entries else ():
            call.run(watcher, constants)
            runs.append([medians(x) if shows_slots(x) else () for x in watcher.seen])
        found = []
        for turn, entry in enumerate(self.entries):
            axes = tuple(torch.stack(axis) for axis in zip(*(r[turn] for r in runs), strict=True))
            layer = self if entry.refused else self.layers[turn]
            if axes:
                found.append(LayerInput(self.names[turn], layer, entry.refused, axes))
        return found

    def run(self, kind: str, x: Tensor) -> list[Voxels]:
        """Run the ``network`` or its ``entries``, which answer what the operations receive."""
        given = {root: self.value_of(root) for root in self.roots}
        given[self.image] = (x.movedim(1, -1) if self.channels_last else x).detach().cpu().numpy()
        given = {name: np.ascontiguousarray(v, self.types[name]) for name, v in given.items()}
        found = self.session(kind, x.is_cuda).run(None, given)
        return [np.array(out) for out in found]

    def session(self, kind: str = "network", cuda: bool = False) -> Any:
        """Return the session of onnxruntime for a kind of ``run``."""
        key = (kind, cuda, torch.get_num_threads())
        if key not in self._sessions:
            model = with_weights_as_inputs(onnx.load_model_from_string(self.data), list(self.roots))
            if kind == "entries":
                model = with_entries_as_outputs(model, self.entries)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.log_severity_level = 4
            here = onnxruntime.get_available_providers()
            gpu = ["CUDAExecutionProvider"] if cuda and "CUDAExecutionProvider" in here else []
            self._sessions[key] = onnxruntime.InferenceSession(
                serialised(model), options, providers=[*gpu, "CPUExecutionProvider"]
            )
        return self._sessions[key]

    def value_of(self, root: str) -> Voxels:
        """Return the present weight of an initialiser, in the layout of the file, in float32."""
        turn = self.roots[root]
        weight: Tensor = self.layers[turn].get_parameter("weight").detach().cpu()
        return (weight.T if self.entries[turn].transposed else weight).numpy()


class _Watcher(nn.Module):
    """The network as it is called; keeps what its first operations receive."""

    def __init__(self, network: OnnxNetwork) -> None:
        super().__init__()
        self.network = network
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> None:
        self.seen = [torch.from_numpy(found) for found in self.network.run("entries", x)]


def _drop_weight_inputs(model: ModelProto) -> None:
    """Make initialisers constants that only we override; old files list them as inputs."""
    names = {tensor.name for tensor in model.graph.initializer}
    for given in [given for given in model.graph.input if given.name in names]:
        model.graph.input.remove(given)
    model.ir_version = max(model.ir_version, 4)


def _image(model: ModelProto) -> tuple[ValueInfoProto, tuple[int | None, ...], bool]:
    """Return the one input, its shape (B, S, y, x), and whether its channels come last (Keras)."""
    kinds = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
    inputs = list(model.graph.input)
    if len(inputs) == 1 and inputs[0].type.tensor_type.elem_type in kinds:
        sides = inputs[0].type.tensor_type.shape.dim
        if len(sides) == 4:
            b, *shape = (d.dim_value if d.dim_value > 0 else None for d in sides)
            last = shape[2] in SLICES and shape[0] not in SLICES
            return inputs[0], (b, *(shape[2:] + shape[:2] if last else shape)), last
    names = ", ".join(given.name for given in inputs) or "nothing"
    raise BadInputError(
        f"the ONNX model takes {names}, expected one image (B, S, y, x) of float32, float16 or "
        "float64; export the network with that alone"
    )


def _layer(node: NodeProto, entry: Entry, tensor: TensorProto | None) -> nn.Module:
    """Return a layer with the weight of an operation as parameter; None, a computed one, is not."""
    if entry.refused or node.op_type not in PRODUCTS:
        return nn.Module()
    conv = node.op_type == "Conv"
    weight = torch.zeros((1, 1, 1, 1) if conv else (1, 1))
    if tensor is not None:
        values = np.array(onnx.numpy_helper.to_array(tensor))
        values = values.astype(np.float32) if values.dtype == np.float16 else values
        weight = torch.from_numpy(values.T.copy() if entry.transposed else values)
    if conv:
        options = {
            "groups": attribute(node, "group", 1) if tensor is not None else 1,
            "stride": attribute(node, "strides", 1),
            "padding": attribute(node, "pads", [0, 0])[:2],
            "dilation": attribute(node, "dilations", 1),
        }
        layer: nn.Module = convolution(options, weight)
    else:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    del layer.weight
    layer.weight = weight if tensor is None else nn.Parameter(weight)
    return layer


def read_onnx(path: Path) -> tuple[OnnxNetwork, JsonObject]:
    """Read an ``.onnx`` file, with what lies in its folder, and evenslice's metadata, if any.

    ``BadInputError`` if it is no ONNX model of one image that onnxruntime runs.
    """
    try:
        model = onnx.load_model(str(path))
        network = OnnxNetwork(model)
        network.session()
    except BadInputError:
        raise
    except Exception as error:  # protobuf, onnx and onnxruntime raise errors of their own
        reason = (str(error).splitlines() or [""])[0][:200]
        raise BadInputError(
            f"{path.name} cannot be read ({type(error).__name__}: {reason}), expected an ONNX "
            "model that onnxruntime can run; export it again"
        ) from error
    text = next((p.value for p in model.metadata_props if p.key == KEY), "{}")
    return network, parse_metadata(text, path.name)


def write_onnx(path: Path, network: nn.Module, metadata: JsonObject, force: bool = True) -> None:
    """Write a network with the weights it has now, all in one file, and evenslice's metadata.

    ``BadInputError`` if the result is no valid ONNX model, or larger than 2 GiB.
    """
    assert isinstance(network, OnnxNetwork)
    model = onnx.load_model_from_string(network.data)
    for tensor in model.graph.initializer:
        if tensor.name in network.roots:
            values = network.value_of(tensor.name).astype(network.types[tensor.name])
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for entry in [entry for entry in model.metadata_props if entry.key == KEY]:
        model.metadata_props.remove(entry)
    model.metadata_props.add(key=KEY, value=dump_metadata(metadata))
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise BadInputError(
            f"{path.name} would be no valid ONNX model ({str(error).splitlines()[0][:200]}), "
            "expected one; export the network again"
        ) from error
    with written_beside(path, force) as part:
        part.write_bytes(serialised(model))


def serialised(model: ModelProto) -> bytes:
    """Return the bytes of a model; raise ``BadInputError`` if it is larger than 2 GiB."""
    try:
        data: bytes = model.SerializeToString()
    except ValueError as error:
        raise BadInputError(
            "the ONNX model is larger than 2 GiB, expected less; give a smaller model"
        ) from error
    return data


def graph_of(trace: Trace, opset: int) -> bytes:
    """Return an ONNX model of a trace, its axes named, without what names files of this machine.

    ``BadInputError`` if torch cannot write it, not in this opset, or it is larger than 2 GiB.
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
            f"torch cannot write the network as ONNX ({first_line(error)}), expected operations "
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


def add_metadata(data: bytes, metadata: JsonObject) -> bytes:
    """Return an ONNX model with evenslice's metadata in it."""
    model = onnx.load_model_from_string(data)
    model.metadata_props.add(key=KEY, value=dump_metadata(metadata))
    return serialised(model)
