"""Where the slices enter an ONNX graph: the first operations with weights, and the graphs that show what they receive."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

PRODUCTS = {"Conv", "Gemm", "MatMul"}
LAYERS = PRODUCTS | {
    "ConvTranspose",
    "ConvInteger",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "FusedConv",
}
QUANTISED = {"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "DequantizeLinear"}
SIZES = {"Shape", "Size"}
STEPS = {"strides", "dilations", "kernel_shape"}
SCOPES = "pkg.torch.onnx.name_scopes"  # where torch notes the parts of the network that an operation comes from
FLOATS = (1, 10, 11)  # float32, float16 and float64 in the numbers of ONNX


@dataclass(frozen=True)
class Entry:
    """An operation with a weight that receives what comes from the image through operations without one.

    Attributes
    ----------
    node
        Its place among the nodes of the graph.
    data, weight
        Which of its inputs are the data and the weight.
    root
        Name of the tensor that holds the weight, "" if the weight is computed from others.
    turned
        Whether the tensor lies as (in, out).
    flipped
        Whether the operation takes the tensor turned, through a Transpose.
    refused
        Why it cannot be changed: the operation in words, or "".
    """

    node: int
    data: int
    weight: int
    root: str
    reorder_axes: bool
    flipped: bool
    refused: str


def attribute(node: Any, name: str, default: Any = None) -> Any:
    """Return an attribute of a node."""
    import onnx

    return next(
        (onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default
    )


def tensors_of(graph: Any) -> dict[str, Any]:
    """Return the tensors that a graph holds, by name: initializers and Constant nodes."""
    held = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            held.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    return held


def every_tensor(graph: Any) -> Iterator[Any]:
    """Yield every tensor in a graph or function, those in attributes and inner graphs as well."""
    yield from getattr(graph, "initializer", ())
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for a in node.attribute:
            yield from ([a.t] if a.HasField("t") else [])
            yield from a.tensors
            for sparse in ([a.sparse_tensor] if a.HasField("sparse_tensor") else []) + list(
                a.sparse_tensors
            ):
                yield from (sparse.values, sparse.indices)
            for inner in ([a.g] if a.HasField("g") else []) + list(a.graphs):
                yield from every_tensor(inner)


def check_steps(graph: Any) -> None:
    """Refuse sizes and steps of operations below 1, also in inner graphs: some versions of onnxruntime divide by them.

    Raises
    ------
    ValueError
        If there is one; it says which.
    """
    for node in graph.node:
        for a in node.attribute:
            numbers = [*a.ints, a.i] if a.name == "group" else a.ints if a.name in STEPS else ()
            if any(number < 1 for number in numbers) and not a.ref_attr_name:
                raise ValueError(f"{node.op_type} with {a.name} {', '.join(map(str, numbers))}")
            for inner in ([a.g] if a.HasField("g") else []) + list(a.graphs):
                check_steps(inner)


def entries_of(graph: Any, image: str) -> list[Entry]:
    """Find the operations through which an image enters, and those that share a weight with them.

    Parameters
    ----------
    graph
        A ``GraphProto``.
    image
        Name of the input.

    Returns
    -------
    list of Entry
        In the order of the nodes.
    """
    held = tensors_of(graph)
    made = {output: node for node in graph.node for output in node.output}
    constant = set(held)
    data, found = {image}, []
    for place, node in enumerate(graph.node):
        if node.input and all(name in constant or not name for name in node.input):
            constant.update(node.output)
        taken = [i for i, name in enumerate(node.input) if name in data]
        if not taken or node.op_type in SIZES:
            continue
        weight = 1 - taken[0] if taken[0] in (0, 1) and len(node.input) > 1 else -1
        weight = 3 if node.op_type.startswith("QLinear") else weight
        if (
            node.op_type in LAYERS
            and weight >= 0
            and (node.input[weight] in constant or node.op_type in QUANTISED)
        ):
            found.append(_entry(place, node, taken[0], weight, made, held))
        else:
            data.update(node.output)
    places = {entry.node for entry in found}
    roots = {entry.root for entry in found if entry.root}
    for place, node in enumerate(graph.node):
        if place not in places and node.op_type in PRODUCTS and len(node.input) > 1:
            other = _entry(place, node, 0, 1, made, held)
            if other.root in roots and node.input[1] in {
                graph.node[e.node].input[e.weight] for e in found
            }:
                found.append(other)
    return sorted(found, key=lambda entry: entry.node)


def _entry(
    place: int, node: Any, data: int, weight: int, made: dict[str, Any], held: dict[str, Any]
) -> Entry:
    name, flipped = node.input[weight], False
    while name not in held and name in made and made[name].op_type in ("Identity", "Transpose"):
        flipped ^= made[name].op_type == "Transpose"
        name = made[name].input[0]
    root = name if name in held else ""
    source = made[name].op_type if name in made else ""
    refused = ""
    axes = len(held[root].dims) if root else 0
    kind = held[root].data_type if root else FLOATS[0]
    if node.op_type in QUANTISED or source in QUANTISED:
        refused = f"quantised ({node.op_type if node.op_type in QUANTISED else source})"
    elif (
        node.op_type not in PRODUCTS
        or kind not in FLOATS
        or data != 0
        or attribute(node, "transA", 0)
        or (root and axes != (4 if node.op_type == "Conv" else 2))
        or (flipped and axes != 2)
    ):
        refused = node.op_type
    reorder_axes = (
        node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0))
    ) != flipped
    return Entry(place, data, weight, root, reorder_axes, flipped, refused)


def name_of(graph: Any, entry: Entry) -> str:
    """Return a dotted name for an operation: of its weight, or where the exporter wrote it, of the node."""
    node = graph.node[entry.node]
    if entry.root.endswith(".weight"):
        return entry.root.removesuffix(".weight")
    scopes = next((p.value for p in node.metadata_props if p.key == SCOPES), "")
    named: list[str] = re.findall(r"'([\w.]*)'", scopes)
    if len(named) > 1 and named[-2]:
        return named[-2]
    if node.name.startswith("/") and node.name.count("/") > 1:
        return ".".join(node.name.strip("/").split("/")[:-1])
    return entry.root or node.name or node.output[0]


def fed(model: Any, entries: Iterable[Entry], names: dict[str, str]) -> Any:
    """Return a copy of a model that takes the weights of some operations as inputs, by new names.

    Parameters
    ----------
    model
        A ``ModelProto``.
    entries
        The operations.
    names
        For each tensor that holds a weight the name of the input, which has the layout that the tensor has.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    held = tensors_of(copy.graph)
    for root, name in names.items():
        copy.graph.input.append(
            onnx.helper.make_tensor_value_info(name, held[root].data_type, list(held[root].dims))
        )
    flips = []
    for entry in entries:
        if entry.root in names:
            name = names[entry.root]
            if entry.flipped:
                flips.append(name)
                name = f"{name}.turned"
            copy.graph.node[entry.node].input[entry.weight] = name
    for name in dict.fromkeys(flips):
        copy.graph.node.insert(
            0, onnx.helper.make_node("Transpose", [name], [f"{name}.turned"], perm=[1, 0])
        )
    used = {name for node in copy.graph.node for name in node.input} | {
        o.name for o in copy.graph.output
    }
    inner = any(a.HasField("g") or a.graphs for node in copy.graph.node for a in node.attribute)
    for tensor in [
        t for t in copy.graph.initializer if t.name in names and t.name not in used and not inner
    ]:
        copy.graph.initializer.remove(tensor)
    return copy


def shown(model: Any, entries: list[Entry]) -> Any:
    """Return a copy of a model whose outputs are what its first operations receive.

    Behind each of these operations there is nothing but zeros, so that only what no weight has touched follows the
    image.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    del graph.output[:]
    nodes = []
    at = {entry.node: entry for entry in entries}
    for place, node in enumerate(list(graph.node)):
        entry = at.get(place)
        if entry is None:
            nodes.append(node)
            continue
        output = f"evenslice.seen.{place}"
        nodes.append(onnx.helper.make_node("Identity", [node.input[entry.data]], [output]))
        graph.output.append(onnx.ValueInfoProto(name=output))
        answer = node.output[0]
        node.output[0] = f"evenslice.hidden.{place}"
        nodes += [node, onnx.helper.make_node("Sub", [node.output[0]] * 2, [answer])]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return copy
