"""ONNX graphs: the operations through which an image enters, and what these receive."""

import re
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

Tensors = dict[str, TensorProto]
Makers = dict[str, NodeProto]
KEY = "evenslice"
PRODUCTS = {"Conv", "Gemm", "MatMul"}
QUANTISED = {"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "DequantizeLinear"}
LAYERS = PRODUCTS | QUANTISED - {"DequantizeLinear"} | {"ConvTranspose", "FusedConv"}
SIZES = {"Shape", "Size"}
SCOPES = "pkg.torch.onnx.name_scopes"  # where torch notes which module an operation comes from
FLOATS = (1, 10, 11)  # float32, float16 and float64 in the numbers of ONNX


@dataclass(frozen=True)
class Entry:
    """An operation with a weight that receives the image through operations without one."""

    node: int  # its place among the nodes of the graph
    data: int  # which of its inputs are the data
    weight: int  # and the weight
    root: str  # the initialiser that holds the weight, "" if it is computed from others
    transposed: bool  # whether the operation takes the weight as (in, out)
    refused: str  # why it cannot be changed: the operation in words, or ""

    def name_in(self, graph: GraphProto) -> str:
        """Return a dotted name: of the weight, of the module that torch notes, or of the node."""
        node, root = graph.node[self.node], self.root.removesuffix(f".{KEY}")
        if root.endswith(".weight"):
            return root.removesuffix(".weight")
        scopes = next((p.value for p in node.metadata_props if p.key == SCOPES), "")
        named: list[str] = re.findall(r"'([\w.]*)'", scopes)
        if len(named) > 1 and named[-2]:
            return named[-2]
        if node.name.startswith("/") and node.name.count("/") > 1:
            return ".".join(node.name.strip("/").split("/")[:-1])
        return root or node.name or node.output[0]


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Return an attribute of a node."""
    values = [onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return values[0] if values else default


def find_entries(graph: GraphProto, image: str) -> list[Entry]:
    """Find the operations through which an image enters, and those that share a weight with them.

    Weights that lie in constants, behind transposes or in tensors that other operations use too
    are copied to initialisers of their own first; ``graph`` (``GraphProto``) is changed in place.
    """
    entries = _entries(graph, image)
    _separate_weights(graph, entries)
    return _entries(graph, image)


def _entries(graph: GraphProto, image: str) -> list[Entry]:
    tensors, made = _tensors(graph), _makers(graph)
    constant, data, found = set(tensors), {image}, []
    for place, node in enumerate(graph.node):
        if node.input and all(name in constant or not name for name in node.input):
            constant.update(node.output)
        from_image = [i for i, name in enumerate(node.input) if name in data]
        if not from_image or node.op_type in SIZES:
            continue
        weight = 1 - from_image[0] if from_image[0] in (0, 1) and len(node.input) > 1 else -1
        weight = 3 if node.op_type.startswith("QLinear") else weight
        known = weight >= 0 and (node.input[weight] in constant or node.op_type in QUANTISED)
        if node.op_type in LAYERS and known:
            found.append(_entry(place, node, from_image[0], weight, made, tensors))
        else:
            data.update(node.output)
    places = {entry.node for entry in found}
    shared = {graph.node[e.node].input[e.weight] for e in found if e.root}
    for place, node in enumerate(graph.node):
        weighted = node.op_type in PRODUCTS and len(node.input) > 1 and node.input[1] in shared
        if weighted and place not in places:
            found.append(_entry(place, node, 0, 1, made, tensors))
    return sorted(found, key=lambda entry: entry.node)


def _tensors(graph: GraphProto) -> Tensors:
    """Return the tensors that a graph holds, by name: initialisers and constants."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    return tensors


def _makers(graph: GraphProto) -> Makers:
    return {output: node for node in graph.node for output in node.output}


def _source(name: str, made: Makers, tensors: Tensors) -> tuple[str, bool]:
    """Follow a weight through transposes; return where it comes from, and whether it is turned."""
    turned = False
    while name not in tensors and name in made and made[name].op_type in ("Identity", "Transpose"):
        turned ^= made[name].op_type == "Transpose"
        name = made[name].input[0]
    return name, turned


def _entry(
    place: int, node: NodeProto, data: int, weight: int, made: Makers, tensors: Tensors
) -> Entry:
    name, turned = _source(node.input[weight], made, tensors)
    maker = made[name].op_type if name in made else ""
    axes, kind = (
        (len(tensors[name].dims), tensors[name].data_type) if name in tensors else (0, FLOATS[0])
    )
    refused = ""
    if node.op_type in QUANTISED or maker in QUANTISED:
        refused = f"quantised ({node.op_type if node.op_type in QUANTISED else maker})"
    elif (
        node.op_type not in PRODUCTS
        or kind not in FLOATS
        or data != 0
        or attribute(node, "transA", 0)
        or (axes and axes != (4 if node.op_type == "Conv" else 2))
        or (turned and axes != 2)
    ):
        refused = node.op_type
    transposed = node.op_type == "MatMul" or (
        node.op_type == "Gemm" and not attribute(node, "transB", 0)
    )
    return Entry(place, data, weight, name if name in tensors else "", transposed, refused)


def _separate_weights(graph: GraphProto, entries: list[Entry]) -> None:
    tensors, made = _tensors(graph), _makers(graph)
    initialisers = {tensor.name for tensor in graph.initializer}
    takes = {(entry.node, entry.weight) for entry in entries}
    elsewhere = {output.name for output in graph.output}
    for place, node in enumerate(graph.node):
        elsewhere.update(n for i, n in enumerate(node.input) if (place, i) not in takes)
        inner = any(a.HasField("g") or a.graphs for a in node.attribute)
        elsewhere.update(initialisers if inner else ())  # inner graphs may use any of them
    for entry in entries:
        inputs = graph.node[entry.node].input
        name = inputs[entry.weight]
        if entry.refused or not entry.root or (name in initialisers and name not in elsewhere):
            continue
        own = name if name.endswith(f".{KEY}") else f"{name}.{KEY}"
        inputs[entry.weight] = own
        if own in initialisers:
            continue
        root, turned = _source(name, made, tensors)
        values = onnx.numpy_helper.to_array(tensors[root])
        values = values.T.copy() if turned else values
        graph.initializer.append(onnx.numpy_helper.from_array(values, own))
        initialisers.add(own)


def with_weights_as_inputs(model: ModelProto, roots: list[str]) -> ModelProto:
    """Return a copy of a model in which some initialisers may be overridden when it is run."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensors = _tensors(copy.graph)
    for root in roots:
        kind, sides = tensors[root].data_type, list(tensors[root].dims)
        copy.graph.input.append(onnx.helper.make_tensor_value_info(root, kind, sides))
    return copy


def with_entries_as_outputs(model: ModelProto, entries: list[Entry]) -> ModelProto:
    """Return a copy of a model whose outputs are what its first operations receive.

    These operations answer zeros, so that only what no weight has touched follows the image.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    at = {entry.node: entry for entry in entries}
    nodes, outputs = [], []
    for place, node in enumerate(copy.graph.node):
        if place not in at:
            nodes.append(node)
            continue
        output, answer = f"{KEY}.input.{place}", node.output[0]
        nodes.append(onnx.helper.make_node("Identity", [node.input[at[place].data]], [output]))
        outputs.append(onnx.ValueInfoProto(name=output))
        node.output[0] = f"{KEY}.answer.{place}"
        nodes += [node, onnx.helper.make_node("Sub", [node.output[0]] * 2, [answer])]
    graph = onnx.GraphProto()
    graph.node.extend(nodes)
    for name, new in (("node", graph.node), ("output", outputs)):
        copy.graph.ClearField(name)
        getattr(copy.graph, name).extend(new)
    return copy
