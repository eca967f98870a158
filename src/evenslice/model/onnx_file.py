"""ONNX models: networks that run in onnxruntime, with the weights of their first operations as parameters of torch."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from evenslice.errors import BadInputError
from evenslice.model.metadata import as_note, corrupt_metadata, parsed_note
from evenslice.model.onnx_graph import (
    PRODUCTS,
    Entry,
    attribute,
    check_steps,
    entries_of,
    fed,
    name_of,
    shown,
    tensors_of,
)
from evenslice.model.onnxproto import libraries, parsed, serialised
from evenslice.model.stem.layer_input import LayerInput, looked_at, medians
from evenslice.volume.atomic import written_beside

if TYPE_CHECKING:
    from evenslice.model.stem.probe import Call


KEY = "evenslice"


class OnnxNetwork(nn.Module):
    """A network of an ONNX file, run by onnxruntime.

    The weights of the operations through which the image enters are parameters, in float32 and in the layout of torch;
    they are handed over on every run, so what changes them in place changes the network. There are no gradients.

    Attributes
    ----------
    precisions
        The types it can be run in.
    computes_in
        The floating-point type in the file.
    """

    precisions: tuple[str, ...] = ("float32",)
    differentiable = False

    def __init__(self, data: bytes) -> None:
        super().__init__()
        onnx, _ = libraries()
        self.data = data
        self._sessions: dict[str, Any] = {}
        model = onnx.load_model_from_string(data)
        self.image, self.stated = _image(model)
        self.entries = entries_of(model.graph, self.image)
        held = tensors_of(model.graph)
        self.names = [name_of(model.graph, entry) for entry in self.entries]
        self.layers, self.roots = nn.ModuleList(), dict[str, int]()
        for turn, entry in enumerate(self.entries):
            layer = _layer(model.graph.node[entry.node], entry, held)
            if entry.root and not entry.refused:
                first = self.roots.setdefault(entry.root, turn)
                if first < turn and layer.weight.shape == self.layers[first].weight.shape:
                    layer.weight = self.layers[first].weight
            self.layers.append(layer)
        kinds = {held[root].data_type for root in self.roots}
        self.computes_in = torch.float16 if onnx.TensorProto.FLOAT16 in kinds else torch.float32

    def __getstate__(self) -> dict[str, Any]:
        """Return everything but the sessions, which are made again."""
        return self.__dict__ | {"_sessions": {}}

    def image_shape(self) -> tuple[int | None, ...]:
        """Return the shape of the image, (B, S, y, x), None for what may differ."""
        return self.stated

    def forward(self, x: Tensor) -> Any:
        """Run the network on an image (B, S, y, x).

        Returns
        -------
        Tensor or list of Tensor
            The output, or all of them where there are several, in float32, on the device of the image.
        """
        outputs = [torch.from_numpy(found).to(x.device) for found in self._run("run", x)]
        outputs = [out.float() if out.is_floating_point() else out for out in outputs]
        return outputs[0] if len(outputs) == 1 else outputs

    def watch(self, call: "Call", probes: Tensor) -> list[LayerInput]:
        """Run the network once for each row of ``probes`` (runs, S); return what its first operations receive.

        Raises
        ------
        BadInputError
            If one of these operations is quantised.
        """
        for name, entry in zip(self.names, self.entries, strict=True):
            if entry.refused.startswith("quantised"):
                raise BadInputError(
                    f"the weight of the stem {name!r} is {entry.refused}, expected floating-point weights; give the model as it was "
                    "before it was quantised, and quantise afterwards"
                )
        if not self.entries:
            return []
        watcher = _Watcher(self)
        runs = []
        for constants in probes:
            call.run(watcher, constants)
            runs.append([medians(x) if looked_at(x) else () for x in watcher.seen])
        sights = []
        for turn, (name, entry) in enumerate(zip(self.names, self.entries, strict=True)):
            axes = [
                torch.stack([run[turn][axis] for run in runs]) for axis in range(len(runs[0][turn]))
            ]
            if axes:
                layer = self if entry.refused else self.layers[turn]
                sights.append(LayerInput(name, layer, entry.refused, tuple(axes)))
        return sights

    def _run(self, kind: str, x: Tensor) -> list[Any]:
        session = self._session(kind, "cuda" if x.is_cuda else "cpu")
        types = {i.name: _numpy_type(i.type) for i in session.get_inputs()}
        given = {
            f"{KEY}.{root}": self._value(self.entries[turn]) for root, turn in self.roots.items()
        }
        given[self.image] = x.detach().cpu().numpy()
        found = session.run(
            None, {name: np.ascontiguousarray(given[name], types[name]) for name in types}
        )
        return [np.array(out) for out in found]

    def _session(self, kind: str, device: str) -> Any:
        key = f"{kind} {device} {torch.get_num_threads()}"
        if key not in self._sessions:
            self._sessions[key] = _session(self._model(kind), device)
        return self._sessions[key]

    def _model(self, kind: str) -> Any:
        onnx, _ = libraries()
        model = onnx.load_model_from_string(self.data)
        entries = self.entries
        if kind == "watch":
            model = shown(model, entries)
            entries = _moved(entries)
        return fed(model, entries, {root: f"{KEY}.{root}" for root in self.roots})

    def _value(self, entry: Entry) -> Any:
        weight: Tensor = self.layers[self.roots[entry.root]].get_parameter("weight").detach().cpu()
        return (weight.T if entry.reorder_axes else weight).numpy()


class _Watcher(nn.Module):
    """The network as it is called, answering nothing but what its first operations receive."""

    def __init__(self, network: OnnxNetwork) -> None:
        super().__init__()
        self.network = network
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> None:
        self.seen = [torch.from_numpy(found) for found in self.network._run("watch", x)]


def _moved(entries: list[Entry]) -> list[Entry]:
    """Return the entries at the places they have in the graph of ``shown``: two nodes are added for each."""
    return [replace(entry, node=entry.node + 1 + 2 * turn) for turn, entry in enumerate(entries)]


def _session(model: Any, device: str) -> Any:
    _, runtime = libraries()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    here = runtime.get_available_providers()
    providers = [p for p in ("CUDAExecutionProvider",) if device == "cuda" and p in here]
    try:
        return runtime.InferenceSession(
            model.SerializeToString(), options, providers=[*providers, "CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises errors of its own
        raise BadInputError(
            f"onnxruntime cannot run the model ({str(error).splitlines()[0][:200]}), expected operations that it knows; export it "
            "again for this version"
        ) from error


def _numpy_type(name: str) -> Any:
    kinds = {
        "tensor(float)": np.float32,
        "tensor(float16)": np.float16,
        "tensor(double)": np.float64,
    }
    return kinds.get(name, np.float32)


def _image(model: Any) -> tuple[str, tuple[int | None, ...]]:
    """Return the name and the shape of the one input that is not a weight."""
    onnx, _ = libraries()
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in held]
    kinds = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
    if len(inputs) == 1 and inputs[0].type.tensor_type.elem_type in kinds:
        sides = inputs[0].type.tensor_type.shape.dim
        if len(sides) == 4:
            return inputs[0].name, tuple(d.dim_value if d.dim_value > 0 else None for d in sides)
    names = ", ".join(i.name for i in inputs) or "nothing"
    raise BadInputError(
        f"the ONNX model takes {names}, expected one image (B, S, y, x) of float32, float16 or float64; export the network with that "
        "alone"
    )


def _layer(node: Any, entry: Entry, held: Mapping[str, Any]) -> nn.Module:
    """Return a layer with the weight of an operation as its parameter; a weight that is computed is none."""
    onnx, _ = libraries()
    if entry.refused or node.op_type not in PRODUCTS:
        return nn.Module()
    root = held.get(entry.root)
    values = np.array(onnx.numpy_helper.to_array(root)) if root is not None else None
    if values is not None and values.dtype == np.float16:
        values = values.astype(np.float32)
    if node.op_type != "Conv":
        weight = (
            torch.from_numpy(values.T.copy() if entry.reorder_axes else values)
            if values is not None
            else torch.zeros(1, 1)
        )
        layer: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    else:
        weight = torch.from_numpy(values) if values is not None else torch.zeros(1, 1, 1, 1)
        groups = attribute(node, "group", 1) if values is not None else 1
        size, pads = (int(weight.shape[2]), int(weight.shape[3])), attribute(node, "pads", [0, 0])
        stride, dilation = (attribute(node, key, [1, 1]) for key in ("strides", "dilations"))
        inputs, outputs = weight.shape[1] * groups, weight.shape[0]
        layer = nn.Conv2d(
            inputs,
            outputs,
            size,
            tuple(stride),
            tuple(pads[:2]),
            tuple(dilation),
            groups,
            bias=False,
            device="meta",
        )
    del layer.weight
    layer.weight = nn.Parameter(weight) if values is not None else weight
    return layer


def read_onnx(path: Path) -> tuple[OnnxNetwork, dict[str, Any]]:
    """Read an ``.onnx`` file, with what it keeps in files beside it.

    Returns
    -------
    tuple
        The network, and what evenslice noted in the file, empty if nothing.

    Raises
    ------
    BadInputError
        If onnx is not installed, the file is no ONNX model of one image, keeps data outside of its folder, or
        declares more than it holds.
    """
    model = parsed(path)
    noted = next((p.value for p in model.metadata_props if p.key == KEY), "{}")
    try:
        about = parsed_note(noted)
    except ValueError as error:
        raise corrupt_metadata(path.name, error) from error
    try:
        for graph in (model.graph, *model.functions):
            check_steps(graph)
        network = OnnxNetwork(serialised(model, path))
        network._session("run", "cpu")
    except BadInputError:
        raise
    except Exception as error:  # a graph that breaks the rules of ONNX fails in any way
        raise BadInputError(
            f"{path.name} is no valid ONNX model ({type(error).__name__}: {str(error)[:100]}), expected one; export it again"
        ) from error
    return network, about if isinstance(about, dict) else {}


def write_onnx(path: Path, network: OnnxNetwork, about: dict[str, Any], force: bool = True) -> None:
    """Write a network with the weights it has now; it appears complete or not at all.

    Parameters
    ----------
    path
        The file to write. It holds all weights, also where those read lay in a file beside.
    network
        What ``read_onnx`` returned.
    about
        What to note in the file.
    force
        Whether a file of that name is replaced.

    Raises
    ------
    BadInputError
        If the result is no valid ONNX model, or larger than a file of that kind can be.
    """
    onnx, _ = libraries()
    model = onnx.load_model_from_string(network.data)
    held = tensors_of(model.graph)
    for root in network.roots:
        entries = [entry for entry in network.entries if entry.root == root]
        tensor = _own(model, held[root], entries)
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(network._value(entries[0]).astype(kind), name))
    for note in [note for note in model.metadata_props if note.key == KEY]:
        model.metadata_props.remove(note)
    model.metadata_props.add(key=KEY, value=as_note(about))
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise BadInputError(
            f"{path.name} would be no valid ONNX model ({str(error).splitlines()[0][:200]}), expected one; export the network again"
        ) from error
    data = serialised(model, path)
    with written_beside(path, force) as part:
        part.write_bytes(data)


def _own(model: Any, tensor: Any, entries: list[Entry]) -> Any:
    """Return the tensor to change: the one that holds the weight, or a copy if other operations use it as well."""
    root = entries[0].root
    nodes = list(model.graph.node)
    chain, known = {root}, {entry.node for entry in entries}
    for place, node in enumerate(nodes):
        if node.op_type in ("Identity", "Transpose") and node.input[0] in chain:
            chain.add(node.output[0])
            known.add(place)
    others = any(chain & set(node.input) for place, node in enumerate(nodes) if place not in known)
    if not others:
        return tensor
    import onnx

    copy = model.graph.initializer.add()
    copy.CopyFrom(tensor)
    copy.name = f"{root}.{KEY}"
    for entry in entries:
        name = copy.name
        if entry.flipped:
            name = f"{copy.name}.turned"
        nodes[entry.node].input[entry.weight] = name
    if any(entry.flipped for entry in entries):
        model.graph.node.insert(
            0, onnx.helper.make_node("Transpose", [copy.name], [f"{copy.name}.turned"], perm=[1, 0])
        )
    return copy
